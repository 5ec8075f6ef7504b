"""Released models from the hub: what they are made of, under which licences, and how they become a model folder."""

import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from sana_streaming.checkpoint import MODELS, check_free, import_published, read_template, template_of
from sana_streaming.config import PRESETS, ModelConfig
from sana_streaming.text.gemma import FILES


@dataclass(frozen=True)
class Part:
    """Files of one repository."""

    what: str
    repository: str
    files: tuple[str, ...]  # patterns; the first names what must be there
    licence: str
    gigabytes: float  # about


@dataclass(frozen=True)
class Release:
    variant: str
    transformer: Part
    decode: str  # the way of decoding that goes with it


LTX2_TERMS = "LTX-2 Community License, https://huggingface.co/Lightricks/LTX-2"
STREAMING = "Efficient-Large-Model/SANA-Streaming"
BIDIRECTIONAL = "Efficient-Large-Model/SANA-Streaming_bidirectional"
RELEASES = {
    "2b": Release(
        "streaming",
        Part("transformer", STREAMING, ("dit/sana_streaming_ar.pth",), "Apache-2.0", 4.5),
        decode="causal",
    ),
    "2b-bidirectional": Release(
        "bidirectional",
        Part("transformer", BIDIRECTIONAL, ("dit/sana_bidirectional_short.pth",), "Apache-2.0", 4.3),
        decode="chunk_tile",
    ),
}
CODECS = {  # by the way of decoding that they were trained for
    "causal": Part("video codec", STREAMING, ("ltx2_causal_vae_0516/*",), f"made from LTX-2: {LTX2_TERMS}", 4.9),
    "chunk_tile": Part("video codec", "Lightricks/LTX-2", ("vae/*",), LTX2_TERMS, 2.4),
}
GEMMA_TERMS = "Gemma Terms of Use, https://ai.google.dev/gemma/terms"
TEMPLATE = (  # the published config that holds the instruction template; Apache-2.0
    "https://raw.githubusercontent.com/NVlabs/Sana/29dd6887c699ccf8ffd37702f2a1fa383a92b7b2/"
    "configs/sana_streaming/sana_streaming_2b_720p.yaml"
)


class Hub(Protocol):
    """`huggingface_hub.snapshot_download`, or what stands in for it: a repository's files in a local folder, fetched
    as far as they are not there yet."""

    def __call__(self, repo_id: str, *, allow_patterns: list[str]) -> str: ...


def parts_of(name: str, decode: str | None = None) -> tuple[Part, Part, Part]:
    """Transformer, codec and text encoder of a released model. ValueError for what was not released."""
    if name not in RELEASES:
        raise ValueError(f"unknown release '{name}': expected {' or '.join(RELEASES)}")
    decode = decode or RELEASES[name].decode
    if decode not in CODECS:
        raise ValueError(f"expected a way of decoding of {' or '.join(CODECS)}, got {decode!r}")
    encoder = PRESETS["2b"]().text.model
    return RELEASES[name].transformer, CODECS[decode], Part("text encoder", encoder, FILES, GEMMA_TERMS, 5.3)


def terms(parts: Sequence[Part]) -> list[str]:
    """What would be fetched and under which licences, a line for each part."""
    return [f"{p.what}: {p.repository}, about {p.gigabytes} GB. Licence: {p.licence}" for p in parts]


def download(
    name: str,
    out: Path | None = None,
    *,
    decode: str | None = None,
    yaml: Path | None = None,
    hub: Hub | None = None,
    read_url: Callable[[str], bytes] | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Fetch a released model and make a folder of it; the folder. Fetching goes on where it stopped before.

    `yaml`: the published config, if it is here already; `hub`, `read_url`: how things are fetched.
    ValueError says in a line what to do about what cannot be had.
    """
    parts = parts_of(name, decode)
    out = out or MODELS / name
    check_free(out)
    for line in terms(parts):
        say(line)
    template = read_template(yaml) if yaml else _template(read_url or _read_url)
    hub = hub or _hub()
    transformer, codec, encoder = (_fetch(part, hub) for part in parts)
    text = replace(_config().text, revision=encoder.name if encoder.parent.name == "snapshots" else "")
    import_published(
        transformer / parts[0].files[0],
        out,
        replace(_config(), text=text),
        variant=RELEASES[name].variant,
        template=template,
        vae=codec / parts[1].files[0].removesuffix("/*"),
    )
    return out


def _config() -> ModelConfig:
    return PRESETS["2b"]()


def _template(read_url: Callable[[str], bytes]) -> str:
    try:
        return template_of(read_url(TEMPLATE), TEMPLATE)
    except OSError as error:
        raise ValueError(
            f"cannot fetch the instruction template: {error}; get {TEMPLATE} another way and pass it with --yaml"
        ) from None


def _read_url(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


def _hub() -> Hub:
    from huggingface_hub import snapshot_download

    return partial(snapshot_download, dry_run=False)


def _fetch(part: Part, hub: Hub) -> Path:
    """The folder that holds a part's repository, as far as it is needed."""
    from huggingface_hub import errors

    page = f"https://huggingface.co/{part.repository}"
    try:
        folder = Path(hub(part.repository, allow_patterns=list(part.files)))
    except errors.GatedRepoError:
        raise ValueError(
            f"{part.repository} asks for consent: accept its terms at {page}, log in with 'hf auth login', "
            f"and run this again"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ValueError(
            f"{part.repository} is not on the hub, or not open to you: look at {page}, and log in with 'hf auth login' "
            f"if you were given access"
        ) from None
    except errors.LocalEntryNotFoundError as error:
        reason = error.__cause__ or error
        raise ValueError(f"cannot reach {part.repository}; run this again to go on: {reason}") from None
    if not any(folder.glob(part.files[0])):
        raise ValueError(f"{part.repository} does not hold {part.files[0]} any more: look at {page}")
    return folder

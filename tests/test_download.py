"""Fetching a released model, from a hub that is a folder beside the test."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import errors

from sana_streaming import checkpoint, cli
from sana_streaming.checkpoint.folder import write_tensors
from sana_streaming.checkpoint.names import PUBLISHED, scatter
from sana_streaming.codec import build_codec
from sana_streaming.codec.ltx2 import published_config
from sana_streaming.config import PRESETS, two_b
from sana_streaming.download import CODECS, RELEASES, TEMPLATE, download, parts_of, terms
from sana_streaming.model.dit import DiT
from sana_streaming.text.gemma import FILES

from .tiny_2b import VAE, tiny_2b

CPU = torch.device("cpu")
YAML = b"text_encoder: {chi_prompt: ['Be brief.', 'Instruction: ']}"
COMMIT = "0123abcd"
TINY = tiny_2b(depth=2, softmax_ratio=0.0)  # softmax blocks have another form in the files


class FakeHub:
    """Repositories as folders. Notes what it is asked for; `broken`: what a repository answers instead."""

    def __init__(self, folder: Path):
        self.folder, self.asked, self.broken, self.log = folder, [], {}, []

    def __call__(self, repo_id: str, *, allow_patterns: list[str]) -> str:
        self.asked.append((repo_id, tuple(allow_patterns)))
        self.log.append(f"fetch {repo_id}")
        if repo_id in self.broken:
            raise self.broken[repo_id]
        return str(self.folder / repo_id / "snapshots" / COMMIT)

    def place(self, repo_id: str, path: str) -> Path:
        path = self.folder / repo_id / "snapshots" / COMMIT / path
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@pytest.fixture
def hub(tmp_path, monkeypatch) -> FakeHub:
    """A hub that has all of both releases, at the size of a test."""
    monkeypatch.setitem(PRESETS, "2b", lambda: TINY)
    hub = FakeHub(tmp_path / "hub")
    torch.manual_seed(0)
    weights = {k: v.clone() for k, v in scatter(DiT(TINY.dit).state_dict(), PUBLISHED).items()}
    for block in range(2):
        for name in (f"blocks.{block}.attn.{part}.weight" for part in "qk"):
            weights[name] = weights[name][..., None]
    for release in RELEASES.values():
        torch.save(weights, hub.place(release.transformer.repository, release.transformer.files[0]))
    for decode, part in CODECS.items():
        values = VAE | {"decoder_causal": decode == "causal"}
        folder = part.files[0].removesuffix("*")
        hub.place(part.repository, folder + "config.json").write_text(json.dumps(values))
        codec = build_codec(published_config(values)[0])
        write_tensors(hub.place(part.repository, folder + "diffusion_pytorch_model.safetensors"), codec.state_dict())
    hub.place(two_b().text.model, "config.json").write_text("{}")
    return hub


def fetch(hub: FakeHub, name: str = "2b", out: Path | None = None, **options: object) -> Path:
    options = {"read_url": lambda url: YAML, "say": hub.log.append} | options
    return download(name, out or hub.folder.parent / "model", hub=hub, **options)


@pytest.mark.parametrize(("name", "decode"), [("2b", "causal"), ("2b-bidirectional", "chunk_tile")])
def test_a_model_folder_that_loads(hub, name, decode):
    config, dit, _ = checkpoint.load(fetch(hub, name), CPU, torch.float32)
    assert config.name == name
    assert config.codec.decode == decode
    assert config.text == replace(two_b().text, template="Be brief.\nInstruction: ", revision=COMMIT)
    assert next(dit.parameters()).isfinite().all()


def test_licences_are_named_before_anything_is_fetched(hub):
    fetch(hub, read_url=lambda url: hub.log.append(f"fetch {url}") or YAML)
    first = next(i for i, line in enumerate(hub.log) if line.startswith("fetch "))
    said = hub.log[:first]
    assert len(said) == 3
    for line, expected in zip(said, ("Apache-2.0", "LTX-2 Community License", "Gemma Terms of Use"), strict=True):
        assert expected in line
    assert not [line for line in hub.log[first:] if not line.startswith("fetch ")]


def test_only_what_is_needed_is_fetched(hub):
    fetch(hub)
    streaming = "Efficient-Large-Model/SANA-Streaming"
    assert hub.asked == [
        (streaming, ("dit/sana_streaming_ar.pth",)),
        (streaming, ("ltx2_causal_vae_0516/*",)),
        ("Efficient-Large-Model/gemma-2-2b-it", FILES),
    ]


def test_the_way_of_decoding_picks_the_codec(hub):
    out = fetch(hub, decode="chunk_tile")
    assert ("Lightricks/LTX-2", ("vae/*",)) in hub.asked
    assert checkpoint.load_config(out).codec.decode == "chunk_tile"


def answer(kind: type[Exception]) -> Exception:
    return kind("no\nway", response=SimpleNamespace(headers={}, request=None))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            answer(errors.GatedRepoError),
            r"SANA-Streaming asks for consent: accept its terms at https://.*hf auth login",
        ),
        (answer(errors.RepositoryNotFoundError), r"SANA-Streaming is not on the hub, or not open to you"),
        (errors.LocalEntryNotFoundError("no network"), r"cannot reach .*SANA-Streaming; run this again to go on"),
    ],
    ids=["gated", "missing", "offline"],
)
def test_weights_that_cannot_be_had_say_what_to_do(hub, error, expected):
    hub.broken["Efficient-Large-Model/SANA-Streaming"] = error
    with pytest.raises(ValueError, match=expected):
        fetch(hub)
    assert not (hub.folder.parent / "model").exists()


def test_a_file_that_was_taken_away_is_named(hub):
    hub.place("Efficient-Large-Model/SANA-Streaming", "dit/sana_streaming_ar.pth").unlink()
    with pytest.raises(ValueError, match=r"SANA-Streaming does not hold dit/sana_streaming_ar.pth any more"):
        fetch(hub)


def test_a_template_that_cannot_be_fetched_stops_before_the_weights(hub, tmp_path):
    def offline(url: str) -> bytes:
        raise OSError("no network")

    with pytest.raises(ValueError, match=r"cannot fetch the instruction template: no network; .* --yaml"):
        fetch(hub, read_url=offline)
    assert hub.asked == []
    (tmp_path / "model.yaml").write_bytes(YAML)
    out = fetch(hub, read_url=offline, yaml=tmp_path / "model.yaml")
    assert checkpoint.load_config(out).text.template == "Be brief.\nInstruction: "


def test_the_template_is_pinned_and_elsewhere(hub):
    asked = []
    fetch(hub, read_url=lambda url: asked.append(url) or YAML)
    assert asked == [TEMPLATE]
    assert "/main/" not in TEMPLATE
    assert TEMPLATE.endswith("/configs/sana_streaming/sana_streaming_2b_720p.yaml")


def test_a_model_that_is_there_is_not_fetched_again(hub):
    out = fetch(hub)
    hub.asked.clear()
    with pytest.raises(ValueError, match="expected a new or an empty folder"):
        fetch(hub, out=out)
    assert hub.asked == []


def test_what_was_not_released():
    with pytest.raises(ValueError, match="unknown release '3b': expected 2b or 2b-bidirectional"):
        parts_of("3b")
    with pytest.raises(ValueError, match="way of decoding of causal or chunk_tile, got 'fast'"):
        parts_of("2b", "fast")
    assert all("\n" not in line for name in RELEASES for line in terms(parts_of(name)))


@pytest.fixture
def run(hub, monkeypatch, tmp_path, capsys):
    """The command line with that hub; exit code, stdout, lines of stderr."""
    monkeypatch.setattr("sana_streaming.download._hub", lambda: hub)
    monkeypatch.setattr("sana_streaming.download._read_url", lambda url: YAML)
    for module in ("sana_streaming.download", "sana_streaming.checkpoint.folder"):
        monkeypatch.setattr(f"{module}.MODELS", tmp_path / "models")

    def run(*words: str) -> tuple[int, str, list[str]]:
        code = cli.main(["download", *words])
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return run


def test_command(run, tmp_path):
    code, out, err = run("2b")
    assert (code, err) == (0, [])
    assert out.splitlines()[-1] == f"{tmp_path / 'models' / '2b'}: ready; use it with --model 2b"
    assert checkpoint.find("2b") == tmp_path / "models" / "2b"


def test_command_writes_where_it_is_told(run, tmp_path):
    code, out, _ = run("2b", str(tmp_path / "here"))
    assert code == 0
    assert out.splitlines()[-1].endswith(f"use it with --model {tmp_path / 'here'}")
    assert (tmp_path / "here" / "config.json").is_file()


def test_dry_run_fetches_nothing(run, hub):
    code, out, err = run("2b", "--dry-run")
    assert (code, err) == (0, [])
    assert len(out.splitlines()) == 3
    assert hub.asked == []


def test_trouble_is_one_line(run, hub):
    assert run("3b")[::2] == (2, ["error: unknown release '3b': expected 2b or 2b-bidirectional"])
    hub.broken["Efficient-Large-Model/gemma-2-2b-it"] = answer(errors.GatedRepoError)
    code, _, err = run("2b")
    assert code == 2
    assert len(err) == 1
    assert err[0].startswith("error: Efficient-Large-Model/gemma-2-2b-it asks for consent")


def test_an_interrupt_says_that_it_goes_on(run, hub):
    hub.broken["Efficient-Large-Model/gemma-2-2b-it"] = KeyboardInterrupt()
    code, _, err = run("2b")
    assert (code, err) == (130, ["interrupted: run it again to go on from here"])

"""The released checkpoints of the 2 B model: their .pth files, and the folder that we make of one."""

import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sana_streaming.checkpoint.folder import check_free, read, write
from sana_streaming.checkpoint.names import PUBLISHED, Shape, gather
from sana_streaming.codec.ltx2 import read_published as read_codec
from sana_streaming.config import DiTConfig, ModelConfig, SamplerConfig
from sana_streaming.model.dit import DiT

VARIANTS = ("streaming", "bidirectional")
WHOLE_CLIPS = SamplerConfig(  # how the bidirectional variant is sampled; the negative prompt is in words of our own
    first_chunk=11,
    chunk=11,
    steps=50,
    shift=8.0,
    guidance=6.0,
    negative_prompt="blurry, distorted, flickering, noisy, overexposed, deformed, low quality, watermark, subtitles",
    clip=(4, 11),  # up to 81 frames, which is what it was trained on
    motion_score=10,
)
WRAPPERS = ("generator", "state_dict")  # what a file may hold its weights in, outermost first
PREFIXES = ("model.", "module.")  # what may stand before every name, outermost first


def import_published(
    source: Path,
    folder: Path,
    config: ModelConfig,
    *,
    variant: str | None = None,
    template: str = "",
    vae: Path | None = None,
    decode: str | None = None,
) -> ModelConfig:
    """Make a model folder of a published file. `variant`: what it must be; `template`: the text that stands before
    instructions; `vae`: a published folder of the codec; `decode`: see `codec.ltx2.read_published`.
    ValueError names the first key that does not fit; nothing is then written."""
    check_free(folder)
    published = read_published(source)
    variant = variant or variant_of(published, config.dit)
    weights = {"dit": from_published(published, config.dit, variant, source)}
    name = config.name if variant == "streaming" else f"{config.name}-{variant}"
    sampler = config.sampler if variant == "streaming" else WHOLE_CLIPS
    config = replace(config, name=name, text=replace(config.text, template=template), sampler=sampler)
    if vae is not None:
        codec, weights["codec"] = read_codec(vae, decode)
        if codec.latent_channels != config.dit.latent_channels:
            raise ValueError(
                f"{vae}: expected latents of {config.dit.latent_channels} channels, got {codec.latent_channels}"
            )
        config = replace(config, codec=codec)
    write(folder, config, weights)
    return config


def read_published(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth file, under the names that they have in the model. Nothing in the file is run."""
    if not path.is_file():
        raise ValueError(f"expected a file of published weights, got {path}")
    if path.suffix == ".safetensors":
        return _without_prefixes(read(path))
    with path.open("rb") as file:
        mapped = zipfile.is_zipfile(file)  # files of early versions of torch are no archives and cannot be mapped
    try:
        with warnings.catch_warnings(action="ignore"):
            content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except MemoryError:
        raise
    except Exception as error:  # of many kinds: a damaged file can look like anything
        reason = str(error).splitlines()[0] if str(error) else "it ends too early"
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is no whole file of weights alone; download it again: {reason}"
        ) from None
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected weights by name, got {type(content).__name__}")
    return _without_prefixes({str(k): v for k, v in content.items() if isinstance(v, Tensor)})


def _without_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def variant_of(published: Mapping[str, Tensor], config: DiTConfig) -> str:
    """The streaming variant holds q and k of its softmax blocks as three taps."""
    taps = [published.get(f"blocks.{i}.attn.q.weight") for i in config.softmax_blocks]
    return "bidirectional" if any(q is not None and q.ndim == 2 for q in taps) else "streaming"


def from_published(
    published: Mapping[str, Tensor],
    config: DiTConfig,
    variant: str | None = None,
    where: Path | str = "published weights",
) -> dict[str, Tensor]:
    """The weights of the released checkpoints under our names, in their own precision. What the model does not read is
    left out: the outer taps of the streaming variant's q and k, and the unused buffers."""
    variant = variant or variant_of(published, config)
    if variant not in VARIANTS:
        raise ValueError(f"expected a variant of {' or '.join(VARIANTS)}, got {variant!r}")

    def taps(name: str) -> tuple[Shape, ...]:
        """q and k of self-attention are convolutions over time: of one tap, or in softmax blocks of three, whose outer
        ones are never read and may be left out, or matrices in the bidirectional variant."""
        if not name.endswith((".attn.q.weight", ".attn.k.weight")):
            return ((),)
        if int(name.split(".")[1]) not in config.softmax_blocks:
            return ((1,),)
        return ((3,), (1,)) if variant == "streaming" else ((),)

    with torch.device("meta"):
        ours = DiT(config).state_dict()
    return gather(published, ours, PUBLISHED, where, taps)


def read_template(path: Path) -> str:
    """The instruction template of a published config file."""
    return template_of(path.read_bytes(), path)


def template_of(text: bytes, where: Path | str) -> str:
    """The instruction template, which stands in a published config as a list of lines."""
    import yaml

    try:
        lines = yaml.safe_load(text)["text_encoder"]["chi_prompt"]
    except (yaml.YAMLError, KeyError, TypeError):
        lines = None
    if not isinstance(lines, list) or not lines or not all(isinstance(line, str) for line in lines):
        raise ValueError(f"{where}: expected text_encoder.chi_prompt, a list of lines of text")
    return "\n".join(lines)

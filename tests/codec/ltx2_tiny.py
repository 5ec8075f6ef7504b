"""The LTX-2 codec, small: with the published decoder that lies beside the tests, and an encoder that is drawn."""

import dataclasses
import json
from pathlib import Path

import torch
from torch import Tensor

from sana_streaming.codec import build_codec
from sana_streaming.codec.ltx2 import CausalState, Ltx2Codec, published_config

GOLDEN = Path(__file__).parents[1] / "golden"
PUBLISHED = json.loads((GOLDEN / "ltx2_tiny_config.json").read_text())
TINY, _ = published_config(PUBLISHED)
PARTITIONS = [(1, 1, 1, 1, 1, 1), (1, 3, 2), (4, 2), (3, 3), (5, 1)]
WAYS = ["causal", "chunk_tile"]


def error(got: Tensor, expected: Tensor) -> float:
    """Relative L2 distance."""
    assert got.shape == expected.shape
    return float((got.double() - expected.double()).norm() / expected.double().norm())


def build(weights: dict[str, Tensor], decode: str) -> Ltx2Codec:
    codec = build_codec(dataclasses.replace(TINY, decode=decode))
    assert isinstance(codec, Ltx2Codec)
    codec.load_state_dict(weights)
    return codec.eval().requires_grad_(False)


def encode(codec: Ltx2Codec, x: Tensor) -> Tensor:
    return codec.encode(x, codec.init_encoder(len(x)))[0]


def decode(codec: Ltx2Codec, z: Tensor, parts: tuple[int, ...] | None = None) -> Tensor:
    """All frames of the latents, given in parts."""
    state, out = codec.init_decoder(len(z)), []
    for part in z.split(list(parts or (z.shape[2],)), dim=2):
        y, state = codec.decode(part, state)
        out.append(y)
    rest = codec.flush(state)
    return torch.cat(out if rest is None else [*out, rest], dim=2)


def decode_whole(codec: Ltx2Codec, z: Tensor) -> Tensor:
    """One pass of the decoder, which sees all latents at once if it is not causal."""
    z = z * codec.latents_std[:, None, None, None] + codec.latents_mean[:, None, None, None]
    return codec.decoder(z, CausalState((None,) * len(codec.decoder.layers)))[0]


def scaled(raw: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Golden frames are of latents that are not scaled yet."""
    return (raw - weights["latents_mean"][:, None, None, None]) / weights["latents_std"][:, None, None, None]


def video(batch: int = 2, latents: int = 3, height: int = 64, width: int = 96) -> Tensor:
    return torch.rand(batch, 3, 8 * latents - 7, height, width) * 2 - 1


def drawn(seed: int, *shape: int) -> Tensor:
    """Numbers in [-1, 1) that are the same, to the bit, wherever and whenever they are drawn."""
    n = torch.arange(torch.Size(shape).numel()) + 1_000_000 * seed
    n = n * 2654435761 % 2**32
    for shift in (15, 13):
        n = (n ^ (n >> shift)) * 1103515245 % 2**32
    return ((n >> 8) / 2**23 - 1).reshape(shape)


def drawn_encoder() -> dict[str, Tensor]:
    shapes = {k: v.shape for k, v in Ltx2Codec(TINY).state_dict().items() if k.startswith("encoder.")}
    return {
        key: drawn(seed, *shape) * (0.1 if len(shape) == 1 else (3 / (shape[1] * 27)) ** 0.5)
        for seed, (key, shape) in enumerate(sorted(shapes.items()))
    }

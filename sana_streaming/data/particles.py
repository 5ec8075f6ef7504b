"""Falling snow and rain over clips [N, F, 3, H, W].

There is one field of flakes and one of streaks, the same in every stream, and each of them is a loop: after `LOOP`
frames it is what it was, so that a model can know every frame of it by heart and tell from the frame before which one
is next. It has a few layers of depth. A layer is a tile, repeated over the picture, that falls by its own height in a
loop, or by a multiple of it; flakes sway as they fall, streaks go straight on. A stream begins at the loop's
beginning.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Generator, Tensor

from sana_streaming.data.filters import blur, mix, rgb, saturate

DENSITY = {"slightly": 0.5, "": 1.0, "heavily": 2.0}  # a thinner field is a part of a denser one
TINT = {"slightly": 0.5, "": 1.0, "heavily": 1.25}  # how much of the change of colours behind the particles


@dataclass(frozen=True)
class Layer:
    """Lengths are pixels of a picture with a short side of 256."""

    width: float  # of the tile
    height: float  # of the tile
    right: int  # tiles that it moves to the right in a loop
    down: int  # tiles that it moves downwards in a loop
    sigma: float  # size of a spot
    brightness: float
    count: int  # particles of a tile
    sway: float = 0.0  # to the left and to the right, once a loop
    spots: int = 1  # a streak is a row of spots ...
    length: float = 0.0  # ... of this length, along the motion


LOOP = 32  # frames
LAYERS: dict[str, tuple[Layer, ...]] = {
    "snow": (
        Layer(256, 160, right=0, down=1, sigma=3.0, brightness=1.0, count=22, sway=6),
        Layer(256, 128, right=0, down=1, sigma=2.3, brightness=0.9, count=27, sway=4),
        Layer(256, 96, right=0, down=1, sigma=1.7, brightness=0.8, count=27, sway=3),
    ),
    "rain": (
        Layer(128, 256, right=1, down=2, sigma=1.6, brightness=0.5, count=18, spots=15, length=42),
        Layer(96, 192, right=1, down=2, sigma=1.4, brightness=0.4, count=15, spots=12, length=30),
    ),
}
SEEDS = {"snow": 1, "rain": 2}
FRAMES_AT_ONCE = 16


@lru_cache(maxsize=48)
def particle_field(
    kind: str,
    frames: int,
    height: int,
    width: int,
    degree: str = "",
    first: int = 0,
    device: str | torch.device = "cpu",
) -> Tensor:
    """How much of the picture the particles cover, [F, 1, H, W] in [0, 1], from frame `first` of a stream on."""
    if kind not in LAYERS:
        raise ValueError(f"kind: expected one of {tuple(LAYERS)}, got {kind!r}")
    if degree not in DENSITY:
        raise ValueError(f"degree: expected one of {tuple(DENSITY)}, got {degree!r}")
    scale = min(height, width) / 256
    time = torch.arange(first, first + frames, dtype=torch.float64)[:, None] % LOOP / LOOP
    rng = Generator().manual_seed(SEEDS[kind])
    clear = torch.ones(frames, height, width, device=device)  # what the layers let through
    for layer in LAYERS[kind]:
        everywhere = torch.rand(3, round(layer.count * max(DENSITY.values())), 1, generator=rng, dtype=torch.float64)
        x, y, phase = everywhere[:, : round(layer.count * DENSITY[degree])]
        tile = (layer.width, layer.height)
        motion = (layer.right * layer.width, layer.down * layer.height)  # in a loop
        along = torch.linspace(0, layer.length, layer.spots, dtype=torch.float64) / math.hypot(*motion)
        x, y = (x * tile[0] + along * motion[0]).flatten(), (y * tile[1] + along * motion[1]).flatten()
        phase = phase.expand(-1, layer.spots).flatten()
        for part, moments in zip(clear.split(FRAMES_AT_ONCE), time.split(FRAMES_AT_ONCE), strict=True):
            sway = layer.sway * torch.sin(2 * math.pi * (moments + phase))
            across = _profile(x + motion[0] * moments + sway, width / scale, width, tile[0], layer.sigma).to(device)
            down = _profile(y + motion[1] * moments, height / scale, height, tile[1], layer.sigma).to(device)
            part *= 1 - layer.brightness * (down.mT @ across).clamp(0, 1)
    return (1 - clear)[:, None]


def _profile(centre: Tensor, length: float, pixels: int, tile: float, sigma: float) -> Tensor:
    """Bells at centre [F, K] along a line of that length that repeats itself after `tile` -> [F, K, pixels]"""
    distance = torch.arange(pixels, dtype=torch.float64) * (length / pixels) - (centre % tile)[..., None]
    distance = (distance + tile / 2) % tile - tile / 2
    return torch.exp(-(distance.float() / sigma).square() / 2)


def snow(video: Tensor, degree: str = "", first: int = 0) -> Tensor:
    """White flakes over a slightly paler and colder scene."""
    flat = video.flatten(0, 1)
    cold = (saturate(flat, 0.7) * 0.9 + 0.1 * rgb(video, (0.85, 0.92, 1.0))).view_as(video)
    return _cover(mix(video, cold, TINT[degree]), (0.97, 0.98, 1.0), "snow", degree, first)


def rain(video: Tensor, degree: str = "", first: int = 0) -> Tensor:
    """Pale slanted streaks over a scene that is darker and greyer."""
    flat = video.flatten(0, 1)
    wet = (saturate(blur(flat, 0.6), 0.55) * rgb(video, (0.66, 0.72, 0.80))).view_as(video)
    return _cover(mix(video, wet, TINT[degree]), (0.82, 0.88, 0.95), "rain", degree, first)


def _cover(video: Tensor, colour: tuple[float, float, float], kind: str, degree: str, first: int) -> Tensor:
    frames, _, height, width = video.shape[1:]
    field = particle_field(kind, frames, height, width, degree, first, video.device)
    return mix(video, rgb(video, colour), field)

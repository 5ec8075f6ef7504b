"""Falling snow and rain over clips [N, F, 3, H, W].

There is one field of flakes and one of streaks, the same in every stream. A field is a tile as wide and as high as the
short side of the picture, repeated over the long one, and a torus: what leaves at the bottom comes back at the top. It
has a few layers of depth, and every layer moves with one speed, so that the particles of a frame follow from those of
the frame before. A stream begins with all layers where they were drawn.
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

    right: float  # speed to the right, a frame
    down: float  # speed downwards, a frame
    sigma: float  # size of a spot
    brightness: float
    count: int  # particles of a tile
    spots: int = 1  # a streak is a row of spots ...
    length: float = 0.0  # ... of this length, along the motion


# The nearest layers move by whole cells of 16 pixels in a latent of 4 frames.
LAYERS: dict[str, tuple[Layer, ...]] = {
    "snow": (
        Layer(right=1.0, down=4.0, sigma=3.0, brightness=1.0, count=36),
        Layer(right=0.6, down=2.5, sigma=2.3, brightness=0.9, count=54),
        Layer(right=0.35, down=1.5, sigma=1.7, brightness=0.8, count=72),
    ),
    "rain": (
        Layer(right=4.0, down=16.0, sigma=1.6, brightness=0.5, count=36, spots=15, length=42),
        Layer(right=3.0, down=12.0, sigma=1.4, brightness=0.4, count=54, spots=12, length=30),
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
    tile = min(height, width)
    scale = tile / 256
    time = torch.arange(first, first + frames, dtype=torch.float64)[:, None]
    rng = Generator().manual_seed(SEEDS[kind])
    clear = torch.ones(frames, height, width, device=device)  # what the layers let through
    for layer in LAYERS[kind]:
        everywhere = torch.rand(2, round(layer.count * max(DENSITY.values())), 1, generator=rng, dtype=torch.float64)
        x, y = everywhere[:, : round(layer.count * DENSITY[degree])] * tile
        speed = math.hypot(layer.right, layer.down)
        along = torch.linspace(0, scale * layer.length, layer.spots, dtype=torch.float64)
        x, y = (x + along * layer.right / speed).flatten(), (y + along * layer.down / speed).flatten()
        for part, moments in zip(clear.split(FRAMES_AT_ONCE), time.split(FRAMES_AT_ONCE), strict=True):
            across = _profile(x + scale * layer.right * moments, width, tile, scale * layer.sigma).to(device)
            down = _profile(y + scale * layer.down * moments, height, tile, scale * layer.sigma).to(device)
            part *= 1 - layer.brightness * (down.mT @ across).clamp(0, 1)
    return (1 - clear)[:, None]


def _profile(centre: Tensor, side: int, tile: int, sigma: float) -> Tensor:
    """Bells at centre [F, K] along a line of `side` pixels that repeats itself after `tile` -> [F, K, side]"""
    distance = torch.arange(side, dtype=torch.float64) - (centre % tile)[..., None]
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

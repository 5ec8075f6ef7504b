"""What looks are made of: blurs, tone curves, outlines, brushes and textures on images [M, 3, H, W] in [0, 1].

Lengths are given in pixels of a picture with a short side of 256 and grow with the picture, so that a look agrees
across sizes. Nothing depends on other frames or on statistics of the whole frame, and textures are fixed to the frame:
a still stays still.
"""

import math
from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

Colour = tuple[float, float, float]
LUMA: Colour = (0.299, 0.587, 0.114)


def scale_of(x: Tensor) -> float:
    return min(x.shape[-2:]) / 256


def rgb(x: Tensor, colour: Colour) -> Tensor:
    """A colour as [3, 1, 1] beside images x."""
    return _constant(colour, x.device)


@lru_cache(maxsize=1024)
def _constant(colour: Colour, device: torch.device) -> Tensor:
    """Kept on the device: to send it each time would make the GPU wait."""
    return torch.tensor(colour, device=device)[:, None, None]


def luma(x: Tensor) -> Tensor:
    """-> [M, 1, H, W]"""
    return (x * rgb(x, LUMA)).sum(1, keepdim=True)


def mix(a: Tensor, b: Tensor, amount: Tensor | float) -> Tensor:
    return a + (b - a) * amount


def screen(a: Tensor, b: Tensor) -> Tensor:
    """Add light without burning out."""
    return 1 - (1 - a) * (1 - b)


def smoothstep(x: Tensor, low: float, high: float) -> Tensor:
    x = ((x - low) / (high - low)).clamp(0, 1)
    return x * x * (3 - 2 * x)


def contrast(x: Tensor, gain: float, pivot: float = 0.5) -> Tensor:
    return ((x - pivot) * gain + pivot).clamp(0, 1)


def saturate(x: Tensor, gain: float) -> Tensor:
    return mix(luma(x), x, gain).clamp(0, 1)


def steps(x: Tensor, levels: int, softness: float = 0.35) -> Tensor:
    """Flat levels from 0 to 1 with short ramps between them: hard steps would flicker where a value lies on an edge."""
    scaled = x * (levels - 1)
    base = scaled.floor()
    return (base + smoothstep(scaled - base, 0.5 - softness, 0.5 + softness)) / (levels - 1)


def gradient_map(tone: Tensor, colours: tuple[Colour, ...]) -> Tensor:
    """Tone [M, 1, H, W] -> colours, spread evenly from 0 to 1 and blended in between."""
    scaled = tone * (len(colours) - 1)
    out = rgb(tone, colours[0])
    for i, (low, high) in enumerate(pairwise(colours)):
        out = torch.addcmul(out, rgb(tone, high) - rgb(tone, low), scaled.clamp(i, i + 1) - i)
    return out


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, as one product with a banded matrix along the rows and one along the columns."""
    sigma = sigma * scale_of(x)
    return _blur_matrix(x.shape[-2], sigma, x.device) @ (x @ _blur_matrix(x.shape[-1], sigma, x.device).mT)


@lru_cache(maxsize=256)
def _blur_matrix(side: int, sigma: float, device: torch.device) -> Tensor:
    """[side, side]; what lies past an end of the line is taken to be like the end."""
    radius = math.ceil(3 * sigma) + 1
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.softmax(-(offsets**2) / (2 * max(sigma, 0.3) ** 2), 0)
    places = (torch.arange(side)[:, None] + offsets).clamp(0, side - 1)
    return torch.zeros(side, side).scatter_add_(1, places, kernel.expand(side, -1)).to(device)


def slope(tone: Tensor, sigma: float = 1.2) -> tuple[Tensor, Tensor]:
    """Change of a smoothed tone [M, 1, H, W] to the right and downwards, per pixel at a short side of 256."""
    smooth = F.pad(blur(tone, sigma), (1, 1, 1, 1), mode="replicate")
    right = (smooth[..., 1:-1, 2:] - smooth[..., 1:-1, :-2]) * (scale_of(tone) / 2)
    down = (smooth[..., 2:, 1:-1] - smooth[..., :-2, 1:-1]) * (scale_of(tone) / 2)
    return right, down


def edges(tone: Tensor, sigma: float = 1.2) -> Tensor:
    """Steepness of a smoothed tone, about 0.1 at a clear edge -> [M, 1, H, W]"""
    right, down = slope(tone, sigma)
    return torch.sqrt(right * right + down * down + 1e-8)


def outlines(tone: Tensor, sigma: float, gain: float) -> Tensor:
    """Ink where a tone is darker than its surroundings or falls off steeply -> [M, 1, H, W], 1 is ink."""
    ink = (blur(tone, 1.6 * sigma) - blur(tone, sigma)) * gain
    return smoothstep(ink, 0.15, 1.0)


def brush(x: Tensor, radius: float) -> Tensor:
    """Flat patches with crisp borders: each pixel takes the mean of the calmest of four regions, softly chosen."""
    r = max(1, round(radius * scale_of(x)))
    padded = F.pad(x, (r, r, r, r), mode="replicate")
    tone = luma(padded)
    rows = F.avg_pool2d(torch.cat([padded, tone * tone], 1), (1, r + 1), stride=1)
    pooled = F.avg_pool2d(rows, (r + 1, 1), stride=1)  # [M, 4, H + r, W + r]
    variance = pooled[:, 3:] - luma(pooled[:, :3]) ** 2
    weight = 1 / (variance.clamp_min(0) + 4e-4) ** 2
    weighted = torch.cat([pooled[:, :3] * weight, weight], 1)
    total = (
        weighted[..., :-r, :-r] + weighted[..., :-r, r:] + weighted[..., r:, :-r] + weighted[..., r:, r:]
    )  # the neighbourhoods above left, above right, below left, below right
    return total[:, :3] / total[:, 3:]


@lru_cache(maxsize=64)
def texture(height: int, width: int, cell: float, seed: int, device: torch.device, stretch: float = 1.0) -> Tensor:
    """Smooth noise fixed to the frame, [1, 1, H, W] in [-1, 1]: spots of `cell` pixels, `stretch` times as wide."""
    cell = cell * min(height, width) / 256
    rows, columns = math.ceil(height / cell) + 3, math.ceil(width / (cell * stretch)) + 3
    noise = torch.randn(1, 1, rows, columns, generator=torch.Generator().manual_seed(seed))
    size = (round(rows * cell), round(columns * cell * stretch))
    return F.interpolate(noise.clamp(-2, 2) / 2, size=size, mode="bicubic")[..., :height, :width].to(device)


def grain(x: Tensor, cell: float, seed: int = 0, stretch: float = 1.0) -> Tensor:
    """`texture` beside images x."""
    return texture(x.shape[-2], x.shape[-1], cell, seed, x.device, stretch)


def position(x: Tensor) -> tuple[Tensor, Tensor]:
    """Columns [W] and rows [H, 1], in pixels of a picture with a short side of 256, 0 at the top left."""
    return (
        torch.arange(x.shape[-1], device=x.device) / scale_of(x),
        torch.arange(x.shape[-2], device=x.device)[:, None] / scale_of(x),
    )


def height_above(x: Tensor) -> Tensor:
    """1 at the top of the frame, 0 at the bottom, [H, 1]"""
    return torch.linspace(1, 0, x.shape[-2], device=x.device)[:, None]


def distance_from_centre(x: Tensor) -> Tensor:
    """0 in the middle, 1 in the corners, [H, W]"""
    across = torch.linspace(-1, 1, x.shape[-1], device=x.device)
    down = torch.linspace(-1, 1, x.shape[-2], device=x.device)[:, None]
    return torch.sqrt((across**2 + down**2) / 2)


def vignette(x: Tensor, strength: float) -> Tensor:
    return x * (1 - strength * smoothstep(distance_from_centre(x), 0.3, 1.0))


def glow(x: Tensor, threshold: float, sigma: float, strength: float) -> Tensor:
    """Let the bright parts shine over their surroundings."""
    bright = ((x - threshold) / (1 - threshold)).clamp(0, 1)
    return screen(x, (blur(bright, sigma) * strength).clamp(0, 1))

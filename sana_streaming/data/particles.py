"""Falling snow and rain over clips [N, F, 3, H, W]: soft spots whose places are smooth functions of the frame."""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sana_streaming.data.filters import blur, rgb, saturate
from sana_streaming.data.motion import fork, log_uniform, uniform


def spots(
    x: Tensor, y: Tensor, wide: Tensor, tall: Tensor, height: int, width: int, brightness: Tensor | float = 1.0
) -> Tensor:
    """Gaussian spots at x, y [N, F, K] in pixels, with sigmas wide and tall [N, 1, K] -> their sum [N, F, 1, H, W]."""
    columns = torch.arange(width, device=x.device)
    rows = torch.arange(height, device=x.device)
    across = torch.exp(-(((columns - x[..., None]) / wide[..., None]) ** 2) / 2)  # [N, F, K, W]
    down = torch.exp(-(((rows - y[..., None]) / tall[..., None]) ** 2) / 2)
    if isinstance(brightness, Tensor):
        across = across * brightness[..., None]
    return (down.transpose(-1, -2) @ across)[:, :, None]


def snow(video: Tensor, generator: Generator) -> Tensor:
    """Flakes of several sizes, near ones faster, swaying as they fall, over a slightly paler and colder scene."""
    rng = fork(generator)
    n, frames, _, height, width = video.shape
    scale, count, device = min(height, width) / 256, round(170 * max(height, width) / min(height, width)), video.device
    near = uniform(rng, 0, 1, n, 1, count)
    size = (1.3 + 1.9 * near**2) * scale
    speed = (1.4 + 2.4 * near) * scale
    first_x, first_y = uniform(rng, 0, 1, n, 1, count), uniform(rng, 0, 1, n, 1, count)
    phase, period = uniform(rng, 0, 2 * math.pi, n, 1, count), log_uniform(rng, 40, 110, n, 1, count)
    wind = uniform(rng, -0.9, 0.9, n, 1, 1) * scale
    t = torch.arange(frames)[:, None]
    margin = 10 * scale
    x = (first_x * width + wind * t + 5 * scale * torch.sin(2 * math.pi * t / period + phase)) % (
        width + 2 * margin
    ) - margin
    y = (first_y * (height + 2 * margin) + speed * t) % (height + 2 * margin) - margin
    x, y, size = (value.to(device, non_blocking=True) for value in (x, y, size))
    flakes = (0.95 * spots(x, y, size, size, height, width)).clamp(0, 0.95)
    cold = saturate(video.flatten(0, 1), 0.7).view_as(video) * 0.9 + 0.1 * rgb(video, (0.85, 0.92, 1.0))
    return cold + (rgb(video, (0.97, 0.98, 1.0)) - cold) * flakes


def rain(video: Tensor, generator: Generator) -> Tensor:
    """Slanted streaks falling fast, over a scene that is darker and greyer."""
    rng = fork(generator)
    n, frames, _, height, width = video.shape
    scale, count, device = min(height, width) / 256, round(110 * max(height, width) / min(height, width)), video.device
    near = uniform(rng, 0, 1, n, 1, count)
    wide, tall = (0.8 + 0.5 * near) * scale, (7 + 9 * near) * scale
    speed = (9 + 7 * near) * scale
    first_x, first_y = uniform(rng, 0, 1, n, 1, count), uniform(rng, 0, 1, n, 1, count)
    slant = uniform(rng, -0.22, 0.22, n)
    t = torch.arange(frames)[:, None]
    margin = 40 * scale
    side = round(0.25 * height)  # the streaks are drawn upright on a wider picture, which is then sheared
    x = (first_x * (width + 2 * side)).expand(n, frames, count)
    y = (first_y * (height + 2 * margin) + speed * t) % (height + 2 * margin) - margin
    x, y, wide, tall, bright = (value.to(device, non_blocking=True) for value in (x, y, wide, tall, 0.35 + 0.4 * near))
    streaks = _shear(
        spots(x, y, wide, tall, height, width + 2 * side, bright), slant.to(device, non_blocking=True), width
    ).clamp(0, 0.8)
    wet = saturate(blur(video.flatten(0, 1), 0.6), 0.55).view_as(video) * rgb(video, (0.66, 0.72, 0.80))
    return wet + (rgb(video, (0.82, 0.88, 0.95)) - wet) * streaks


def _shear(pictures: Tensor, slant: Tensor, width: int) -> Tensor:
    """The middle of pictures [N, F, 1, H, W'], with row y moved left by slant [N] times y -> [N, F, 1, H, width]."""
    full_height, full_width = pictures.shape[-2:]
    x = torch.linspace(-1, 1, width, device=slant.device) * ((width - 1) / full_width)
    y = torch.linspace(-1, 1, full_height, device=slant.device)[:, None] * ((full_height - 1) / full_height)
    across = x + slant[:, None, None] * y * (full_height / full_width)
    points = torch.stack([across, y.expand_as(across)], -1)  # [N, H, width, 2]
    return F.grid_sample(pictures[:, :, 0], points, align_corners=False)[:, :, None]

"""Rectified flow: how data and noise are mixed, the noise levels of a chunk, and guidance (paper section 3.2)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from sana_streaming.config import SamplerConfig

S = TypeVar("S")
Denoise = Callable[[Tensor, float, S], tuple[Tensor, S]]  # x, sigma and state -> velocity and the state after the chunk


def interpolate(data: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """(1 - sigma) data + sigma noise; sigma in [0, 1], broadcastable."""
    return torch.lerp(data, noise, sigma)


def shifted(u: float, shift: float) -> float:
    """Move a noise level in [0, 1] towards noise: shift > 1 spends more steps where the picture is undecided."""
    return shift * u / (1 + (shift - 1) * u)


def sigmas(config: SamplerConfig, steps: int) -> tuple[float, ...]:
    """The noise levels of a chunk, from 1 down to the final 0: the trained list, else a shifted grid."""
    if not 1 <= steps <= 1000:
        raise ValueError(f"expected 1 to 1000 denoising steps, got {steps}")
    for schedule in config.schedules:
        if len(schedule) == steps:
            return (*schedule, 0.0)
    end = shifted(0.001, config.shift)
    grid = [1 + (end - 1) * i / max(1, steps - 1) for i in range(steps)]
    return (*(shifted(u, config.shift) for u in grid), 0.0)


@dataclass(frozen=True)
class Sampling:
    """How the chunks of a stream are denoised."""

    levels: tuple[float, ...]  # from 1 down to the final 0
    temperature: float = 1.0
    repeat_noise: bool = False


def sampling(config: SamplerConfig, steps: int | None = None) -> Sampling:
    """The model's own way of sampling, or with another number of steps."""
    levels = sigmas(config, config.steps if steps is None else steps)
    return Sampling(levels, config.temperature, config.repeat_noise)


def guided(denoise: Denoise[S], scale: float) -> Denoise[S]:
    """Classifier-free guidance. `denoise` and the state hold the unguided half of the batch first (text
    [negative; prompt], source twice); the result takes x of one half."""

    def guided_denoise(x: Tensor, sigma: float, state: S) -> tuple[Tensor, S]:
        velocity, state = denoise(torch.cat([x, x]), sigma, state)
        negative, positive = velocity.chunk(2)
        return negative + scale * (positive - negative), state

    return guided_denoise

"""Random numbers and smooth paths for procedural scenes: small, drawn on the CPU, the same for every device.

Paths are functions of the frame number with speeds per frame, so that long clips look like short ones that go on.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor


def fork(generator: Generator) -> Generator:
    """A CPU generator that goes on from `generator`, which may live on any device and advances by one draw."""
    seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)
    return Generator().manual_seed(int(seed))


def uniform(rng: Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=rng)


def log_uniform(rng: Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.exp(uniform(rng, math.log(low), math.log(high), *shape))


def chance(rng: Generator, probability: float, *shape: int) -> Tensor:
    """True with the given probability."""
    return torch.rand(shape, generator=rng) < probability


def integers(rng: Generator, high: int, *shape: int) -> Tensor:
    """Integers in [0, high)."""
    return torch.randint(high, shape, generator=rng)


def pick(rng: Generator, options: Sequence[str], count: int) -> tuple[str, ...]:
    """Some of the options, at random and with repetition."""
    return tuple(options[i] for i in integers(rng, len(options), count).tolist())


def waves(rng: Generator, frames: int, period: tuple[float, float], *shape: int) -> Tensor:
    """Sinusoids in [-1, 1] with a random phase and period (in frames) for each element -> [*shape, frames]."""
    t = torch.arange(frames)
    phase = uniform(rng, 0, 2 * math.pi, *shape, 1)
    return torch.sin(2 * math.pi * t / log_uniform(rng, *period, *shape, 1) + phase)


def eased(rng: Generator, frames: int, *shape: int) -> Tensor:
    """One move between rests at -1 and 1, beginning before or within the clip -> [*shape, frames]."""
    start = uniform(rng, -12, 0.7 * frames, *shape, 1)
    x = ((torch.arange(frames) - start) / uniform(rng, 12, 40, *shape, 1)).clamp(0, 1)
    side = 2.0 * chance(rng, 0.5, *shape, 1) - 1
    return side * (2 * x * x * (3 - 2 * x) - 1)


def speed_limited(path: Tensor, reach: Tensor, speed: Tensor) -> Tensor:
    """Scale a path [..., frames] in [-1, 1] to `reach` [...], or less where it would exceed `speed` [...] a frame."""
    fastest = path.diff(dim=-1).abs().amax(-1) if path.shape[-1] > 1 else torch.zeros(path.shape[:-1])
    return path * torch.minimum(reach, speed / fastest.clamp_min(1e-6))[..., None]

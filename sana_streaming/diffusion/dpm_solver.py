"""DPM-Solver++ (2M), for short clips in one piece: second order, many steps (arXiv 2211.01095, for flow matching)."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sana_streaming.diffusion.flow import Denoise, S


def dpm_sigmas(steps: int, shift: float) -> tuple[float, ...]:
    """Noise levels of the published bidirectional sampler, from just under 1 down to the final 0."""
    start, end = 1.0, 0.001
    levels = []
    for i in range(steps + 1):
        clean = 1 - (start + (end - start) * i / steps)  # share of data, 0 ... 0.999
        levels.append(shift * clean / (1 + (shift - 1) * clean))
    return tuple(reversed(levels))


def sample_clip(denoise: Denoise[S], noise: Tensor, sigmas: Sequence[float], state: S) -> Tensor:
    """noise [B, C, T, h, w], sigmas falling to 0 -> latents. The state is read, never advanced."""
    x = noise
    previous: tuple[Tensor, float] | None = None  # the last estimate of the data, and its log signal-to-noise ratio
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        velocity, _ = denoise(x, sigma, state)
        data = x - sigma * velocity
        if sigma_next == 0:
            return data
        log_ratio, log_ratio_next = _log_ratio(sigma), _log_ratio(sigma_next)
        step = log_ratio_next - log_ratio
        estimate = data
        if previous is not None and i < len(sigmas) - 2:
            estimate = data + step / (2 * (log_ratio - previous[1])) * (data - previous[0])
        x = sigma_next / sigma * x - (1 - sigma_next) * math.expm1(-step) * estimate
        previous = data, log_ratio
    return x


def _log_ratio(sigma: float) -> float:
    return math.log(1 - sigma) - math.log(sigma)

"""Denoise one chunk, then remember it (paper section 3.2)."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sana_streaming.diffusion.flow import Denoise, S


def sample_chunk(denoise: Denoise[S], noise: Tensor, sigmas: Sequence[float], state: S) -> tuple[Tensor, S]:
    """Every step reads the same past; only the last, clean pass is remembered.

    noise [B, C, T, h, w], sigmas from 1 down to 0 -> the edited latents and the state after the chunk.
    """
    x = noise
    for sigma, sigma_next in pairwise(sigmas):
        velocity, _ = denoise(x, sigma, state)
        x = x + (sigma_next - sigma) * velocity
    _, state = denoise(x, 0.0, state)
    return x, state

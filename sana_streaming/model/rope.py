"""Rotary positions over time, height and width: interleaved channel pairs, a frequency ladder for each axis."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Rotary:
    """The rotation of every token of a chunk: cos and sin, float32 [B, 1, L, K // 2]. L may be 1: all tokens alike."""

    cos: Tensor
    sin: Tensor


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """Channels of a head given to time, height and width."""
    space = 2 * (head_dim // 6)
    return head_dim - 2 * space, space, space


def rotary(position: Tensor, grid: tuple[int, int, int], head_dim: int, theta: float) -> Rotary:
    """position int64 [B], latent frames before this chunk; grid (T, H, W) of the chunk."""
    frames, height, width = grid
    device = position.device
    time = position[:, None] + torch.arange(frames, device=device)  # [B, T]
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    t, h, w = (_angles(p, dim, theta) for p, dim in zip((time, rows, columns), axis_dims(head_dim), strict=True))
    shape = (position.shape[0], frames, height, width)
    angles = torch.cat(
        [
            t[:, :, None, None].expand(*shape, -1),
            h[None, None, :, None].expand(*shape, -1),
            w[None, None, None, :].expand(*shape, -1),
        ],
        dim=-1,
    ).flatten(1, 3)[:, None]
    return Rotary(angles.cos().float(), angles.sin().float())


def time_shift(frames: Tensor, head_dim: int, theta: float) -> Rotary:
    """The rotation that moves rotated keys of any position by `frames`, int64 [B], along time.

    float64: a long-lived memory is turned again and again by the same angle, and must not grow or shrink by it.
    """
    time, height, width = axis_dims(head_dim)
    angles = F.pad(_angles(frames, time, theta), (0, (height + width) // 2))[:, None, None]
    return Rotary(angles.cos(), angles.sin())


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """x [B, N, L, K] -> the same, every channel pair turned by its token's angle. Computed in the rotation's dtype."""
    pairs = x.to(rotary.cos.dtype).contiguous().unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # which fuses what is real, but nothing complex
        even, odd = pairs.unbind(-1)
        turned = torch.stack([even * rotary.cos - odd * rotary.sin, even * rotary.sin + odd * rotary.cos], dim=-1)
    else:  # one pass instead of seven
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(rotary.cos, rotary.sin))
    return turned.flatten(-2).to(x.dtype)


def _angles(position: Tensor, dim: int, theta: float) -> Tensor:
    """Positions of any shape -> [..., dim // 2], float64: positions grow for as long as a stream runs."""
    exponent = torch.arange(0, dim, 2, dtype=torch.float64, device=position.device) / dim
    return position.double()[..., None] * theta**-exponent

"""How far two videos are apart: one definition for training and for judging."""

import torch
from torch import Tensor

FINEST = 1e-2  # mean squared error below which 8-bit videos count as equal: 68 dB


def psnr(video: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """Decibels for each clip [B] of two videos [B, ..., 3] with values from 0 to 255; at most 68.

    weight [B, ...]: how much each pixel counts. NaN for a clip in which no pixel does.
    """
    error = (video.float() - truth.float()).square()
    if weight is None:
        mse = error.flatten(1).mean(dim=1)
    else:
        weighted = error.mean(dim=-1) * weight
        mse = weighted.flatten(1).sum(dim=1) / weight.flatten(1).sum(dim=1, dtype=torch.float32)
    return 10 * torch.log10(255**2 / mse.clamp_min(FINEST))

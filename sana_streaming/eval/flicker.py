"""Whether the picture jumps where one chunk ends and the next begins.

The error of motion between two frames is mean |(V[t+1] - V[t]) - (U[t+1] - U[t])| in levels of 255, V the edited video
and U the true edit. Flicker is that error across chunk boundaries as a multiple of that within chunks; 1: no boundary
is seen. The two are kept apart until they have been averaged over clips: of a clip in which hardly anything moves the
ratio alone would say nothing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sana_streaming.eval.cases import Case


def flicker(video: Tensor, case: Case, edges: Sequence[int]) -> dict[str, Tensor]:
    """Median errors of motion [n], from the last frame of a chunk to the next chunk and from frame to frame within
    chunks; edges: first frames of the chunks, and the end."""
    error = motion_errors(video, case)
    across = [edge - 1 for edge in edges[1:-1]]
    within = [t for t in range(error.shape[1]) if t not in across]
    return {"jump_across": _median(error[:, across]), "jump_within": _median(error[:, within])}


def motion_errors(video: Tensor, case: Case) -> Tensor:
    """-> [n, F - 1]"""
    return (video.float() - case.truth.float()).diff(dim=1).abs().mean(dim=(2, 3, 4))


def _median(values: Tensor) -> Tensor:
    """[n, k] -> [n], the mean of the middle two of an even number; NaN of none"""
    return values.quantile(0.5, dim=1) if values.shape[1] else values.new_full((len(values),), torch.nan)

"""Where the source shows another scene from one frame to the next, told while it streams.

Frames are compared as small thumbnails, by which colours there are and by the pattern that they make: a pan keeps the
colours, a change of exposure the pattern, noise is averaged away, and a cut changes both. A new scene begins where
every one of a few frames before differs from every one of a few after, so that a flash, which goes as it came, is none;
and by much more than neighbours on either side differ, which leaves out fades and fast motion.

In Big Buck Bunny (14,315 frames, credits included) this finds 122 cuts, and nothing that is none; four were seen that
it misses, all amid fast motion.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 4  # frames that are looked at before and after a cut: flashes are shorter
GRID = (24, 32)  # cells of a thumbnail; three times as many pixels along the short side are read of a frame
SHADES = 4  # of each colour channel, in histograms
DIFFERENT = 0.18  # the least distance of two scenes, from 0 to 1
SUDDEN = 2.0  # how many times the steps beside it a cut is
NOISE = 0.02  # added to these steps, which may be none
FLAT = 0.05  # contrast, of 1, below which patterns count little


@dataclass(frozen=True)
class Watch:
    """What is remembered of a source that is watched for cuts. On the CPU, some kilobytes."""

    frames: int = 0  # that were seen
    last: Tensor | None = None  # [2 * SIDE - 1, 3, h, w] or fewer: thumbnails of the latest of them


@dataclass(frozen=True)
class Cut:
    """A new scene of the source, and what was begun with it."""

    frame: int  # its first frame, from 0
    chunk: int  # the first that lies in it as a whole and with whose frames it is certain: there it is acted on


def find_cuts(frames: Tensor, watch: Watch) -> tuple[tuple[int, ...], Watch]:
    """RGB uint8 [F, H, W, 3] and what was seen before -> the first frames of new scenes, numbered from the beginning of
    the source, and what is seen now. A cut is certain once SIDE frames of the new scene are there."""
    new = thumbnails(frames)
    seen = new if watch.last is None else torch.cat([watch.last, new])
    total = watch.frames + len(frames)
    after = Watch(total, seen[1 - 2 * SIDE :].clone())
    if len(seen) < 2 * SIDE:
        return (), after
    found = is_cut(seen.unfold(0, 2 * SIDE, 1).movedim(-1, 1)).nonzero().flatten().tolist()
    return tuple(total - len(seen) + i + SIDE for i in found), after


def thumbnails(frames: Tensor) -> Tensor:
    """RGB uint8 [F, H, W, 3] -> [F, 3, h, w] in [0, 1], on the CPU"""
    step = max(1, min(frames.shape[1:3]) // (3 * GRID[0]))
    some = frames[:, step // 2 :: step, step // 2 :: step].cpu()
    return F.adaptive_avg_pool2d(some.permute(0, 3, 1, 2).float() / 255, GRID)


def is_cut(windows: Tensor) -> Tensor:
    """Thumbnails of successive frames [W, 2 * SIDE, 3, h, w] -> whether a scene begins in the middle, bool [W]"""
    apart = distances(windows)
    steps = apart.diagonal(1, 1, 2)  # from each frame to the next
    beside = torch.cat([steps[:, : SIDE - 1], steps[:, SIDE:]], dim=1).amax(dim=1)
    between = apart[:, :SIDE, SIDE:].amin(dim=(1, 2))
    return (between > DIFFERENT) & (between > SUDDEN * (beside + NOISE))


def distances(windows: Tensor) -> Tensor:
    """Thumbnails [W, N, 3, h, w] -> how far any two of a window are apart, [W, N, N] in [0, 1]"""
    cells = windows.flatten(3)
    nearness = 1 - (cells[..., None] * (SHADES - 1) - torch.arange(SHADES)).abs()  # a cell lies between two shades
    red, green, blue = nearness.clamp(min=0).unbind(2)
    colours = torch.einsum("wncr,wncg,wncb->wnrgb", red, green, blue).flatten(2) / cells.shape[3]
    by_colour = torch.cdist(colours, colours, p=1) / 2
    pattern = (windows - windows.mean(dim=(3, 4), keepdim=True)).flatten(2)
    covariance = pattern @ pattern.mT / pattern.shape[2]
    variance = covariance.diagonal(0, 1, 2)
    alike = (2 * covariance + FLAT**2) / (variance[:, :, None] + variance[:, None] + FLAT**2)
    return (by_colour * (1 - alike).clamp(0, 1)).sqrt()

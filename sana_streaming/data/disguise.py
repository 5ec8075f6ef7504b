"""What makes a foreground harder to tell from what is behind it, to train on: it rests on something that stays with it,
is partly as dark as what is around, or the whole picture is.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sana_streaming.data.bank import Bank, boxes
from sana_streaming.data.motion import chance, uniform
from sana_streaming.data.scenes import grade, photo_clips

SEATED = 0.3  # how often a cut-out or the subject of a photograph rests on something
TALL, ASIDE = (0.12, 0.45), 0.3  # of it: height and how far its ends are from the subject's, in shares of the subject
LIKENED, NEARER = 0.4, 0.85  # how often a foreground is nearer to the colours around it, and by how much at most
FADING = 0.6  # how often that is so of some of its parts alone
PARTS = 4, 5  # rows and columns of the numbers between which such parts are drawn
AROUND = 32  # pixels within which colours are around
DIMMED, DIMMER = 0.3, 0.8  # how often a whole photo is darker or lighter, and the logarithm of its gamma at most


def dimmed(pictures: Tensor, rng: Generator) -> Tensor:
    """Pictures [m, ...] in [0, 1], some of them darker or lighter."""
    m = len(pictures)
    gamma = torch.exp(uniform(rng, -DIMMER, DIMMER, m) * chance(rng, DIMMED, m))
    return pictures.pow(_each(gamma, pictures))


def likened(stamp: Tensor, behind: Tensor, rng: Generator) -> Tensor:
    """Foregrounds [n, F, 4, H, W], colours multiplied by alpha, of which some are nearer to the colours of the clips
    [n, F, 3, H, W] around them, wholly or in soft parts of the picture."""
    n, _, _, height, width = stamp.shape
    nearer = uniform(rng, 0, NEARER, n) * chance(rng, LIKENED, n)
    begin = uniform(rng, 0.3, 0.7, n) - 4.0 * ~chance(rng, FADING, n)  # so far below all numbers, there is no end
    numbers = uniform(rng, 0, 1, n, 1, *PARTS).to(stamp.device, non_blocking=True)
    numbers = F.interpolate(numbers, size=(height, width), mode="bicubic")
    share = _each(nearer, numbers) * ((numbers - _each(begin, numbers)) / 0.2).clamp(0, 1)  # [n, 1, H, W]

    alpha = stamp[:, :, 3:]
    clear = torch.cat([behind * (1 - alpha), 1 - alpha], 2).flatten(0, 1)
    near = F.avg_pool2d(clear, AROUND, ceil_mode=True)
    wide = clear.mean((2, 3), keepdim=True)  # where nothing near is clear
    near = near + 0.02 * wide
    near = near[:, :3] / near[:, 3:].clamp_min(1e-4)
    around = F.interpolate(near, size=(height, width), mode="bilinear").unflatten(0, stamp.shape[:2])
    return torch.cat([torch.lerp(stamp[:, :, :3], around * alpha, share[:, None]), alpha], 2)


def rests(bank: Bank, masks: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    """What some of the subjects that masks [m, 1, h, w] show rest on, with a rounded and uneven upper edge: pictures of
    nobody and of nothing [m, 3, h, w] in [0, 1], and where they are seen behind the subjects [m, 1, h, w]."""
    m, _, h, w = masks.shape
    device = masks.device
    left, top, right, bottom = boxes(masks[:, 0] > 0.5).unbind(1)
    tall, wide = bottom - top, right - left
    ends = uniform(rng, -ASIDE, ASIDE, 2, m).to(device, non_blocking=True)
    left, right = left - ends[0] * wide, right + ends[1] * wide
    drawn = (uniform(rng, *TALL, m), uniform(rng, 1.5, 6, m), uniform(rng, 2, 9, m), uniform(rng, 0, 6.3, m))
    share, bend, often, phase = (_each(x, masks) for x in drawn)
    left, right, tall, bottom = (x[:, None, None, None] for x in (left, right, tall, bottom))

    x, y = torch.arange(w, device=device), torch.arange(h, device=device)[:, None]
    across = (2 * x - left - right) / (right - left).clamp_min(1)  # -1 and 1 at its ends
    uneven = 0.08 * torch.sin(often * across + phase) + 0.05 * torch.sin(2.7 * often * across + 2 * phase)
    edge = bottom - share * tall * (1 + uneven - across.abs() ** bend)
    seated = _each(chance(rng, SEATED, m).float(), masks)
    seen = seated * ((y - edge) / 1.5).clamp(0, 1) * ((bottom - y) / 1.5).clamp(0, 1) * (1 - masks)

    pictures = photo_clips(bank.empty, 1, h, w, torch.ones(m, dtype=torch.bool), rng)
    grade(pictures, rng)
    return pictures[:, 0], seen


def _each(numbers: Tensor, like: Tensor) -> Tensor:
    """Numbers [m] of the CPU, one for each of a batch like this one."""
    return numbers.to(like.device, non_blocking=True).view(-1, *[1] * (like.ndim - 1))

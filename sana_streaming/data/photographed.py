"""Subjects of photographs where they were photographed, under a moving camera: what changes or stays is not pasted.

Of some photographs the mask of their subject is known, and of some of those what is behind it: see `data.subjects`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from sana_streaming.data.bank import Bank
from sana_streaming.data.layers import Layer
from sana_streaming.data.motion import chance, integers
from sana_streaming.data.scenes import camera_moves, grade

RESTING = 0.4  # how often the camera rests


@dataclass(frozen=True)
class Masked:
    """Where the subjects of photos are."""

    masks: Tensor  # [n, 1, h, w] in [0, 1]
    sizes: Tensor  # int64 [n, 2], height and width of the photos, which are padded, on the CPU
    boxes: Tensor  # int64 [n, 4], see `Bank.photo_boxes`


def named_photos(
    bank: Bank, among: Sequence[int], share: float, old: list[str], rng: Generator
) -> tuple[Tensor, Tensor]:
    """A share of the clips, by their numbers, and a masked photo `among` those with these numbers for each of them;
    what is on it takes the place of the clip's `old` name."""
    named = torch.tensor([k for k in among if bank.photo_names[k]], dtype=torch.int64)
    if not share or not len(named):
        return named[:0], named[:0]
    own = chance(rng, share, len(old)).nonzero()[:, 0]
    photos = named[integers(rng, len(named), len(own))]
    for i, k in zip(own.tolist(), photos.tolist(), strict=True):
        old[i] = bank.photo_names[k]
    return own, photos


def before_plates(bank: Bank, base: Tensor, clips: Tensor, photos: Tensor, rng: Generator) -> Layer:
    """Put photos without their subjects into the clips with these numbers -> the subjects."""
    pictures, masked = graded(bank, photos, rng, plates=True)
    return photographed(base, clips, pictures, masked, rng)


def seen_middles(alpha: Tensor) -> Tensor:
    """The mean place of what alpha [m, F, H, W] covers, in pixels -> [m, 2, F] on the CPU; the middle of the picture
    where it covers nothing."""
    height, width = alpha.shape[-2:]
    x, y = (torch.arange(side, device=alpha.device, dtype=alpha.dtype) for side in (width, height))
    whole = alpha.sum((2, 3))
    found = torch.stack([alpha.sum(2) @ x, alpha.sum(3) @ y], 1) / whole.clamp_min(1)[:, None]
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2])[:, None]
    return torch.where(whole[:, None].cpu() > 1, found.cpu(), centre)


def photographed(base: Tensor, clips: Tensor, pictures: Tensor, masked: Masked, rng: Generator) -> Layer:
    """Put the last of pictures [m, k, 3, h, w] into the clips with these numbers [m], under a moving camera that looks
    at their subjects -> the first of them, where the masks say so."""
    frames, _, height, width = base.shape[1:]
    together, still = torch.cat([pictures.flatten(1, 2), masked.masks], 1), chance(rng, RESTING, len(clips))
    moved = camera_moves(together, masked.sizes, frames, height, width, still, rng, masked.boxes).clamp_(0, 1)
    front, behind, alpha = moved[:, :, :3], moved[:, :, -4:-1], moved[:, :, -1:]
    where = clips.to(base.device, non_blocking=True)
    base[where] = behind
    return Layer(where, torch.cat([front * alpha, alpha], 2), None)


def graded(bank: Bank, chosen: Tensor, rng: Generator, plates: bool = False) -> tuple[Tensor, Masked]:
    """Masked photos by their numbers (CPU), graded -> [n, 1, 3, h, w], or with their plates [n, 2, 3, h, w], in [0, 1];
    and where their subjects are."""
    index = torch.tensor(bank.masked_photos)[chosen]
    pictures = bank.photos[index.to(bank.device, non_blocking=True)][:, None]
    if plates:
        number = torch.tensor([bank.plated_photos.index(k) for k in chosen.tolist()], dtype=torch.int64)
        beside = bank.photo_plates[number.to(bank.device, non_blocking=True)]
        pictures = torch.cat([pictures, beside[:, None]], 1)
    pictures = pictures.float().div_(255)
    grade(pictures, rng)
    masks = bank.photo_masks[chosen.to(bank.device, non_blocking=True)].float().div_(255)
    return pictures, Masked(masks, bank.photo_sizes[index], bank.photo_boxes[chosen])

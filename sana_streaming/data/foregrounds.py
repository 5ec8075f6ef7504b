"""Scenes with somebody or something large in front, and its alpha: what backgrounds change behind.

Foregrounds are people in front of a resting camera, the subjects of photographs and of short clips where they were
taken, people and animals cut out of photos, and large cut-outs of all kinds. What is behind is of nobody and of
nothing: what is to stay and what is to go must differ by more than that one of them was pasted.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sana_streaming.data.bank import Bank, MaskedClip
from sana_streaming.data.disguise import dimmed, likened, rests
from sana_streaming.data.layers import Layer, Path, draw
from sana_streaming.data.motion import chance, integers, uniform, waves
from sana_streaming.data.photographed import graded, photographed
from sana_streaming.data.scenes import backdrops, grade, to_and_fro, varied

FOREGROUNDS = {"talk": 0.3, "own": 0.35, "people": 0.15, "figures": 0.15, "sprites": 0.25, "acts": 0.25}
BEHIND = {"photo": 0.72, "still": 0.16, "video": 0.12}
LARGE = 2.5  # so much more often in training it is a cut-out of any kind, which only its size makes the foreground
OWN = 3.0  # so much more often in training it is the subject of a photograph, which nothing but sense tells apart
STANDING, LIFT = 0.3, (0.1, 0.35)  # how often in training it ends in sight, and how much higher then, of the height
COMPANY = 0.15  # how often in training there is another one
FIGURES = frozenset({"people-body", "people"})  # categories of sprites
OWN_ROOM = 0.5  # how often a talking person stays in the room that the clip was taken in


def has_foregrounds(bank: Bank) -> bool:
    filmed = bool(bank.talks) or bool(bank.acts)
    return filmed or bool(bank.masked_photos) or len(bank.people) > 0 or len(bank.sprites) > 0


def foreground_scenes(
    bank: Bank, clips: int, frames: int, height: int, width: int, rng: Generator, vary: bool
) -> tuple[Tensor, Tensor]:
    """-> clips [n, F, 3, H, W] and their foregrounds [n, F, 4, H, W], colours multiplied by alpha.

    vary: for training, where cut-outs are stretched, of more kinds and in more places, sometimes two of them, and all
    stand out less: see `data.disguise`.
    """
    if not has_foregrounds(bank):
        raise ValueError("expected people or sprites in the pack, it has none")
    behind, _ = backdrops(bank.empty, clips, frames, height, width, rng, BEHIND)
    stamp = torch.empty(clips, frames, 4, height, width, device=bank.device)
    figures = [i for i, category in enumerate(bank.sprite_categories) if category in FIGURES]
    stills: dict[str, tuple[Tensor, Sequence[int]]] = {
        "people": (bank.people, range(len(bank.people))),
        "figures": (bank.sprites, figures),
        "sprites": (bank.sprites, range(len(bank.sprites))),
    }
    cut = [len(chosen) > 0 for _, chosen in stills.values()]
    there = [bool(bank.talks), bool(bank.masked_photos), *cut, bool(bank.acts)]
    more = {"sprites": LARGE, "own": OWN} if vary else {}
    shares = {kind: share * more.get(kind, 1.0) for kind, share in FOREGROUNDS.items()}
    weights = torch.tensor(list(shares.values())) * torch.tensor(there)
    kind = torch.multinomial(weights, clips, replacement=True, generator=rng)
    for i in (kind == 0).nonzero()[:, 0].tolist():
        picture, stamp[i] = _filmed(bank.talks, frames, height, width, rng)
        if chance(rng, OWN_ROOM):
            behind[i] = picture
    for i in (kind == len(there) - 1).nonzero()[:, 0].tolist():
        behind[i], stamp[i] = _filmed(bank.acts, frames, height, width, rng)
    members = (kind == 1).nonzero()[:, 0]
    if len(members):
        pictures, masked = graded(bank, integers(rng, len(bank.masked_photos), len(members)), rng)
        if vary:
            ground, seen = rests(bank, masked.masks, rng)
            pictures = dimmed(torch.lerp(pictures, ground[:, None], seen[:, None]), rng)
            masked = replace(masked, masks=masked.masks + seen)
        layer = photographed(behind, members, pictures, masked, rng)
        stamp[layer.clips] = layer.stamp
    for number, (pictures, chosen) in enumerate(stills.values(), 2):
        members = (kind == number).nonzero()[:, 0]
        if len(members):
            layer = _cutouts(bank, pictures, chosen, members, frames, height, width, rng, vary)
            stamp[layer.clips] = layer.stamp
    if vary and len(bank.sprites):
        members = chance(rng, COMPANY, clips).nonzero()[:, 0]
        if len(members):
            layer = _cutouts(bank, *stills["sprites"], members, frames, height, width, rng, vary)
            front = stamp[layer.clips]
            stamp[layer.clips] = front + (1 - front[:, :, 3:]) * layer.stamp
    if vary:
        stamp = likened(stamp, behind, rng)
    return over(stamp, behind), stamp


def over(stamp: Tensor, behind: Tensor) -> Tensor:
    """A foreground [n, F, 4, H, W], colours multiplied by alpha, over clips [n, F, 3, H, W]."""
    return torch.addcmul(stamp[:, :, :3], behind, 1 - stamp[:, :, 3:]).clamp_(0, 1)


def _cutouts(
    bank: Bank, pictures: Tensor, chosen: Sequence[int], members: Tensor, frames: int, height: int, width: int,
    rng: Generator, vary: bool,
) -> Layer:  # fmt: skip
    """A large one of the `chosen` pictures for each of the clips with these numbers (CPU)."""
    index = torch.tensor(chosen)[integers(rng, len(chosen), len(members))]
    reach = (bank.people_spans if pictures is bank.people else bank.sprite_spans)[index]
    cutouts = pictures[index.to(bank.device, non_blocking=True)].float().div_(255)
    if vary:
        cutouts, maps = varied(cutouts, rng)
        reach = 0.5 + (reach - 0.5) * maps[:, 1, 1:]
        cutouts = _seated(bank, cutouts, rng)
    lift = torch.zeros(len(members))
    if vary and pictures is not bank.people:  # photographs may have cut those off below
        lift = uniform(rng, *LIFT, len(members)) * chance(rng, STANDING, len(members))
    path = _rising(reach, lift, frames, height, width, rng)
    return draw(cutouts, path, height, width, members, shadows=False)


def _seated(bank: Bank, cutouts: Tensor, rng: Generator) -> Tensor:
    """Cut-outs [m, 4, S, S], some of them with what they rest on."""
    ground, seen = rests(bank, cutouts[:, 3:], rng)
    alpha = cutouts[:, 3:] + seen
    return torch.cat([torch.lerp(cutouts[:, :3], ground, seen / alpha.clamp_min(1 / 255)), alpha], 1)


def _rising(span: Tensor, lift: Tensor, frames: int, height: int, width: int, rng: Generator) -> Path:
    """Large cut-outs that sway slowly, their lower ends below the lower edge, or higher by a share of the height, lift
    [m]; span [m, 2]: see `bank.spans`."""
    m = len(span)
    top, bottom = span.unbind(-1)
    size = uniform(rng, 0.55, 1.0, m) * height / (bottom - top)
    size = size.clamp_max(1.1 * width)[:, None] * (1 + 0.03 * waves(rng, frames, (40, 160), m))
    angle = uniform(rng, 0, 0.06, m, 1) * waves(rng, frames, (40, 160), m)
    sway = torch.tensor([0.04 * width, 0.015 * height])[:, None] * waves(rng, frames, (40, 160), m, 2)
    x = (0.5 + uniform(rng, -0.2, 0.2, m, 1)) * width
    sunk = (0.06 + uniform(rng, 0, 0.06, m, 1)) * height
    y = (1 - lift[:, None]) * height + sunk - (bottom[:, None] - 0.5) * size
    return Path(size, angle, torch.stack([x.expand(m, frames), y], 1) + sway, torch.zeros(m, 2, frames))


def _filmed(among: Sequence[MaskedClip], frames: int, height: int, width: int, rng: Generator) -> tuple[Tensor, Tensor]:
    """A part of one of the clips that reaches to its lower edge -> [F, 3, H, W] and its subject, [F, 4, H, W]."""
    clip = among[int(integers(rng, len(among)))]
    ahead = len(clip.frames) - frames + 1
    start = int(integers(rng, ahead if ahead > 0 else len(clip.frames)))
    h, w = clip.frames.shape[-2:]
    scale = min(h / height, w / width) * float(uniform(rng, 0.7, 1.0))
    crop_h, crop_w = height * scale / h, width * scale / w  # shares of the clip's sides
    left = (1 - crop_w) * float(uniform(rng, 0.25, 0.75))
    flip = bool(chance(rng, 0.5))

    def crop(video: Tensor) -> Tensor:
        side_h, side_w = video.shape[-2:]
        video = to_and_fro(video, start + frames)[start : start + frames]
        x, y = round(left * side_w), round((1 - crop_h) * side_h)
        video = video[:, :, y:, x : x + round(crop_w * side_w)].float().div_(255)
        video = F.interpolate(video, size=(height, width), mode="bilinear", antialias=True)
        return video.flip(-1) if flip else video

    picture, alpha = crop(clip.frames), crop(clip.masks)
    grade(picture[None], rng)
    return picture, torch.cat([picture * alpha, alpha], 1)

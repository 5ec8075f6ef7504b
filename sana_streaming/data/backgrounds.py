"""Edits of what is behind a person or another large foreground: another place, or a blur.

A place is always the same picture, cropped around its middle and standing still.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sana_streaming.data.bank import Bank
from sana_streaming.data.filters import blur
from sana_streaming.data.foregrounds import foreground_scenes, over
from sana_streaming.data.motion import chance, integers
from sana_streaming.data.objects import fill
from sana_streaming.data.pairs import Edit, Pairs
from sana_streaming.data.phrasings import paraphrases
from sana_streaming.data.vocabulary import PLACES

BLUR = 6.0  # sigma in pixels at a short side of 256
BY_NAME = 0.1  # how often in training a place is asked for by its name alone
AMBIGUOUS = {"sunset", "black"}  # which a look or a colour has, too

BACKGROUND = (
    "replace the background with {noun}",
    "replace the background by {noun}",
    "change the background to {noun}",
    "put me {where}",
    "show {noun} behind me",
    "make the background {noun}",
    "set the background to {noun}",
    "use {noun} as the background",
    "{noun} as the background",
    "swap the background for {noun}",
    "put {noun} in the background",
    "make it look like I am {where}",
    "I want to be {where}",
    "place me {where}",
    "background: {name}",
    "{name} background",
    *paraphrases()["background"],
)
BACKGROUND_HELD_OUT = (
    "can you put me {where}?",
    "let {noun} be the background",
    "I would like {noun} behind me",
    "exchange the background for {noun}",
)
BLUR_BACKGROUND = (
    "blur the background",
    "make the background blurry",
    "portrait mode",
    "blur everything behind me",
    "keep me sharp and blur the rest",
    "put the background out of focus",
    "defocus the background",
    "background blur",
    "soften the background",
    "blur my background",
    "hide my room with a blur",
    "make everything behind me blurry",
    "apply a background blur",
    *paraphrases()["blur_background"],
)
BLUR_BACKGROUND_HELD_OUT = (
    "can you blur the background?",
    "blur what is behind me",
    "I want a blurred background",
    "the background should be out of focus",
)


def background(bank: Bank, clips: int, frames: int, height: int, width: int, rng: Generator, held_out: bool) -> Pairs:
    source, stamp = foreground_scenes(bank, clips, frames, height, width, rng, not held_out)
    chosen = integers(rng, len(bank.places), clips)
    names = [bank.places[i] for i in chosen.tolist()]
    pictures = bank.place_pictures[chosen.to(bank.device, non_blocking=True)].float().div_(255)
    target = over(stamp, covering(pictures, height, width)[:, None])
    places = [PLACES[name] for name in names]
    phrases = tuple(
        name
        if not held_out and name not in AMBIGUOUS and chance(rng, BY_NAME)
        else fill(BACKGROUND_HELD_OUT if held_out else BACKGROUND, rng, name=name, noun=place.noun, where=place.where)
        for name, place in zip(names, places, strict=True)
    )
    reverses = ("show the real background again",) * clips
    return Pairs(source, target, (1 - stamp[:, :, 3:]).clamp_(0, 1), phrases, reverses, tuple(names))


def blur_background(
    bank: Bank, clips: int, frames: int, height: int, width: int, rng: Generator, held_out: bool
) -> Pairs:
    source, stamp = foreground_scenes(bank, clips, frames, height, width, rng, not held_out)
    target = over(stamp, blurred_behind(source, stamp[:, :, 3:]))
    templates = BLUR_BACKGROUND_HELD_OUT if held_out else BLUR_BACKGROUND
    phrases = tuple(fill(templates, rng) for _ in range(clips))
    reverses = ("make the background sharp again",) * clips
    return Pairs(source, target, (1 - stamp[:, :, 3:]).clamp_(0, 1), phrases, reverses, ("",) * clips)


def blurred_behind(clips: Tensor, alpha: Tensor) -> Tensor:
    """Clips [n, F, 3, H, W] blurred, where what alpha covers lends no colour to its surroundings."""
    clear = 1 - alpha
    mixed = blur(torch.cat([clips * clear, clear], 2).flatten(0, 1), BLUR).unflatten(0, clips.shape[:2])
    return mixed[:, :, :3] / mixed[:, :, 3:].clamp_min(1e-3)


def covering(pictures: Tensor, height: int, width: int) -> Tensor:
    """The middle of pictures [n, 3, h, w], as large as the frame."""
    h, w = pictures.shape[-2:]
    scale = max(height / h, width / w)
    size = [max(height, round(h * scale)), max(width, round(w * scale))]
    pictures = F.interpolate(pictures, size=size, mode="bilinear", antialias=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return pictures[:, :, top : top + height, left : left + width].clamp(0, 1)


BACKGROUNDS: dict[str, Edit] = {
    "background": Edit(
        "background",
        "background",
        background,
        "put me on a beach",
        10.0,
        phrasings=BACKGROUND,
        held_out=BACKGROUND_HELD_OUT,
        choices=tuple(PLACES),
    ),
    "blur_background": Edit(
        "blur_background",
        "background",
        blur_background,
        "blur the background",
        2.0,
        phrasings=BLUR_BACKGROUND,
        held_out=BLUR_BACKGROUND_HELD_OUT,
    ),
}

"""Two edits in one instruction, one done after the other: an object or a background and a look, or two looks.

The result does not depend on which of the two is named first, except where the instruction says "then": such orders
name them in the order in which they are done.
"""

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from sana_streaming.data.backgrounds import BACKGROUNDS
from sana_streaming.data.bank import Bank
from sana_streaming.data.motion import chance, integers, pick
from sana_streaming.data.objects import OBJECTS
from sana_streaming.data.pairs import Edit, Pairs
from sana_streaming.data.phrasings import order
from sana_streaming.data.whole import WHOLE

LONGEST = 15  # words of an instruction; the text encoder's room is counted in pieces of words

ANY_ORDER = ("{a} and {b}", "{a} and also {b}", "{a}; also {b}", "{a}, and {b}", "please {a} and {b}", "{a} and {b}.")
IN_ORDER = ("{a}, then {b}", "first {a}, then {b}", "{a} and then {b}")
HELD_OUT = ("{a}, and {b} too", "{a}. Also {b}")  # in any order

UNDO = (
    "undo both edits",
    "take both effects away again",
    "show the real scene as it was",
    "turn everything back into the real video",
    "bring back the video from before both edits",
)

OVER_A_SCENE = (
    "night", "sunset", "winter", "fog", "grayscale", "sepia", "vintage", "noir", "cyberpunk", "vaporwave", "dreamy",
    "vivid", "pencil", "charcoal", "watercolor", "oil_painting", "cartoon", "pixel_art", "negative", "underwater",
)  # fmt: skip
OVER_A_COLOUR = ("sunset", "fog", "vivid", "watercolor", "oil_painting", "cartoon", "pixel_art")  # which stays visible
OVER_A_BLUR = ("night", "sunset", "winter", "grayscale", "sepia", "vintage", "noir", "vivid", "dreamy", "vaporwave")
PAIRS: dict[str, tuple[tuple[str, str], ...]] = {  # kind of pair -> first and second edit
    "object_and_look": (
        *((name, look) for name in ("remove", "replace", "add") for look in OVER_A_SCENE),
        *(("recolour", look) for look in OVER_A_COLOUR),
    ),
    "background_and_look": (
        *(("background", look) for look in OVER_A_SCENE),
        *(("blur_background", look) for look in OVER_A_BLUR),
    ),
    "two_looks": (
        ("fog", "grayscale"), ("fog", "sepia"), ("fog", "night"), ("fog", "watercolor"), ("noir", "fog"),
        ("sunset", "fog"), ("sunset", "oil_painting"), ("sunset", "watercolor"), ("sunset", "vintage"),
        ("autumn", "oil_painting"), ("autumn", "watercolor"), ("autumn", "vintage"), ("autumn", "fog"),
        ("winter", "watercolor"), ("winter", "oil_painting"), ("winter", "fog"), ("winter", "night"),
        ("night", "oil_painting"), ("night", "pixel_art"), ("night", "cartoon"), ("underwater", "pixel_art"),
        ("underwater", "oil_painting"), ("grayscale", "pixel_art"), ("grayscale", "oil_painting"),
        ("grayscale", "dreamy"), ("vivid", "pixel_art"), ("pencil", "sepia"), ("charcoal", "sepia"),
        ("emboss", "sepia"), ("pencil", "negative"), ("negative", "grayscale"), ("cyberpunk", "fog"),
    ),
    "look_and_weather": (
        *((look, "snow") for look in ("night", "winter", "grayscale", "vintage", "noir", "fog", "sepia", "cyberpunk")),
        *((look, "rain") for look in ("night", "autumn", "grayscale", "vintage", "noir", "fog", "sunset", "cyberpunk")),
    ),
}  # fmt: skip
SINGLE = WHOLE | OBJECTS | BACKGROUNDS


@dataclass(frozen=True)
class Both:
    """Renders one kind of pair, another pair of edits at every call."""

    name: str

    def __call__(
        self, bank: Bank, clips: int, frames: int, height: int, width: int, rng: Generator, held_out: bool
    ) -> Pairs:
        options = PAIRS[self.name]
        first, second = options[int(integers(rng, len(options)))]
        return after(first, second, bank, clips, frames, height, width, rng, held_out)


def after(
    first: str,
    second: str,
    bank: Bank,
    clips: int,
    frames: int,
    height: int,
    width: int,
    rng: Generator,
    held_out: bool,
) -> Pairs:
    """Pairs of one edit and then another of the whole frame, the second in its plain form."""
    if first in WHOLE:
        one = _plain(first, bank, clips, frames, height, width, rng, held_out)
    else:
        one = SINGLE[first].render(bank, clips, frames, height, width, rng, held_out)
    apply, first_moved = WHOLE[second].apply, one.moved
    assert apply is not None

    def moved(right: float, down: float) -> Tensor:
        assert first_moved is not None
        return apply(first_moved(right, down), rng)

    phrases = tuple(_joined(phrase, orders(second), rng, held_out) for phrase in one.phrases)
    return replace(
        one,
        target=apply(one.target, rng),
        region=torch.ones_like(one.region),
        phrases=phrases,
        reverses=pick(rng, UNDO, clips),
        subjects=tuple(", ".join(filter(None, (subject, second))) for subject in one.subjects),
        moved=moved if first_moved is not None else None,
    )


def orders(name: str) -> tuple[str, ...]:
    """The short ones of an edit's phrasings that can be joined to another request, for training."""
    found = [order(phrase) for phrase in WHOLE[name].phrasings]
    return tuple(dict.fromkeys(phrase for phrase in found if phrase and 2 <= len(phrase.split()) <= 8))


def _plain(
    name: str, bank: Bank, clips: int, frames: int, height: int, width: int, rng: Generator, held_out: bool
) -> Pairs:
    """Pairs of a look without degrees, asked for by an order."""
    edit = WHOLE[name]
    assert edit.apply is not None
    some = edit.render(bank, clips, frames, height, width, rng, held_out)
    target = edit.apply(some.source, rng)
    return replace(some, target=target, phrases=pick(rng, orders(name), clips), subjects=(name,) * clips)


def _joined(first: str, seconds: tuple[str, ...], rng: Generator, held_out: bool) -> str:
    """One instruction out of two, not too long."""
    first = order(first) or first.rstrip(".!?")
    second = pick(rng, seconds, 1)[0]
    if len(first.split()) + len(second.split()) > LONGEST - 2:
        second = min(seconds, key=lambda phrase: len(phrase.split()))
    templates: tuple[str, ...]
    if order(first) is None:  # "the video without the dog" and an order make two sentences
        templates = HELD_OUT[1:] if held_out else ("{a}; also {b}",)
    else:
        ordered = not held_out and bool(chance(rng, 0.3))
        templates = HELD_OUT if held_out else IN_ORDER if ordered else ANY_ORDER
        if not ordered and chance(rng, 0.5):
            first, second = second, first
    template = pick(rng, templates, 1)[0]
    phrase = template.format(a=first, b=second)
    return phrase[0].upper() + phrase[1:] if chance(rng, 0.2) else phrase


def _both(name: str, kind: str, example: str, share: float) -> Edit:
    return Edit(name, kind, Both(name), example, share, phrasings=(*ANY_ORDER, *IN_ORDER), held_out=HELD_OUT)


BOTH: dict[str, Edit] = {
    edit.name: edit
    for edit in (
        _both("object_and_look", "both", "remove the dog and make it night", 1.3),
        _both("background_and_look", "both", "put me on a beach and turn it into a watercolor painting", 0.9),
        _both("two_looks", "both", "add fog to the scene and make it black and white", 0.9),
        # of the kind "weather", because what is true depends on the edited past
        _both("look_and_weather", "weather", "make it night and let it snow", 0.9),
    )
}

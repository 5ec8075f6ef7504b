"""Looks and weather: edits of the whole frame, each a filter, so that every source has one true result.

Some of them come in degrees: "slightly foggy" is halfway between the source and fog, "very foggy" is denser fog.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Generator, Tensor

from sana_streaming.data import looks, particles
from sana_streaming.data.bank import Bank
from sana_streaming.data.filters import mix, saturate
from sana_streaming.data.foregrounds import foreground_scenes, has_foregrounds
from sana_streaming.data.motion import chance, pick
from sana_streaming.data.pairs import Edit, Pairs
from sana_streaming.data.phrasings import degree_phrasings, paraphrases, reverse_phrasings, training_phrasings
from sana_streaming.data.scenes import render_sources
from sana_streaming.data.wordings import WORDINGS

DEGREES = ("slightly", "heavily")
PLAIN_SHARE = 0.7  # of the renders of an edit that comes in degrees
FOREGROUND = 0.15  # how often in training something stands large before the scene, as where backgrounds change
EASY, HARD = 0.7, 1.5  # how often looks are drawn that are soon learned, or last, against 1

Draw = Callable[[Tensor], Tensor]  # images [M, 3, H, W] in [0, 1] -> the same, may go beyond


class Apply(Protocol):
    def __call__(self, video: Tensor, generator: Generator, degree: str = "", first: int = 0) -> Tensor:
        """Clips [n, F, 3, H, W] in [0, 1] -> the same, edited. first: the number of their first frame in the stream."""
        ...


def look(name: str, draw: Draw, strong: bool = False, heavily: Draw | None = None, share: float = 1.0) -> Edit:
    """An edit that works on each frame by itself. Those with a heavy form come in degrees."""

    def apply(video: Tensor, generator: Generator, degree: str = "", first: int = 0) -> Tensor:
        images = video.flatten(0, 1)
        if degree == "":
            edited = draw(images)
        elif heavily is None or degree not in DEGREES:
            raise ValueError(
                f"degree of {name}: expected {'one of ' + str(DEGREES) if heavily else 'none'}, got {degree!r}"
            )
        else:
            edited = heavily(images) if degree == "heavily" else mix(images, draw(images), 0.5)
        return edited.clamp(0, 1).view_as(video)

    return _edit(name, "look", apply, share, strong, DEGREES if heavily else ())


def weather(name: str, draw: Callable[[Tensor, str, int], Tensor]) -> Edit:
    """An edit with particles that fall through the frames of a clip."""

    def apply(video: Tensor, generator: Generator, degree: str = "", first: int = 0) -> Tensor:
        return draw(video, degree, first).clamp(0, 1)

    return _edit(name, "weather", apply, 5.0, False, DEGREES)


def beyond(draw: Draw, amount: float = 1.3) -> Draw:
    """A look, and further away from the source by a part of the way."""
    return lambda images: mix(images, draw(images), amount)


def _edit(name: str, kind: str, apply: Apply, share: float, strong: bool, degrees: tuple[str, ...]) -> Edit:
    wording = WORDINGS[name]
    training, held_out = (*training_phrasings(wording), *paraphrases()[name]), wording.held_out
    phrasings = {("", False): training, ("", True): held_out}
    for degree in degrees:
        phrasings[degree, False], phrasings[degree, True] = degree_phrasings(wording, degree)
    reverses = reverse_phrasings(wording) or training

    def render(bank: Bank, clips: int, frames: int, height: int, width: int, rng: Generator, held_out: bool) -> Pairs:
        degree = "" if not degrees or chance(rng, PLAIN_SHARE) else pick(rng, degrees, 1)[0]
        source = render_sources(bank, clips, frames, height, width, rng)
        if not held_out and has_foregrounds(bank):
            members = chance(rng, FOREGROUND, clips).nonzero()[:, 0]
            if len(members):
                scenes, _ = foreground_scenes(bank, len(members), frames, height, width, rng, vary=True)
                source[members.to(source.device, non_blocking=True)] = scenes
        region = torch.full((clips, frames, 1, height, width), float(name != "unchanged"), device=source.device)
        return Pairs(
            source,
            apply(source, rng, degree),
            region,
            pick(rng, phrasings[degree, held_out], clips),
            pick(rng, reverses, clips),
            (degree,) * clips,
        )

    return Edit(name, kind, render, wording.example, share, strong, apply, training, held_out, degrees)


WHOLE: dict[str, Edit] = {
    edit.name: edit
    for edit in (
        look("unchanged", looks.unchanged, share=2.0),
        look("grayscale", looks.grayscale),
        look("sepia", looks.sepia, heavily=lambda x: saturate(looks.sepia(x), 1.9), share=EASY),
        look("negative", looks.negative, strong=True),
        look("pencil", looks.pencil, strong=True),
        look("charcoal", looks.charcoal, share=HARD),
        look("watercolor", looks.watercolor, heavily=beyond(partial(looks.watercolor, wet=1.4), 1.2)),
        look("oil_painting", looks.oil_painting, heavily=beyond(partial(looks.oil_painting, thick=1.4), 1.2)),
        look("cartoon", looks.cartoon),
        look("comic", looks.comic, share=HARD),
        look("pixel_art", looks.pixel_art, share=HARD),
        look("neon", looks.neon, strong=True, share=HARD),
        look("cyberpunk", looks.cyberpunk, strong=True, heavily=beyond(looks.cyberpunk)),
        look("night", looks.night, strong=True, heavily=lambda x: looks.night(x) * 0.55, share=EASY),
        look("sunset", looks.sunset, strong=True, heavily=beyond(looks.sunset), share=EASY),
        look("winter", looks.winter, strong=True, heavily=beyond(looks.winter), share=EASY),
        look("autumn", looks.autumn, heavily=beyond(looks.autumn), share=EASY),
        look("fog", looks.fog, strong=True, heavily=partial(looks.fog, thickness=1.15), share=EASY),
        look("thermal", looks.thermal, strong=True),
        look("night_vision", looks.night_vision, strong=True),
        look("vintage", looks.vintage, heavily=beyond(looks.vintage)),
        look("posterize", looks.posterize, share=HARD),
        look("pop_art", looks.pop_art, strong=True),
        look("emboss", looks.emboss, strong=True, share=HARD),
        look("blueprint", looks.blueprint, strong=True, share=HARD),
        look("chalkboard", looks.chalkboard, strong=True, share=HARD),
        look("duotone", looks.duotone, strong=True),
        look("vivid", looks.vivid, heavily=beyond(looks.vivid)),
        look("dreamy", looks.dreamy, strong=True, heavily=beyond(looks.dreamy)),
        look("noir", looks.noir, strong=True, heavily=partial(looks.noir, depth=1.5)),
        look("x_ray", looks.x_ray, strong=True),
        look("underwater", looks.underwater, strong=True, heavily=beyond(looks.underwater), share=HARD),
        look("vaporwave", looks.vaporwave, strong=True, heavily=beyond(looks.vaporwave)),
        weather("snow", particles.snow),
        weather("rain", particles.rain),
    )
}

"""The edits that `nano` is taught: for each a true result for every source, and the words people ask for it with."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Generator, Tensor

from sana_streaming.data import looks, particles
from sana_streaming.data.phrasings import training_phrasings
from sana_streaming.data.wordings import WORDINGS


@dataclass(frozen=True)
class Edit:
    name: str
    apply: Callable[[Tensor, Generator], Tensor]  # clips [N, F, 3, H, W] in [0, 1] -> the same shape and range
    strong: bool  # far from its source: PSNR below 16 dB on most photos
    particles: bool  # draws from the generator; the other edits are functions of each frame alone
    phrasings: tuple[str, ...]  # for training; the first is the example that a user interface shows
    held_out: tuple[str, ...]  # for judging


def look(name: str, draw: Callable[[Tensor], Tensor], strong: bool = False) -> Edit:
    """An edit that works on each frame [M, 3, H, W] by itself."""

    def apply(video: Tensor, generator: Generator) -> Tensor:
        return draw(video.flatten(0, 1)).clamp(0, 1).view_as(video)

    return _edit(name, apply, strong, particles=False)


def weather(name: str, draw: Callable[[Tensor, Generator], Tensor]) -> Edit:
    """An edit with falling particles, whose places are drawn for each clip [N, F, 3, H, W]."""

    def apply(video: Tensor, generator: Generator) -> Tensor:
        return draw(video, generator).clamp(0, 1)

    return _edit(name, apply, strong=False, particles=True)


def _edit(name: str, apply: Callable[[Tensor, Generator], Tensor], strong: bool, particles: bool) -> Edit:
    wording = WORDINGS[name]
    return Edit(name, apply, strong, particles, training_phrasings(wording), wording.held_out)


EDITS: dict[str, Edit] = {
    edit.name: edit
    for edit in (
        look("unchanged", looks.unchanged),
        look("grayscale", looks.grayscale),
        look("sepia", looks.sepia),
        look("negative", looks.negative, strong=True),
        look("pencil", looks.pencil, strong=True),
        look("charcoal", looks.charcoal),
        look("watercolor", looks.watercolor),
        look("oil_painting", looks.oil_painting),
        look("cartoon", looks.cartoon),
        look("comic", looks.comic),
        look("pixel_art", looks.pixel_art),
        look("neon", looks.neon, strong=True),
        look("cyberpunk", looks.cyberpunk, strong=True),
        look("night", looks.night, strong=True),
        look("sunset", looks.sunset, strong=True),
        look("winter", looks.winter, strong=True),
        look("autumn", looks.autumn),
        look("fog", looks.fog, strong=True),
        look("thermal", looks.thermal, strong=True),
        look("night_vision", looks.night_vision, strong=True),
        look("vintage", looks.vintage),
        look("posterize", looks.posterize),
        look("pop_art", looks.pop_art, strong=True),
        look("emboss", looks.emboss, strong=True),
        look("blueprint", looks.blueprint, strong=True),
        look("chalkboard", looks.chalkboard, strong=True),
        look("duotone", looks.duotone, strong=True),
        look("vivid", looks.vivid),
        look("dreamy", looks.dreamy, strong=True),
        look("noir", looks.noir, strong=True),
        look("x_ray", looks.x_ray, strong=True),
        look("underwater", looks.underwater, strong=True),
        look("vaporwave", looks.vaporwave, strong=True),
        weather("snow", particles.snow),
        weather("rain", particles.rain),
    )
}

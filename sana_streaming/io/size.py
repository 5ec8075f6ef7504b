"""How the picture of a source becomes what a model edits. Sizes are (width, height)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Size = tuple[int, int]
FITS = ("letterbox", "crop")


@dataclass(frozen=True)
class Geometry:
    """A picture is scaled as it is read, cropped to its middle, filled up to the grid, edited, and cut back."""

    scaled: Size
    picture: Size  # what the result shows: all of it, or its middle
    stride: int  # of the model's grid, pixels

    @property
    def grid(self) -> Size:
        """What the model sees: the picture, and bars that repeat its right and lower edge. They are cut off again."""
        width, height = self.picture
        return width + -width % self.stride, height + -height % self.stride

    def cropped(self, rgb: np.ndarray) -> np.ndarray:
        """The picture of a scaled frame, [H, W, 3], without a copy."""
        width, height = self.picture
        top, left = (rgb.shape[0] - height) // 2, (rgb.shape[1] - width) // 2
        return rgb[top : top + height, left : left + width]

    def in_source(self, source: Size) -> Size:
        """What the result shows, in the source's own pixels."""
        width, height = (round(s * p / full) for s, p, full in zip(source, self.picture, self.scaled, strict=True))
        return width, height

    def told(self, source: Size) -> str:
        """For people, in one line."""
        line = f"{_text(source)} is edited at {_text(self.picture)}"
        if self.picture != self.scaled:
            lost = 100 - 100 * math.prod(self.picture) / math.prod(self.scaled)
            line += f", cropped from {_text(self.scaled)} ({lost:.1f} % of the picture is lost)"
        if self.picture != self.grid:
            line += f", letterboxed to {_text(self.grid)} (the bars are cut off again)"
        return line


def working_geometry(
    source: Size,
    stride: int,
    *,
    fit: str = "letterbox",
    short: int | None = None,
    default: int = 256,
    trained: Sequence[int] = (),
) -> Geometry:
    """What becomes of pictures of the size `source`. Nothing is stretched: the aspect stays.

    short: the short side asked for. Without a wish, a model that was `trained` at one size gets pictures of about as
    many pixels; for others the short side is `default`, and a smaller picture keeps its size.
    fit: "letterbox" keeps all of the picture; "crop" takes its middle, at the nearest size of the grid.
    """
    if fit not in FITS:
        raise ValueError(f"unknown fit '{fit}': expected {' or '.join(FITS)}")
    width, height = source
    if short is not None:
        scale = short / min(source)
    elif trained:
        scale = math.sqrt(math.prod(trained) / (width * height))
    else:
        scale = min(1.0, default / min(source))
    columns, rows = _multiple(width * scale, stride), _multiple(height * scale, stride)
    if fit == "crop":
        scale = max(columns / width, rows / height)
        return Geometry((max(columns, round(width * scale)), max(rows, round(height * scale))), (columns, rows), stride)
    if trained and short is None:
        scale = min(columns / width, rows / height)
    scaled = source if scale == 1 else (_multiple(width * scale, 2), _multiple(height * scale, 2))
    return Geometry(scaled, scaled, stride)


def _multiple(side: float, of: int) -> int:
    return max(of, of * round(side / of))


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"

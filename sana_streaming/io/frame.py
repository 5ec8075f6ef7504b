"""What travels the road: frames, what is known of a video, and the two ends of the road."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

import numpy as np


class VideoError(ValueError):
    """A video that cannot be read or written. The message is one line: what was expected, what came, what to do."""


def meant(seconds: float) -> Fraction:
    """The time that somebody wrote: 0.2 is a fifth of a second, not the binary number a little above it."""
    return Fraction(seconds).limit_denominator(1_000_000)


@dataclass(frozen=True)
class Frame:
    """One picture at its time."""

    rgb: np.ndarray  # uint8 [H, W, 3], full range
    pts: Fraction  # seconds from the beginning of the video
    duration: Fraction | None = None  # seconds; None: until the next frame


@dataclass(frozen=True)
class Color:
    """What the numbers of a video mean, as codes of ISO/IEC 23091-2 (1 is BT.709, 2 unspecified, 6 BT.601, 9 BT.2020).

    RGB frames keep the primaries and the transfer curve of their video; a result with the same codes shows the same
    colours.
    """

    matrix: int = 1
    primaries: int = 1
    transfer: int = 1


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before it is read."""

    width: int  # pixels as shown: after rotation, with square pixels
    height: int
    rate: Fraction  # frames per second; the mean, where it varies
    time_base: Fraction  # seconds; every pts is a whole number of these
    duration: Fraction | None = None  # seconds that will be read
    frames: int | None = None  # an estimate
    has_audio: bool = False
    color: Color = field(default_factory=Color)


class Reader(Protocol):
    """Where frames come from. Memory does not grow with the length of the video."""

    info: VideoInfo

    def frames(self, size: tuple[int, int] | None = None) -> Iterator[Frame]:
        """The frames in order, once. `size` is (width, height) to scale each one to as it is read."""
        ...

    def soundtrack(self) -> "Sound | None":
        """The sound that belongs to these frames. None if there is none."""
        ...

    def close(self) -> None: ...


class Sound(Protocol):
    """Sound on the time line of the frames, handed from a reader to a writer, which knows its kind."""

    def close(self) -> None: ...


class Writer(Protocol):
    """Where frames go. Ends with `close`, or with `abort`, which may follow a failed close."""

    def write(self, frame: Frame) -> None:
        """Frames come in order of pts and all have one size."""
        ...

    def close(self, keep_tail: bool = True) -> None:
        """Finish. Sound after the last frame is kept, unless keep_tail is False (the run was stopped)."""
        ...

    def abort(self) -> None:
        """Give up and leave nothing behind."""
        ...

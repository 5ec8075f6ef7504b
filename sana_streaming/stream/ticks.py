"""Which frames of a source a model is given, where it has a rate of its own."""

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction

from sana_streaming.io import Frame

EARLY = Fraction(1, 4)  # of a tick that a frame may come before it: files round their times


def ticks(frames: Iterable[Frame], rate: Fraction | None) -> Iterator[tuple[Frame, bool]]:
    """Each frame, and whether the model is given it: the first one of every tick of 1 / rate seconds.

    What comes within the same tick shows the same edited frame, so that nothing is shown before its time, nor a whole
    tick after it. A tick without a frame is left out: a source that is slower than the model runs at its own rate, and
    no frame is edited twice. Without a rate every frame is edited.
    """
    begin: Fraction | None = None
    tick: int | None = None
    for frame in frames:
        begin = frame.pts if begin is None else begin
        now = None if rate is None else math.floor((frame.pts - begin) * rate + EARLY)
        yield frame, now is None or now != tick
        tick = now

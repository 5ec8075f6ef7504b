"""The clock of a source and that of the server, which run apart, and jump when a source begins anew."""

from fractions import Fraction

JUMP = 2.0  # seconds that a source's clock may be off against ours before it is taken for another clock
DRIFT = 0.001  # share of the difference that the source's clock is followed by, for each frame


class SourceClock:
    """Turns the times of sources that come and go into one time line that only moves forward."""

    def __init__(self) -> None:
        self._offset = Fraction(0)
        self._last: tuple[Fraction, float] | None = None  # the latest time given, and when

    def __call__(self, pts: Fraction, now: float) -> Fraction:
        if self._last is None:
            self._offset = -pts
        else:
            last, then = self._last
            step = pts + self._offset - last
            passed = Fraction(max(0.001, now - then)).limit_denominator(1000)
            if step <= 0 or abs(step - passed) > JUMP:
                self._offset = last + passed - pts
        self._last = (pts + self._offset, now)
        return self._last[0]


class ServerClock:
    """Moments of the server's clock -> seconds of the source's, by its frames that came the fastest."""

    def __init__(self) -> None:
        self.offset: float | None = None

    def frame(self, pts: Fraction, captured: float) -> None:
        offset = captured - float(pts)
        if self.offset is None or abs(offset - self.offset) > JUMP:
            self.offset = offset
        else:
            self.offset = min(offset, self.offset + DRIFT * (offset - self.offset))

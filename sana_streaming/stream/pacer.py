"""The output clock: when each edited frame is shown.

A frame is shown at its own time plus a delay that is the same for all, so that motion is as even as it was before the
camera. The delay grows by what a late chunk needs, and shrinks slowly when less is enough. What is early waits; while
nothing is due, the last frame stays in view. Times are seconds: `pts` of the source's clock, `now` of ours.
"""

import math
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from typing import Generic, Protocol, TypeVar

CHUNKS = 12  # of the latest, that tell how much delay is needed: 3 seconds of the shipped model at 16 frames a second
SPARE = 0.02  # seconds of delay above that are left alone
SHRINK = 0.05  # seconds per second that the delay shrinks at least: nobody sees a picture that is 5 % faster
CATCH_UP = 1.5  # seconds; a much too long delay shrinks by one part in e in that time
JUMP = 2.0  # seconds of difference between the clocks that mean that the source began anew
DRIFT = 0.001  # share of the difference that the source's clock is followed by, for each frame
CAPACITY = 512  # frames that wait to be shown, at most


class Timed(Protocol):
    @property
    def pts(self) -> Fraction: ...


T = TypeVar("T", bound=Timed)


class Pacer(Generic[T]):
    """Edited frames in as they are made, out when they are due."""

    def __init__(self, period: float):
        """period: usual seconds from one frame to the next."""
        self.period = period
        self.delay = 0.0  # seconds from a frame's arrival to its display
        self.waiting: deque[T] = deque()
        self.current: T | None = None
        self.shown = 0  # frames that were
        self.repeated = 0  # periods in which a frame was due but late, so that the last one stayed
        self.lost = 0  # frames that were made, but came too late to be shown, or too many
        self._offset: float | None = None  # arrival minus pts, of the frames that came the fastest
        self._needs: deque[float] = deque(maxlen=CHUNKS)  # delay that a chunk needed
        self._expected: Fraction | None = None  # pts of the latest frame that is to be edited
        self._latest: Fraction | None = None  # pts of the current frame, if it is of this source
        self._counted = 0  # periods of it that are counted as repeated
        self._pulled: float | None = None

    def arrived(self, pts: Fraction, now: float) -> None:
        """A frame of the source that is to be edited came in."""
        if self._expected is not None and pts <= self._expected:
            self.hold()  # another source, with times of its own
        offset = now - float(pts)
        if self._offset is None or abs(offset - self._offset) > JUMP:
            self._offset = offset
        else:
            self._offset = min(offset, self._offset + DRIFT * (offset - self._offset))
        self._expected = pts

    def due(self, pts: Fraction) -> float:
        """When a frame with that time is shown, as things are; at once if nothing is known of the source's clock."""
        return -math.inf if self._offset is None else float(pts) + self._offset + self.delay

    @property
    def next_due(self) -> float | None:
        """When to pull for the next frame to be shown in time; None while none waits."""
        return self.due(self.waiting[0].pts) if self.waiting else None

    def add(self, frames: Sequence[T], now: float) -> None:
        """The frames of a chunk, which are ready now: the first one tells how much delay chunks need."""
        if frames and self._offset is not None:
            need = now - float(frames[0].pts) - self._offset
            self._needs.append(need)
            self.delay = max(self.delay, need)
        self.put(frames)

    def put(self, frames: Sequence[T]) -> None:
        """Frames that are shown when they are due, but took no work."""
        for frame in frames:
            if self._latest is not None and frame.pts <= self._latest:
                self.lost += 1  # what is in view is newer
                continue
            later = []
            while self.waiting and self.waiting[-1].pts > frame.pts:
                later.append(self.waiting.pop())
            self.waiting.extend((frame, *reversed(later)))
        while len(self.waiting) > CAPACITY:
            self.waiting.popleft()
            self.lost += 1

    def pull(self, now: float) -> T | None:
        """The frame to show now; None before the first one."""
        self._shrink(now)
        fresh = False
        while self.waiting:
            due = self.due(self.waiting[0].pts)
            # A second frame that is due only just waits for the next pull, else a little jitter would skip one of two.
            if due > now or (fresh and due > now - self.period / 2):
                break
            self.current = self.waiting.popleft()
            self._latest, self._counted = self.current.pts, 0
            self.lost += fresh
            fresh = True
        if fresh:
            self.shown += 1
        elif self._latest is not None and self._expected is not None:
            seconds = min(now, self.due(self._expected)) - self.due(self._latest)
            late = math.floor(seconds / self.period + 1e-6) if math.isfinite(seconds) else 0
            self.repeated += max(0, late - self._counted)
            self._counted = max(late, self._counted)
        return self.current

    def hold(self) -> None:
        """The current frame stays in view on purpose; what waits is forgotten, and the source's clock may jump."""
        self.waiting.clear()
        self._latest = self._expected = self._offset = self._pulled = None

    def _shrink(self, now: float) -> None:
        passed = 0.0 if self._pulled is None else max(0.0, now - self._pulled)
        self._pulled = now if self._pulled is None else max(now, self._pulled)
        if self._needs:
            spare = self.delay - max(self._needs)
            if spare > SPARE:
                self.delay -= min(spare - SPARE, passed * max(SHRINK, spare / CATCH_UP))

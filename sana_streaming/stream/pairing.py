"""Source frames and edited ones, brought together again where a session gives them later, or fewer, than they came."""

from collections import deque
from collections.abc import Iterable

import numpy as np

from sana_streaming.io import Frame


class Pairs:
    """First in, first out. Edited frames that no source frame waits for, as a filled-up chunk gives, fall away."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Frame, bool]] = deque()  # frames without their edited one yet, as in `expect`
        self._last: np.ndarray | None = None  # the edited frame that was shown last

    @property
    def incomplete(self) -> bool:
        """Whether an edited frame is still to come."""
        return any(edited for _, edited in self.waiting)

    def expect(self, source: Frame, edited: bool = True) -> None:
        """The next source frame. One that is not `edited` shows what the frame before it shows."""
        assert edited or self.waiting or self._last is not None
        self.waiting.append((source, edited))

    def join(self, edited: Iterable[np.ndarray] = ()) -> list[tuple[Frame, np.ndarray]]:
        """What came out of the session -> the frames that are done, each with what it shows."""
        done, coming = [], iter(edited)
        while self.waiting:
            source, own = self.waiting[0]
            if own:
                rgb = next(coming, None)
                if rgb is None:
                    break
                self._last = rgb
            assert self._last is not None
            self.waiting.popleft()
            done.append((source, self._last))
        return done

"""Source frames and edited ones, brought together again where a session gives them later than they came."""

from collections import deque
from collections.abc import Iterable

import numpy as np

from sana_streaming.io import Frame


class Pairs:
    """First in, first out. Edited frames that no source frame waits for, as a filled-up chunk gives, fall away."""

    def __init__(self) -> None:
        self.waiting: deque[Frame] = deque()  # given to the session, not yet come back

    def join(self, sources: Iterable[Frame], edited: Iterable[np.ndarray]) -> list[tuple[Frame, np.ndarray]]:
        """What went into a session and what came out of it -> the frames that are done, each with its source."""
        self.waiting.extend(sources)
        return [(self.waiting.popleft(), rgb) for _, rgb in zip(range(len(self.waiting)), edited, strict=False)]

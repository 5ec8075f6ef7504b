"""A live frame on its way, and how long each part of the way took."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import numpy as np

STAGES = ("fill", "queue", "edit", "clock")  # in order


@dataclass(frozen=True)
class Passage:
    """When an edited frame went from one stage to the next, seconds by the server's clock."""

    complete: float  # its chunk had all its frames
    begun: float  # the model began with it
    edited: float  # it was ready to be shown

    def stages(self, captured: float, shown: float) -> dict[str, float]:
        """Seconds of each stage, and "total", their sum. A frame may come when its chunk could have begun already: it
        takes the place of an older one."""
        times = (captured, max(self.complete, captured), self.begun, self.edited, max(shown, self.edited))
        parts = {stage: after - before for stage, (before, after) in zip(STAGES, pairwise(times), strict=True)}
        return {**parts, "total": times[-1] - captured}


@dataclass(frozen=True)
class LiveFrame:
    """In or out."""

    rgb: np.ndarray  # uint8 [H, W, 3]
    pts: Fraction  # seconds of the source's own clock
    captured: float  # seconds by the server's clock at arrival
    number: int  # of the source frame
    repeated: bool = False  # out only: the last frame shown again
    stamp: int | None = None  # 16 bits that the page drew into the frame, carried through
    passage: Passage | None = None  # out only, and only of a frame that was edited

    def edited(self, rgb: np.ndarray, now: float) -> LiveFrame:
        passage = self.passage and replace(self.passage, edited=now)
        return replace(self, rgb=rgb, passage=passage)

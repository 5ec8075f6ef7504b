"""Scores, found again by what was measured."""

import math
from collections.abc import Sequence

from sana_streaming.data.edits import EDITS
from sana_streaming.eval.cases import PARTICLES
from sana_streaming.eval.measure import CODEC, UNEDITED, Score

LOOKS = tuple(name for name, edit in EDITS.items() if edit.apply and name not in (*PARTICLES, "unchanged"))
STRONG = tuple(name for name in LOOKS if EDITS[name].strong)
LOCAL = tuple(name for name, edit in EDITS.items() if edit.kind in ("object", "background"))
BOTH = tuple(name for name, edit in EDITS.items() if edit.kind == "both")


class Results:
    def __init__(self, scores: Sequence[Score], steps: Sequence[int]):
        self.values = {(s.edit, s.material, s.degree, s.video, s.metric): s.values for s in scores}
        self.edited = tuple(f"{n} steps" for n in steps)
        self.videos = (*self.edited, UNEDITED, CODEC)

    def each(
        self, names: Sequence[str], metric: str, video: str, material: str = "rendered", degree: str = ""
    ) -> list[float]:
        """The means over clips of those edits that were measured."""
        means = (mean(self.values.get((name, material, degree, video, metric), ())) for name in names)
        return [value for value in means if not math.isnan(value)]

    def mean(
        self, names: Sequence[str], metric: str, video: str, material: str = "rendered", degree: str = ""
    ) -> float:
        return mean(self.each(names, metric, video, material, degree))

    def within(self, name: str, best: int, video: str) -> float:
        """Share of clips whose new object is among the `best` nearest."""
        ranks = self.values.get((name, "rendered", "", video, "rank"), ())
        return mean([float(rank <= best) for rank in ranks if not math.isnan(rank)])


def mean(values: Sequence[float]) -> float:
    """NaN if there are none; those that are NaN do not count."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def divided(value: float, by: float) -> float:
    """NaN where there is nothing to divide by."""
    return value / by if by else math.nan

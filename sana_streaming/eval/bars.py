"""What a model is held to: a value for each bar, a goal, and whether it is met with every number of steps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sana_streaming.data.edits import EDITS
from sana_streaming.eval.cases import PARTICLES
from sana_streaming.eval.drift import CHANGED, KEPT, LongStream, drift
from sana_streaming.eval.measure import CODEC, NEW_OBJECTS, UNEDITED
from sana_streaming.eval.results import BOTH, LOCAL, LOOKS, STRONG, Results, divided

MATERIALS = {"rendered": "rendered clips", "clips": "real clips"}
IN_REGION = ("remove", "recolour", "blur_background", "background")
LONG_ENOUGH = 200  # chunks

Value = Callable[[Results, str], float]  # results and the kind of video -> NaN where nothing was measured


@dataclass(frozen=True)
class Goal:
    text: str
    low: float = -math.inf
    high: float = math.inf

    def met(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Rule:
    label: str
    value: Value
    goal: Goal | None = None
    form: str = "{:.1f}"


@dataclass(frozen=True)
class Bar:
    """A rule, applied."""

    label: str
    goal: str
    cells: dict[str, str]  # by kind of video
    met: bool | None  # None: there is no goal


def average(names: Sequence[str], metric: str = "psnr", material: str = "rendered", degree: str = "") -> Value:
    return lambda results, video: results.mean(names, metric, video, material, degree)


def lowest(names: Sequence[str], material: str) -> Value:
    return lambda results, video: min(results.each(names, "psnr", video, material), default=math.nan)


def difference(value: Value, high: str | None = None, low: str | None = None) -> Value:
    """What `high` has above a video, or a video above `low`, both kinds of video."""
    return lambda results, video: value(results, high or video) - value(results, low or video)


def flicker(names: Sequence[str], material: str) -> Value:
    across, inside = (average(names, metric, material) for metric in ("jump_across", "jump_within"))
    return lambda results, video: divided(across(results, video), inside(results, video))


def within(name: str, best: int) -> Value:
    return lambda results, video: results.within(name, best, video)


def rules() -> list[Rule]:
    found = []
    for material, words in MATERIALS.items():
        found += [
            Rule(f"looks on {words}: mean", average(LOOKS, material=material), Goal("≥ 28 dB", low=28)),
            Rule(f"looks on {words}: lowest", lowest(LOOKS, material), Goal("≥ 22 dB", low=22)),
            Rule(f"strong looks on {words}: mean", average(STRONG, material=material), Goal("≥ 26 dB", low=26)),
        ]
    for degree in ("slightly", "heavily"):
        found.append(Rule(f"done {degree}: mean", average((*LOOKS, *PARTICLES), degree=degree)))
    for name in IN_REGION:
        gained = difference(average([name], "in_region"), low=UNEDITED)
        found.append(Rule(f"{name}: in the region, above the unedited source", gained, Goal("≥ 4 dB", low=4)))
    found.append(Rule("background: in the region", average(["background"], "in_region"), Goal("≥ 24 dB", low=24)))
    for name in NEW_OBJECTS:
        found += [
            Rule(f"{name}: the new object is the nearest of all", within(name, 1), form="{:.0%}"),
            Rule(f"{name}: it is among the nearest five", within(name, 5), Goal("≥ 80%", low=0.8), "{:.0%}"),
        ]
    for name in LOCAL:
        lost = difference(average([name], "out_of_region"), high=CODEC)
        found.append(Rule(f"{name}: outside the region, below the codec", lost, Goal("≤ 2 dB", high=2)))
    for material, words in MATERIALS.items():
        lost = difference(average(KEPT, material=material), high=CODEC)
        found.append(Rule(f"unchanged, {words}: below the codec", lost, Goal("≤ 2 dB", high=2)))
    for name in PARTICLES:
        found += [
            Rule(f"{name}: density, true: 1", average([name], "density"), Goal("0.7 to 1.3", 0.7, 1.3), "{:.2f}"),
            Rule(f"{name}: error of motion", average([name], "motion_error"), Goal("≤ 30%", high=0.3), "{:.0%}"),
            Rule(f"{name}: strength at the true places", average([name], "in_place"), form="{:.2f}"),
            Rule(f"{name}: the scene between the particles", average([name], "behind")),
        ]  # fmt: skip
    found.append(Rule("two edits in one instruction", average(BOTH)))
    for material, words in MATERIALS.items():
        goal = Goal("≤ 1.1", high=1.1)
        found.append(Rule(f"flicker at chunk boundaries, {words}", flicker(tuple(EDITS), material), goal, "{:.2f}"))
    return found


def bars(results: Results, streams: Sequence[LongStream]) -> list[Bar]:
    """Those of which something was measured."""
    measured = [bar for rule in rules() if (bar := applied(rule, results))]
    return [*measured, *drift_bars(streams), *fewer_steps(results)]


def applied(rule: Rule, results: Results) -> Bar | None:
    values = {video: rule.value(results, video) for video in results.videos}
    if all(math.isnan(values[video]) for video in results.edited):
        return None
    cells = {video: "" if math.isnan(value) else rule.form.format(value) for video, value in values.items()}
    if rule.goal is None:
        return Bar(rule.label, "", cells, None)
    return Bar(rule.label, rule.goal.text, cells, all(rule.goal.met(values[video]) for video in results.edited))


def drift_bars(streams: Sequence[LongStream]) -> list[Bar]:
    """Met where no loss is seen, or one of at most a tenth of a decibel, in streams that are long enough."""
    found = []
    for label, names in (("unchanged", KEPT), (", ".join(CHANGED), CHANGED)):
        chosen = [stream for stream in streams if stream.edit in names]
        drifts = {n: drift([s for s in chosen if s.steps == n]) for n in dict.fromkeys(s.steps for s in chosen)}
        if drifts:
            chunks = len(chosen[0].decibels)
            met = chunks >= LONG_ENOUGH and all(d.low <= 0 <= d.high or d.slope >= -0.1 for d in drifts.values())
            cells = {f"{n} steps": f"{d.slope:+.2f} [{d.low:+.2f}, {d.high:+.2f}]" for n, d in drifts.items()}
            found.append(Bar(f"{label}: dB per 100 chunks, over {chunks}", "≥ -0.1, or 0 in the interval", cells, met))
    return found


def fewer_steps(results: Results) -> list[Bar]:
    """How much is lost with fewer steps."""
    few, many = results.edited[0], results.edited[-1]
    gap = results.mean(LOOKS, "psnr", few) - results.mean(LOOKS, "psnr", many)
    if few == many or math.isnan(gap):
        return []
    return [Bar(f"looks on rendered clips: above {many}", "within 1 dB", {few: f"{gap:+.2f}"}, abs(gap) <= 1)]

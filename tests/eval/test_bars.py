"""Bars and tables of made-up scores."""

import math

from sana_streaming.data.edits import EDITS
from sana_streaming.eval.bars import Bar, bars
from sana_streaming.eval.drift import LongStream
from sana_streaming.eval.measure import Score
from sana_streaming.eval.results import LOOKS, Results, mean
from sana_streaming.eval.tables import bar_table, edit_tables


def scores(edit: str, metric: str, material: str = "rendered", degree: str = "", **videos: list[float]) -> list[Score]:
    names = {"two": "2 steps", "four": "4 steps", "unedited": "unedited", "codec": "codec"}
    return [Score(edit, material, degree, names[video], metric, tuple(v)) for video, v in videos.items()]


LOOK_SCORES = [
    *scores("sepia", "psnr", two=[29, 31], four=[32, 34], unedited=[20, 20], codec=[40, 40]),
    *scores("night", "psnr", two=[27, 27], four=[21, 21], unedited=[10, 10], codec=[38, 38]),
]


def found(all_scores: list[Score], streams: tuple[LongStream, ...] = ()) -> dict[str, Bar]:
    return {bar.label: bar for bar in bars(Results(all_scores, [2, 4]), streams)}


def test_a_bar_is_met_with_every_number_of_steps() -> None:
    result = found(LOOK_SCORES)
    average, lowest = result["looks on rendered clips: mean"], result["looks on rendered clips: lowest"]
    assert average.cells == {"2 steps": "28.5", "4 steps": "27.0", "unedited": "15.0", "codec": "39.0"}
    assert average.met is False
    assert lowest.cells["2 steps"] == "27.0"
    assert lowest.met is False  # 21 dB with 4 steps
    assert result["strong looks on rendered clips: mean"].cells["2 steps"] == "27.0"
    assert result["looks on rendered clips: above 4 steps"].cells == {"2 steps": "+1.50"}
    assert result["looks on rendered clips: above 4 steps"].met is False


def test_what_was_not_measured_has_no_row() -> None:
    assert not [label for label in found(LOOK_SCORES) if "real" in label or "snow" in label]


def test_gain_in_the_region_and_loss_outside() -> None:
    result = found(
        [
            *scores("remove", "in_region", two=[20, math.nan], four=[19], unedited=[15, math.nan], codec=[35]),
            *scores("remove", "out_of_region", two=[34], four=[33], unedited=[68], codec=[35]),
        ]
    )
    gain = result["remove: in the region, above the unedited source"]
    assert (gain.cells["2 steps"], gain.cells["unedited"], gain.met) == ("5.0", "0.0", True)
    loss = result["remove: outside the region, below the codec"]
    assert (loss.cells["2 steps"], loss.cells["4 steps"], loss.met) == ("1.0", "2.0", True)


def test_new_objects_are_counted() -> None:
    ranks = {"two": [1, 1, 5, 9, math.nan], "four": [1, 2, 3, 4, 5], "unedited": [40], "codec": [1]}
    result = found(scores("add", "rank", **ranks))
    assert result["add: the new object is the nearest of all"].cells["2 steps"] == "50%"
    nearest_five = result["add: it is among the nearest five"]
    assert (nearest_five.cells["2 steps"], nearest_five.cells["4 steps"], nearest_five.met) == ("75%", "100%", False)


def test_drift_needs_a_long_stream() -> None:
    steady = tuple(LongStream("unchanged", "rendered", n, 4, (30.0,) * 200) for n in (2, 4))
    short = tuple(LongStream("unchanged", "rendered", n, 4, (30.0,) * 40) for n in (2, 4))
    falling = tuple(LongStream("unchanged", "rendered", n, 4, tuple(30 - 0.01 * i for i in range(200))) for n in (2, 4))
    met = [next(iter(found([], streams).values())).met for streams in (steady, short, falling)]
    assert met == [True, False, False]


def test_tables_are_markdown() -> None:
    results = Results(LOOK_SCORES, [2, 4])
    lines = bar_table(bars(results, []), results).splitlines()
    assert lines[0] == "| bar | goal | 2 steps | 4 steps | met | unedited | truth through the codec |"
    assert lines[2] == "| looks on rendered clips: mean | ≥ 28 dB | 28.5 | 27.0 | no | 15.0 | 39.0 |"
    text = edit_tables(results)
    assert "| sepia | 30.0 | 33.0 | 20.0 | 40.0 |  |  |  |  |" in text
    assert "| night (strong) | 27.0 |" in text
    assert "| **mean** | 28.5 |" in text
    assert "slightly" not in text
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {10}


def test_looks_are_those_with_one_truth() -> None:
    assert "sepia" in LOOKS
    assert not {"unchanged", "snow", "rain", "remove"} & set(LOOKS)
    assert set(LOOKS) <= set(EDITS)


def test_mean_of_nothing() -> None:
    assert math.isnan(mean([math.nan]))
    assert mean([1, math.nan, 3]) == 2


def test_flicker_is_a_ratio_of_means() -> None:
    """A clip that hardly moves does not decide."""
    result = found(
        [
            *scores("sepia", "jump_across", two=[0.09, 2.2], four=[0.0, 3.0], unedited=[0, 0], codec=[0.1, 2.0]),
            *scores("sepia", "jump_within", two=[0.01, 2.1], four=[0.0, 2.0], unedited=[0, 0], codec=[0.1, 2.0]),
        ]
    )["flicker at chunk boundaries, rendered clips"]
    assert result.cells == {"2 steps": "1.09", "4 steps": "1.50", "unedited": "", "codec": "1.00"}
    assert result.met is False

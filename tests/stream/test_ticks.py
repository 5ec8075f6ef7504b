from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest

from sana_streaming.io import Frame
from sana_streaming.stream.ticks import ticks

PICTURE = np.zeros((2, 2, 3), np.uint8)


def edited(times, rate):
    """Indices of the frames that a model is given."""
    frames = [Frame(PICTURE, Fraction(time)) for time in times]
    marked = list(ticks(frames, None if rate is None else Fraction(rate)))
    assert [frame for frame, _ in marked] == frames
    return [index for index, (_, own) in enumerate(marked) if own]


def even(count, rate, begin=0):
    return [begin + i / Fraction(rate) for i in range(count)]


def in_milliseconds(times):
    """As some containers keep them."""
    return [Fraction(round(1000 * time), 1000) for time in times]


def test_the_first_frame_of_every_tick_is_edited():
    assert edited(even(17, 32), 16) == list(range(0, 17, 2))
    assert edited(even(13, 60), 24) == [0, 2, 5, 7, 10, 12]
    assert edited(even(16, 30), 16) == [0, 2, 4, 6, 8, 9, 11, 13, 15]
    assert edited(even(26, 25), 24) == [i for i in range(26) if i != 7]


def test_without_a_rate_every_frame_is_edited():
    assert edited([0, 0, 5, 5 + Fraction(1, 10**6)], None) == [0, 1, 2, 3]


@pytest.mark.parametrize("rate", [1, 12, Fraction(1599, 100), 16])
def test_a_slower_source_runs_at_its_own_rate(rate):
    assert edited(even(200, rate), 16) == list(range(200))


def test_a_pause_costs_nothing():
    assert edited([0, Fraction(1, 15), 9, Fraction(136, 15), 9000], 16) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("begin", [0, Fraction(7, 90), 100_000], ids=str)
@pytest.mark.parametrize("rate", [16, 24, Fraction(30000, 1001), 30, 60], ids=str)
def test_rounded_times_make_no_difference(rate, begin):
    """A source at the model's own rate keeps all its frames, and one at twice that every second one."""
    assert edited(in_milliseconds(even(300, rate, begin)), rate) == list(range(300))
    assert edited(in_milliseconds(even(300, 2 * rate, begin)), rate) == list(range(0, 300, 2))


@pytest.mark.parametrize("rate", [16, 24, Fraction(2997, 125)], ids=str)
@pytest.mark.parametrize("source", ["even", "varying"])
def test_nothing_is_shown_early_nor_a_tick_late(rate, source):
    rng = np.random.default_rng(0)
    steps = [Fraction(int(step), 90_000) for step in rng.integers(1, 9000, 400)]
    times = even(400, 50, Fraction(1, 3)) if source == "even" else list(accumulate(steps))
    given = edited(times, rate)
    shown = [max(index for index in given if index <= i) for i in range(len(times))]
    assert all(0 <= times[i] - times[index] < 1 / Fraction(rate) for i, index in enumerate(shown))
    assert len(given) <= (times[-1] - times[0]) * rate + 2
    if source == "even":
        assert len(given) > (times[-1] - times[0]) * rate - 1


def test_nothing_is_read_ahead():
    read = []

    def frames():
        for i in range(9):
            read.append(i)
            yield Frame(PICTURE, Fraction(i, 60))

    for index, _ in enumerate(ticks(frames(), Fraction(16))):
        assert len(read) == index + 1


def test_no_frames():
    assert edited([], 16) == []

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import pytest

from sana_streaming.config import nano, two_b
from sana_streaming.io import Frame
from sana_streaming.stream.governor import DOWN_SECONDS, QUEUE_CHUNKS, UP_SECONDS, Governor, Level, Shedder, levels
from sana_streaming.stream.ticks import ticks


@dataclass(frozen=True)
class Picture:
    number: int
    rate: int = 16

    @property
    def pts(self) -> Fraction:
        return Fraction(self.number, self.rate)


def filled(policy, count, chunk=4):
    governor = Governor(policy)
    governor.expect(chunk, 0.0)
    taken = [governor.push(Picture(i), i / 16) for i in range(count)]
    return governor, taken


def numbers(frames):
    return [frame.number for frame in frames]


def test_without_overload_nothing_is_dropped():
    governor, _ = filled("latest", 4)
    assert governor.ready_since == 3 / 16
    assert numbers(governor.take(0.2)) == [0, 1, 2, 3]
    assert governor.dropped == 0
    assert governor.ready_since is None
    assert governor.take(0.2) == ()


@pytest.mark.parametrize(("waits", "kept"), [(8, [1, 3, 5, 7]), (12, [2, 5, 8, 11]), (5, [0, 1, 2, 4])])
def test_latest_keeps_evenly_spaced_frames_with_the_newest(waits, kept):
    governor, _ = filled("latest", waits)
    assert numbers(governor.take(1.0)) == kept
    assert governor.dropped == waits - 4
    assert not governor.waiting


def test_latest_at_half_speed_keeps_every_second_frame_for_ever():
    governor = Governor("latest")
    governor.expect(4, 0.0)
    kept = []
    for i in range(400):
        governor.push(Picture(i), i / 16)
        if i % 8 == 7:
            kept += numbers(governor.take(i / 16))
    assert kept == list(range(1, 400, 2))


def test_latest_is_bounded_and_drops_the_oldest():
    governor, taken = filled("latest", 1000)
    assert all(taken)
    assert numbers(governor.waiting) == list(range(1000 - QUEUE_CHUNKS * 4, 1000))
    assert governor.dropped == 1000 - QUEUE_CHUNKS * 4
    assert governor.ready_since == 3 / 16  # since when the model is awaited, whatever was dropped


def test_every_keeps_all_in_order_and_says_when_it_is_full():
    governor, taken = filled("every", 20)
    assert taken == [True] * 12 + [False] * 8
    assert governor.full
    assert [numbers(governor.take(1.0)) for _ in range(4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], []]
    assert governor.dropped == 0
    assert not governor.full


def test_a_taken_chunk_is_not_touched_by_what_comes():
    governor, _ = filled("latest", 4)
    chunk = governor.take(0.2)
    for i in range(4, 100):
        governor.push(Picture(i), i / 16)
    governor.flush()
    assert numbers(chunk) == [0, 1, 2, 3]


def test_the_next_chunk_may_take_more_or_fewer():
    governor, _ = filled("latest", 4)
    governor.expect(9, 0.3)
    assert governor.ready_since is None
    assert governor.take(0.3) == ()
    governor.expect(2, 0.4)
    assert governor.ready_since == 0.4
    assert numbers(governor.take(0.4)) == [1, 3]


def test_flush_keeps_the_newest():
    governor, _ = filled("latest", 10)
    assert governor.flush(4) == 6
    assert numbers(governor.waiting) == [6, 7, 8, 9]
    assert governor.flush() == 4
    assert governor.ready_since is None


def test_the_rest_of_a_stream():
    governor, _ = filled("every", 6)
    governor.take(0.5)
    assert numbers(governor.rest()) == [4, 5]
    assert not governor.waiting


def test_the_models_rate_picks_the_frames_that_files_are_edited_at():
    governor = Governor("latest", rate=16)
    governor.expect(100, 0.0)
    pictures = [Picture(i, rate=30) for i in range(60)]
    passed = [governor.push(p, i / 30) for i, p in enumerate(pictures)]
    assert passed == [own for _, own in ticks((Frame(None, p.pts) for p in pictures), Fraction(16))]
    assert governor.dropped == 0
    assert governor.push(Picture(0), 9.0)  # a source that begins anew


def test_levels_go_down_by_steps_that_were_trained_then_by_size():
    assert levels(nano().sampler, 2, (256, 256), 16) == (
        Level(2, (256, 256)),
        Level(2, (192, 192)),
        Level(2, (128, 128)),
    )
    assert [level.steps for level in levels(nano().sampler, 4, (256, 256), 16)] == [4, 2, 2, 2]
    two = levels(two_b().sampler, 4, (1280, 704), 32)
    assert two == (Level(4, (1280, 704)), Level(2, (1280, 704)), Level(2, (960, 512)), Level(2, (640, 352)))
    assert levels(replace(nano().sampler, schedules=()), 3, (64, 64), 16) == (Level(3, (64, 64)),)
    costs = [level.cost for level in two]
    assert costs == sorted(costs, reverse=True)


LEVELS = (Level(4, (256, 256)), Level(2, (256, 256)), Level(2, (128, 128)))


def observed(shedder, load, begin, seconds):
    """Times at which the level changed, a chunk every quarter of a second; `load` at the best level."""
    changes = []
    for i in range(round(seconds * 4)):
        now = begin + i / 4
        if shedder.observe(load * shedder.level.cost / LEVELS[0].cost, now):
            changes.append((now - begin, shedder.index))
    return changes


def test_quality_goes_down_level_by_level_while_the_overload_lasts():
    shedder = Shedder(LEVELS)
    assert observed(shedder, 10.0, 0, 20) == [(DOWN_SECONDS, 1), (2 * DOWN_SECONDS + 0.25, 2)]


def test_a_short_overload_changes_nothing():
    shedder = Shedder(LEVELS)
    assert observed(shedder, 2.0, 0, DOWN_SECONDS - 0.5) == []
    assert observed(shedder, 0.5, 3, 5) == []
    assert observed(shedder, 2.0, 8, DOWN_SECONDS - 0.5) == []


def test_quality_comes_back_when_there_is_room_and_not_before():
    shedder = Shedder(LEVELS)
    observed(shedder, 10.0, 0, 20)
    assert observed(shedder, 0.95, 20, 60) == [(UP_SECONDS, 1)]  # the best level would leave too little room
    assert observed(shedder, 0.5, 80, 60) == [(UP_SECONDS, 0)]


def test_a_level_that_does_not_last_is_tried_more_and_more_rarely():
    shedder = Shedder(LEVELS[:2])
    changes = []
    for i in range(4 * 1200):
        now = i / 4
        # Measured cheaply at the lower level, too slow at the upper one: what the estimate cannot know.
        if shedder.observe((1.2, 0.1)[shedder.index], now):
            changes.append(now)
    assert len(changes) < 24
    ups = changes[1::2]
    gaps = [b - a for a, b in pairwise(ups)]
    assert gaps == sorted(gaps)
    assert gaps[-1] > 8 * UP_SECONDS

import random
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import pytest

from sana_streaming.stream.pacer import CAPACITY, CHUNKS, JUMP, SPARE, Pacer

PERIOD = 1 / 16


@dataclass(frozen=True)
class Picture:
    number: int

    @property
    def pts(self) -> Fraction:
        return Fraction(self.number, 16)


def run(compute, seconds, chunk=4, jitter=0.0, phase=0.01):
    """A source at 16 frames a second whose chunks are ready `compute(now)` seconds after their last frame -> the pacer
    and (time, frame) of every pull at the same rate."""
    pacer, random_, shown, ready = Pacer(PERIOD), random.Random(0), [], []
    for i in range(round(seconds * 16)):
        now = i * PERIOD
        pacer.arrived(Fraction(i, 16), now + jitter * random_.random())
        if i % chunk == chunk - 1:
            ready.append((now + compute(now), [Picture(n) for n in range(i - chunk + 1, i + 1)]))
        pull = now + phase * PERIOD
        while ready and ready[0][0] <= pull:
            pacer.add(ready[0][1], ready.pop(0)[0])
        shown.append((pull, pacer.pull(pull)))
    return pacer, shown


def test_frames_are_shown_at_their_time_plus_one_delay():
    pacer, shown = run(lambda _: 0.1, 10)
    assert pacer.delay == pytest.approx(3 * PERIOD + 0.1)  # the first frame waits for three more, then for the model
    assert pacer.repeated == 0
    numbers = [frame.number for _, frame in shown[8:]]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))  # one a period, none twice, none left out
    late = {round(pull - float(frame.pts) - pacer.delay, 6) for pull, frame in shown[8:]}
    assert len(late) == 1
    assert 0 <= late.pop() < PERIOD


def punctual(compute, seconds, chunk=4, jitter=0.0):
    """The same, but pulled whenever a frame is due or a chunk is ready: (time, frame) of what is shown afresh."""
    pacer, random_, shown, now = Pacer(PERIOD), random.Random(0), [], 0.0
    arrivals = deque((i * PERIOD + jitter * random_.random(), i) for i in range(round(seconds * 16)))
    ready = deque()
    while arrivals:
        dues = [arrivals[0][0], *(moment for moment, _ in list(ready)[:1])]
        if pacer.next_due is not None:
            dues.append(pacer.next_due)
        now = max(now, min(dues))
        while arrivals and arrivals[0][0] <= now:
            moment, i = arrivals.popleft()
            pacer.arrived(Fraction(i, 16), moment)
            if i % chunk == chunk - 1:
                frames = [Picture(n) for n in range(i - chunk + 1, i + 1)]
                ready.append((max([moment, *(then for then, _ in ready)]) + compute(moment), frames))
        while ready and ready[0][0] <= now:
            pacer.add(ready.popleft()[1], now)
        before = pacer.shown
        frame = pacer.pull(now)
        if pacer.shown > before:
            shown.append((now, frame))
    return pacer, shown


def test_who_pulls_when_frames_are_due_loses_no_time():
    pacer, shown = punctual(lambda _: 0.1, 10, jitter=0.005)
    late = [now - frame.number * PERIOD for now, frame in shown]
    assert max(late) < 3 * PERIOD + 0.1 + 0.006 + SPARE
    assert min(b - a for (a, _), (b, _) in pairwise(shown)) > 0.9 * PERIOD
    assert [frame.number for _, frame in shown] == list(range(len(shown)))
    assert pacer.repeated <= 1
    assert pacer.lost == 0
    assert pacer.next_due is None or pacer.next_due > shown[-1][0]


def test_a_hiccup_costs_whoever_pulls_in_time_no_frame():
    pacer, shown = punctual(lambda now: 0.4 if 3 <= now < 3.2 else 0.1, 12)
    late = [now - frame.number * PERIOD for now, frame in shown]
    assert [frame.number for _, frame in shown] == list(range(len(shown)))
    assert max(late) == pytest.approx(3 * PERIOD + 0.4)
    assert late[-1] < 3 * PERIOD + 0.1 + 2 * SPARE  # and it is forgotten again
    assert pacer.repeated == pytest.approx(0.3 / PERIOD, abs=1)


def test_an_early_frame_waits():
    pacer = Pacer(PERIOD)
    pacer.arrived(Fraction(0), 5.0)
    pacer.delay = 0.5
    pacer.add([Picture(0)], 5.1)
    assert pacer.pull(5.49) is None
    assert pacer.pull(5.5) == Picture(0)


def test_a_late_chunk_repeats_the_last_frame_and_is_counted():
    late = 0.5
    pacer, shown = run(lambda now: late if 3 <= now < 3.2 else 0.1, 4)
    same = [b for (_, a), (_, b) in pairwise(shown[8:]) if a == b]
    assert len(same) == pacer.repeated > 0
    assert pacer.repeated == pytest.approx((late - 0.1) / PERIOD, abs=1)
    assert pacer.delay == pytest.approx(3 * PERIOD + late)  # grown by just what was needed
    assert pacer.lost == 0


def test_the_delay_shrinks_slowly_and_only_after_a_while():
    def delay(seconds):
        return run(lambda now: 0.4 if 3 <= now < 3.2 else 0.1, seconds)[0].delay

    needed, remembered = 3 * PERIOD + 0.1, CHUNKS * 4 * PERIOD
    assert delay(3.2 + remembered) == pytest.approx(needed + 0.3)
    assert needed + 0.1 < delay(4.2 + remembered) < needed + 0.3
    assert needed <= delay(25) < needed + 2 * SPARE
    _, shown = run(lambda now: 0.4 if 3 <= now < 3.2 else 0.1, 25)
    steps = [b.number - a.number for (_, a), (_, b) in pairwise(shown[100:])]
    assert set(steps) <= {0, 1, 2}  # at most one frame is left out at a time
    assert sum(step != 1 for step in steps) < 12


def test_nothing_is_repeated_for_a_little_jitter_of_the_camera():
    # Pulls fall right on the moments at which frames are due, the worst place.
    pacer, shown = run(lambda _: 0.1, 60, jitter=0.01, phase=0.0)
    assert pacer.repeated <= 2
    assert pacer.shown >= len(shown) - 12


def test_no_repetition_is_counted_when_the_source_rests():
    pacer, _ = run(lambda _: 0.1, 2)
    pacer.add([Picture(i) for i in range(28, 32)], 2.1)
    assert pacer.pull(60.0) == Picture(31)
    assert pacer.repeated == 0


def test_holding_on_purpose_is_no_repetition_and_forgets_what_waits():
    pacer, shown = run(lambda _: 0.1, 2)
    last = shown[-1][1]
    assert pacer.waiting
    pacer.hold()
    assert pacer.pull(10.0) == last
    assert pacer.repeated == 0
    pacer.arrived(Fraction(0), 20.0)  # another source, whose clock begins anew
    pacer.add([Picture(0)], 20.1)
    assert pacer.pull(21.0) == Picture(0)


def test_a_source_that_begins_anew_is_shown():
    pacer, _ = run(lambda _: 0.1, 2)
    pacer.arrived(Fraction(0), 50.0)
    pacer.add([Picture(0)], 50.1)
    assert pacer.pull(51.0) == Picture(0)


def test_a_jump_of_the_clock_is_followed():
    pacer, _ = run(lambda _: 0.1, 2)
    pacer.arrived(Fraction(40, 16), 40 / 16 + JUMP + 1)
    assert pacer.due(Fraction(40, 16)) == pytest.approx(40 / 16 + JUMP + 1 + pacer.delay)


def test_a_chunk_that_comes_after_newer_frames_is_lost_not_shown():
    pacer = Pacer(PERIOD)
    pacer.arrived(Fraction(0), 0.0)
    pacer.put([Picture(8)])
    assert pacer.pull(2.0) == Picture(8)
    pacer.add([Picture(4), Picture(9)], 2.0)
    assert pacer.pull(9.0) == Picture(9)
    assert pacer.lost == 1


def test_frames_go_out_in_order_whatever_comes_first():
    pacer = Pacer(PERIOD)
    pacer.arrived(Fraction(0), 0.0)
    pacer.put([Picture(3), Picture(5)])
    pacer.put([Picture(1), Picture(2), Picture(4)])
    assert [frame.number for frame in pacer.waiting] == [1, 2, 3, 4, 5]


def test_what_nobody_pulls_does_not_grow():
    pacer = Pacer(PERIOD)
    for i in range(2 * CAPACITY):
        pacer.arrived(Fraction(i, 16), i / 16)
        pacer.add([Picture(i)], i / 16)
    assert len(pacer.waiting) == CAPACITY
    assert pacer.lost == CAPACITY
    assert len(pacer._needs) == CHUNKS

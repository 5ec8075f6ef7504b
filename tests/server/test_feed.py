"""When viewers are shown what, with a clock that passes while one sleeps."""

import asyncio
from dataclasses import replace
from fractions import Fraction

import pytest

from sana_streaming.server import feed
from sana_streaming.server.feed import LOOK, Feed
from sana_streaming.server.hub import LiveFrame

from .fakes import Clock, picture

FPS = 20.0


class Output:
    """An output clock whose frames are made at some time, each due at another."""

    def __init__(self, clock, frames):
        self.clock, self.frames = clock, list(frames)  # (made, due)
        self.frame, self.pulls = LiveFrame(picture(), Fraction(0), 0.0, 0, repeated=True), 0

    def due(self):
        waiting = [due for made, due in self.frames if made <= self.clock()]
        return waiting[0] if waiting else None

    def pull(self, now):
        self.pulls += 1
        assert self.pulls < 10_000
        due = self.due()
        if due is None or due > now:
            return replace(self.frame, repeated=True)
        self.frames.pop(0)
        self.frame = replace(self.frame, number=self.frame.number + 1, repeated=False)
        return self.frame


@pytest.fixture
def shown(monkeypatch):
    """(made, due) of frames -> what was shown in so many seconds, (when, number, whether again), and the output."""

    def show(frames, seconds):
        clock, seen = Clock(0.0), []
        output = Output(clock, frames)

        async def sleep(passes):
            assert passes > 0
            clock.now += passes
            if clock.now > seconds:
                raise TimeoutError

        monkeypatch.setattr(feed.asyncio, "sleep", sleep)
        tell = lambda frame, now: seen.append((now, frame.number, frame.repeated))  # noqa: E731
        with pytest.raises(TimeoutError):
            asyncio.run(Feed(output.pull, output.due, FPS, clock, tell).run())
        return seen, output

    return show


def test_a_frame_is_shown_at_the_moment_at_which_it_is_due(shown):
    dues = [0.213 + 0.05 * i for i in range(40)]
    seen, output = shown([(0.0, due) for due in dues], 2.0)
    fresh = [now for now, _, again in seen if not again]
    assert fresh == pytest.approx([due for due in dues if due <= 2.0])
    assert output.pulls < 2.5 * len(dues)  # it sleeps until then


def test_a_chunk_that_is_late_is_shown_as_soon_as_it_is_there(shown):
    late = 0.4321
    seen, _ = shown([(0.0, 0.1), (late, 0.15), (late, late + 0.05)], 0.6)
    first, second, third = (now for now, _, again in seen if not again)
    assert first == pytest.approx(0.1)
    assert late <= second <= late + LOOK
    assert third == pytest.approx(late + 0.05)
    again = [now for now, number, again in seen if again and number == 1 and now < late]
    assert len(again) == 4  # the last frame stays at the session's rate: from 1.5 periods after it on
    assert again[0] == pytest.approx(0.1 + 1.5 / FPS, abs=LOOK)


def test_nothing_due_is_no_busy_loop(shown):
    _, output = shown([(0.0, 0.0)], 10.0)
    assert output.pulls <= 10.0 / LOOK + 5

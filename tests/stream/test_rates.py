"""Sources of any frame rate, and models that have one of their own."""

from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest

from sana_streaming.stream.run import PromptChange

from .fakes import FakeReader, FakeSession, FakeWriter, LateSession, run_whole


def at_rate(rate, count=200):
    return [i / Fraction(rate) for i in range(count)]


def varying(count=200):
    steps = np.random.default_rng(0).integers(1, 9000, count)
    return list(accumulate((Fraction(int(step), 90_000) for step in steps[1:]), initial=Fraction(1, 7)))


SOURCES = {
    "12": at_rate(12),
    "24": at_rate(24),
    "25": at_rate(25),
    "29.97": at_rate(Fraction(30_000, 1001)),
    "30": at_rate(30),
    "60": at_rate(60),
    "varying": varying(),
}


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("compare", [False, True], ids=["edited", "compared"])
@pytest.mark.parametrize("session", [FakeSession, LateSession])
@pytest.mark.parametrize("rate", [None, 16, 24], ids=str)
@pytest.mark.parametrize("times", SOURCES.values(), ids=SOURCES)
def test_a_source_keeps_its_frames_and_times_at_any_rate_of_the_model(times, rate, session, compare, known):
    writer, told = FakeWriter(), []
    reader = FakeReader(len(times), times=times, known=known)
    report = run_whole(
        reader, session(), writer, rate=rate and Fraction(rate), compare=compare, on_progress=lambda *n: told.append(n)
    )
    assert writer.pts == times
    shown = [255 - number for number in writer.edited]
    assert shown == sorted(shown)
    assert (report.frames, report.edited, writer.end) == (200, len(set(shown)), "whole")
    if rate is None:
        assert shown == list(range(200))
    else:
        assert all(0 <= times[i] - times[n] < Fraction(1, rate) for i, n in enumerate(shown))
        assert report.edited <= 200
    assert told[-1] == (200, 200 if known else None)
    if compare:
        assert writer.sums == list(range(200))


@pytest.mark.parametrize("count", [1, 2, 3, 10, 11, 12, 13, 50])
@pytest.mark.parametrize("session", [FakeSession, LateSession])
def test_the_end_is_whole_at_any_length(count, session):
    """It comes within a tick, a chunk, or behind the last frame that is edited."""
    writer = FakeWriter()
    report = run_whole(FakeReader(count, times=at_rate(60, count)), session(), writer, rate=Fraction(24))
    assert writer.pts == at_rate(60, count)
    assert (report.frames, writer.end) == (count, "whole")
    assert report.fps == report.edited / report.seconds


def test_no_frame_is_given_to_the_model_twice():
    seen = []

    class Noting(FakeSession):
        def step(self, frames):
            seen.extend(frames[:, 0, 0, 0].tolist())
            return super().step(frames)

    run_whole(FakeReader(29, times=at_rate(12, 29)), Noting(), FakeWriter(), rate=Fraction(16))
    assert seen == list(range(29))
    seen.clear()
    run_whole(FakeReader(26, times=at_rate(32, 26)), Noting(), FakeWriter(), rate=Fraction(16))
    assert seen == list(range(0, 26, 2))


@pytest.mark.parametrize("session", [FakeSession, LateSession])
def test_prompts_and_stops_at_a_rate_of_the_model(session):
    """Chunks of 5 and 8 ticks of a sixteenth second, out of 32 frames per second."""
    reader, editing, writer = FakeReader(200, times=at_rate(32)), session("a"), FakeWriter()
    asked = []
    report = run_whole(
        reader,
        editing,
        writer,
        rate=Fraction(16),
        prompts=[(0.3, "b"), (0.5, "c")],
        stop=lambda: bool(asked.append(1)) or len(asked) == 3,
    )
    assert editing.prompts == ["a", "b", "c"]
    assert report.prompts == (PromptChange("b", 0.3, 1, 10), PromptChange("c", 0.5, 2, 26))
    assert (report.edited, report.stopped_early, writer.end) == (21, True, "cut")
    assert writer.pts == at_rate(32, report.frames)
    assert report.frames == 41  # up to the last frame that was edited


def test_memory_does_not_grow_with_the_rate_of_the_source():
    most = []
    for rate, count in ((32, 200), (32, 2000), (960, 4000)):
        reader = FakeReader(count, times=at_rate(rate, count))
        run_whole(reader, LateSession(), FakeWriter(), rate=Fraction(16))
        most.append(reader.most)
    assert most[0] == most[1] == most[2] <= 2 * 8 + 2

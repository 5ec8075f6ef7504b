"""From reader to writer: frames, prompts, stops, errors, and what is told on the way."""

from fractions import Fraction

import pytest

from sana_streaming.io import VideoError
from sana_streaming.io.size import Geometry
from sana_streaming.stream.run import PromptChange, run

from .fakes import FakeEditor, FakeReader, FakeSession, FakeWriter, LateSession, run_whole


def ticking():
    now = iter(range(10_000))
    return lambda: float(next(now))


def test_every_frame_is_edited_and_keeps_its_time():
    session, writer = FakeSession(), FakeWriter()
    report = run_whole(FakeReader(20), session, writer, stride=16)
    assert writer.pts == [Fraction(i, 25) for i in range(20)]
    assert writer.sums == [255 - i for i in range(20)]
    assert writer.shape == (4, 6, 3)
    assert session.shapes == [(5, 16, 16, 3), (8, 16, 16, 3), (8, 16, 16, 3)]
    assert (report.frames, report.chunks, report.stopped_early, writer.end) == (20, 3, False, "whole")


def test_padding_repeats_the_edge():
    class Keep(FakeSession):
        def step(self, frames):
            self.seen = frames
            return super().step(frames)

    session = Keep()
    run_whole(FakeReader(5, size=(17, 15)), session, FakeWriter(), stride=16)
    assert session.seen.shape == (5, 16, 32, 3)
    assert session.seen[3].unique().tolist() == [3]


def test_compare_shows_source_and_edited():
    writer = FakeWriter()
    run_whole(FakeReader(3), FakeSession(), writer, compare=True)
    assert writer.shape == (4, 12, 3)
    assert writer.sums == [0, 1, 2]  # the source is on the left


def test_a_prompt_takes_effect_at_the_first_chunk_that_begins_at_its_time_or_later():
    session = FakeSession("a")
    changes = [(0.6, "d"), (0.1, "b"), (0.2, "c"), (99.0, "never")]
    report = run_whole(FakeReader(40), session, FakeWriter(), prompts=changes)
    assert session.prompts == ["a", "c", "d"]  # chunks begin at 0, 0.20, 0.52, 0.84 s; "b" was overtaken
    assert report.prompts == (PromptChange("c", 0.2, 1, 5), PromptChange("d", 0.6, 3, 21))


def test_a_stop_finishes_the_chunk_and_keeps_it():
    writer, asked = FakeWriter(), []
    report = run_whole(FakeReader(100), FakeSession(), writer, stop=lambda: bool(asked.append(1)) or len(asked) == 2)
    assert (report.frames, report.chunks, report.stopped_early) == (13, 2, True)
    assert (len(writer.pts), writer.end) == (13, "cut")


def test_an_error_aborts_the_writer():
    for writer, session in [(FakeWriter(fail_at=7), FakeSession()), (FakeWriter(), FakeEditor())]:
        with pytest.raises((VideoError, AttributeError)):
            run_whole(FakeReader(20), session, writer)
        assert writer.end == "aborted"


def test_an_interrupt_aborts_the_writer():
    writer = FakeWriter()

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_whole(FakeReader(20), FakeSession(), writer, on_progress=interrupt)
    assert writer.end == "aborted"


def test_progress_and_times_are_told():
    told = []
    report = run_whole(
        FakeReader(20), FakeSession(), FakeWriter(), on_progress=lambda *n: told.append(n), clock=ticking()
    )
    assert told == [(5, 20), (13, 20), (20, 20)]
    assert (report.read_seconds, report.edit_seconds, report.write_seconds) == (
        4,
        3,
        4,
    )  # the end is read and written too
    assert report.seconds == 23
    assert report.fps == 20 / 23


@pytest.mark.parametrize("count", [1, 5, 6, 13, 20])
def test_frames_that_come_late_meet_their_source(count):
    writer, told = FakeWriter(), []
    report = run_whole(
        FakeReader(count), LateSession(), writer, stride=16, compare=True, on_progress=lambda *n: told.append(n)
    )
    assert writer.pts == [Fraction(i, 25) for i in range(count)]
    assert writer.sums == list(range(count))
    assert writer.edited == [255 - i for i in range(count)]
    assert (report.frames, writer.shape, writer.end) == (count, (4, 12, 3), "whole")
    assert told[-1] == (count, count)


def test_frames_are_done_when_they_are_written():
    told = []
    run_whole(FakeReader(20), LateSession(), FakeWriter(), on_progress=lambda *n: told.append(n))
    assert told == [(7, 20), (15, 20), (20, 20)]  # five were read at first, and none of them was done


def test_a_prompt_counts_the_frames_that_were_read():
    report = run_whole(FakeReader(20), LateSession(), FakeWriter(), prompts=[(0.2, "b")])
    assert report.prompts == (PromptChange("b", 0.2, 1, 5),)


def test_a_stop_keeps_what_comes_late():
    writer = FakeWriter()
    report = run_whole(FakeReader(100), LateSession(), writer, stop=lambda: True)
    assert (report.frames, len(writer.pts), writer.end) == (5, 5, "cut")


def test_waiting_for_late_frames_is_editing():
    report = run_whole(FakeReader(20), LateSession(), FakeWriter(), clock=ticking())
    assert (report.read_seconds, report.edit_seconds, report.write_seconds) == (4, 4, 5)


def test_memory_does_not_grow_with_length():
    most = []
    for count in (40, 400):
        reader = FakeReader(count)
        run_whole(reader, FakeSession(), FakeWriter())
        most.append(reader.most)
    assert most[0] == most[1] <= 2 * 8 + 2
    late = []
    for count in (40, 400):
        reader = FakeReader(count)
        run_whole(reader, LateSession(), FakeWriter())
        late.append(reader.most)
    assert late[0] == late[1] <= most[0] + 6


def test_a_picture_is_cropped_filled_up_and_cut_back():
    class Noting(FakeReader):
        def frames(self, size=None):
            for frame in super().frames(size):
                frame.rgb[:3] = frame.rgb[-3:] = 200  # what a crop to 18 of 24 lines loses
                yield frame

    session, writer, late = FakeSession(), FakeWriter(), FakeWriter()
    run(Noting(5), session, writer, Geometry((30, 24), (30, 18), 16))
    assert session.shapes == [(5, 32, 32, 3)]
    assert writer.shape == (18, 30, 3)
    assert writer.sums == [255 - i for i in range(5)]
    run(Noting(5), LateSession(), late, Geometry((30, 24), (30, 18), 16), compare=True)
    assert (late.shape, late.sums, late.edited) == ((18, 60, 3), list(range(5)), writer.sums)

import math
import weakref
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate

import av
import numpy as np
import pytest
import torch

from sana_streaming import cli
from sana_streaming.config import nano, two_b
from sana_streaming.io import Frame, VideoError, VideoInfo
from sana_streaming.io.file_reader import FileReader
from sana_streaming.io.size import Geometry
from sana_streaming.stream.run import PromptChange, check_files, edit_file, run

from ..clips import sound_of, times_of, write_clip


class FakeSession:
    """Gives back the negative. First chunk 5 frames, then 8, as a codec with a short first latent would have it."""

    def __init__(self, prompt="negative"):
        self.prompts, self.shapes = [prompt], []

    @property
    def chunk_frames(self):
        return 8 if self.shapes else 5

    def set_prompt(self, prompt):
        if not prompt:
            raise ValueError("expected a prompt, got none")
        self.prompts.append(prompt)

    def step(self, frames):
        assert len(frames) == self.chunk_frames
        self.shapes.append(tuple(frames.shape))
        return 255 - frames


class LateSession(FakeSession):
    """Gives every frame six frames later, the last ones when it is flushed."""

    held = torch.empty(0, dtype=torch.uint8)

    def step(self, frames):
        edited = super().step(frames)
        edited = torch.cat([self.held, edited]) if len(self.held) else edited
        self.held = edited[-6:]
        return edited[:-6]

    def flush(self):
        return self.held


class FakeEditor:
    config = nano()
    stride = 16
    device = torch.device("cpu")

    def session(self, prompt, *, seed=0, steps=None):
        if not prompt.strip():
            raise ValueError("expected a prompt, got none")
        self.last = FakeSession(prompt)
        return self.last


class FakeReader:
    """Frames that are filled with their number, 25 per second or at `times`."""

    def __init__(self, count, size=(6, 4), times=None, known=True):
        self.count, self.closed, self.alive, self.most = count, False, 0, 0
        self.times = [Fraction(i, 25) for i in range(count)] if times is None else times
        self.info = VideoInfo(*size, Fraction(25), Fraction(1, 25), frames=count if known else None)

    def frames(self, size=None):
        width, height = size or (self.info.width, self.info.height)
        for i, time in enumerate(self.times):
            rgb = np.full((height, width, 3), i % 256, np.uint8)
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(rgb, self._died)
            yield Frame(rgb, time)

    def _died(self):
        self.alive -= 1

    def close(self):
        self.closed = True


class FakeWriter:
    def __init__(self, fail_at=None):
        self.pts, self.sums, self.edited, self.end, self.shape, self.fail_at = [], [], [], None, None, fail_at

    def write(self, frame):
        if len(self.pts) == self.fail_at:
            raise VideoError("the disk is full")
        self.pts.append(frame.pts)
        self.sums.append(int(frame.rgb[0, 0, 0]))
        self.edited.append(int(frame.rgb[0, -1, 0]))  # on the right, where both are shown
        self.shape = frame.rgb.shape

    def close(self, keep_tail=True):
        self.end = "whole" if keep_tail else "cut"

    def abort(self):
        self.end = "aborted"


def run_whole(reader, session, writer, stride=1, **options):
    """Frames as they come from the reader."""
    size = (reader.info.width, reader.info.height)
    return run(reader, session, writer, Geometry(size, size, stride), **options)


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


def test_a_file_is_edited_with_its_times_sound_and_aspect(tmp_path):
    ticks = [0, 512, 1000, 2100, 2612, 3100, 4000]
    source = write_clip(tmp_path / "in.mp4", size=(400, 300), frames=7, ticks=ticks, tone=0.4)
    report = edit_file(FakeEditor(), source, tmp_path / "out.mp4", "negative")
    assert times_of(tmp_path / "out.mp4") == [Fraction(t, 12800) for t in ticks]
    assert abs(sound_of(tmp_path / "out.mp4")[1] - 0.4) < 0.03
    with FileReader(tmp_path / "out.mp4") as reader, FileReader(source) as before:
        assert (reader.info.width, reader.info.height) == (342, 256)
        assert reader.info.duration == before.info.duration
        edited, original = next(reader.frames()), next(before.frames((342, 256)))
        assert np.abs(edited.rgb.astype(int) - (255 - original.rgb)).mean() < 8
    assert report.prompts == (PromptChange("negative", 0.0, 0, 0),)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


@pytest.mark.parametrize(
    ("size", "options", "expected", "edited_at"),
    [
        ((64, 48), {}, (64, 48), (48, 64)),  # smaller than the default: not enlarged
        ((64, 48), {"size": 96}, (128, 96), (96, 128)),
        ((64, 96), {"size": 32}, (32, 48), (48, 32)),
        ((64, 48), {"size": 32, "keep_size": True}, (64, 48), (32, 48)),
        ((64, 48), {"size": 32, "compare": True}, (84, 32), (32, 48)),
        ((64, 48), {"size": 32, "compare": True, "keep_size": True}, (128, 48), (32, 48)),
        ((1000, 40), {"size": 32}, (800, 32), (32, 800)),
    ],
    ids=str,
)
def test_sizes(tmp_path, size, options, expected, edited_at):
    editor = FakeEditor()
    source = write_clip(tmp_path / "in.mp4", size=size, frames=2)
    edit_file(editor, source, tmp_path / "out.mp4", "negative", **options)
    assert editor.last.shapes == [(5, *edited_at, 3)]
    with FileReader(tmp_path / "out.mp4") as reader:
        assert (reader.info.width, reader.info.height) == expected


def test_models_say_their_size_and_rate():
    assert (nano().sampler.rate, nano().frame_size) == (None, ())
    assert (two_b().sampler.rate, two_b().frame_size) == (16, (1280, 704))
    for rate in (0, -16, math.inf, math.nan):
        with pytest.raises(ValueError, match="rate of 1 or more"):
            replace(two_b().sampler, rate=rate)


class ReleasedEditor(FakeEditor):
    """With the rules of the released model, at a quarter of its sides."""

    config = replace(two_b(), frame_size=(320, 176))


@pytest.mark.parametrize(
    ("size", "options", "expected", "edited_at", "line"),
    [
        (
            (192, 108),
            {},
            (312, 176),
            (176, 320),
            "192x108 is edited at 312x176, letterboxed to 320x176 (the bars are cut off again), at up to 16 of its 25",
        ),
        ((108, 192), {}, (176, 312), (320, 176), "108x192 is edited at 176x312, letterboxed to 176x320"),
        ((192, 108), {"keep_size": True}, (192, 108), (176, 320), "192x108 is edited at 312x176"),
        ((192, 108), {"size": 64, "rate": "source"}, (114, 64), (64, 128), "192x108 is edited at 114x64, letterboxed"),
        (
            (192, 108),
            {"fit": "crop", "rate": 12.5},
            (320, 176),
            (176, 320),
            "192x108 is edited at 320x176, cropped from 320x180 (2.2 % of the picture is lost), at up to 12.5",
        ),
        ((192, 108), {"fit": "crop", "keep_size": True}, (192, 106), (176, 320), "192x108 is edited at 320x176"),
        ((192, 108), {"fit": "crop", "compare": True}, (640, 176), (176, 320), "192x108 is edited at 320x176"),
        ((320, 176), {"rate": "source"}, (320, 176), (176, 320), None),
        ((320, 176), {}, (320, 176), (176, 320), "320x176 is edited at 320x176, at up to 16 of its 25"),
    ],
    ids=str,
)
def test_the_size_and_rate_of_a_model(tmp_path, size, options, expected, edited_at, line):
    editor, told = ReleasedEditor(), []
    source = write_clip(tmp_path / "in.mp4", size=size, frames=3)
    report = edit_file(editor, source, tmp_path / "out.mp4", "negative", tell=told.append, **options)
    assert editor.last.shapes == [(5, *edited_at, 3)]
    with FileReader(tmp_path / "out.mp4") as reader:
        assert (reader.info.width, reader.info.height) == expected
    assert len(told) == (line is not None)
    assert not told or told[0].startswith(line)
    assert (report.frames, report.edited) == (3, 3 if options.get("rate") == "source" else 2)
    assert times_of(tmp_path / "out.mp4") == times_of(source)


class SameSession(LateSession):
    """Changes nothing, and gives every frame six frames later."""

    def step(self, frames):
        return 255 - super().step(frames)

    def flush(self):
        return 255 - super().flush()


class SameEditor(ReleasedEditor):
    def session(self, prompt, *, seed=0, steps=None):
        self.last = SameSession(prompt)
        return self.last


@pytest.mark.parametrize("sound", ["aac", "pcm_s16le"], ids=["copied", "encoded"])
@pytest.mark.parametrize("part", [{}, {"start": 0.48}, {"start": 0.7, "duration": 0.9}], ids=str)
@pytest.mark.parametrize("rate", ["source", None], ids=["every frame", "16"])
def test_a_flash_stays_beside_its_click(tmp_path, sound, part, rate):
    """The lights go on at 1.2 s, with a click. A model of 16 frames per second may show them a tick later."""
    pictures = [np.full((48, 64, 3), 230 if i >= 30 else 20, np.uint8) for i in range(50)]
    source = write_clip(tmp_path / "in.mkv", pictures, tone=2.0, click=1.2, tone_codec=sound)
    edit_file(SameEditor(), source, tmp_path / "out.mp4", "nothing", size=48, rate=rate, **part)
    begin = Fraction(math.ceil(25 * part.get("start", 0)), 25)  # of the first frame
    end = 50 if "duration" not in part else 40
    assert len(times_of(tmp_path / "out.mp4")) == end - begin * 25
    with FileReader(tmp_path / "out.mp4") as reader:
        flash = next(frame.pts for frame in reader.frames() if frame.rgb.mean() > 128)
    with av.open(str(tmp_path / "out.mp4")) as file:
        parts = [(part.to_ndarray()[0].astype(float), part.pts * part.time_base) for part in file.decode(audio=0)]
    wave, time = max(parts, key=lambda part: np.abs(part[0]).max())
    click = float(time) + np.abs(wave).argmax() / 48000
    assert abs(click - float(Fraction(6, 5) - begin)) < 0.003
    late = float(flash) - click
    assert abs(late) < 0.003 if rate == "source" else -0.003 < late < 1 / 16 + 0.003


def test_reading_and_writing_overlap_with_a_gpu(tmp_path):
    """The model itself stays on the CPU here; only the road believes otherwise."""
    editor = FakeEditor()
    editor.device = torch.device("cuda")
    source = write_clip(tmp_path / "in.mp4", frames=40, tone=1.6)
    report = edit_file(editor, source, tmp_path / "out.mp4", "negative")
    assert (report.frames, len(times_of(tmp_path / "out.mp4"))) == (40, 40)
    report = edit_file(editor, source, tmp_path / "out.mp4", "negative", stop=lambda: True)
    assert (report.frames, len(times_of(tmp_path / "out.mp4"))) == (5, 5)
    with pytest.raises(ValueError, match="got none"):
        edit_file(editor, source, tmp_path / "never.mp4", "negative", on_progress=lambda *_: editor.last.set_prompt(""))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_odd_and_turned_sources(tmp_path):
    source = write_clip(tmp_path / "in.mp4", size=(65, 49), pixels="yuv444p", frames=1, rotation=90)
    edit_file(FakeEditor(), source, tmp_path / "out.mp4", "negative")
    with FileReader(tmp_path / "out.mp4") as reader:
        assert (reader.info.width, reader.info.height) == (50, 66)


def test_start_duration_and_a_stop(tmp_path):
    source = write_clip(tmp_path / "in.mp4", frames=100, tone=4.0)
    edit_file(FakeEditor(), source, tmp_path / "out.mp4", "negative", start=1.0, duration=0.8)
    assert times_of(tmp_path / "out.mp4") == [Fraction(i, 25) for i in range(20)]
    report = edit_file(FakeEditor(), source, tmp_path / "out.mp4", "negative", stop=lambda: True)
    assert report.stopped_early
    assert len(times_of(tmp_path / "out.mp4")) == 5
    assert abs(sound_of(tmp_path / "out.mp4")[1] - 0.2) < 0.05


def test_a_prompt_that_is_never_reached_is_told(tmp_path):
    source = write_clip(tmp_path / "in.mp4", frames=10)
    with pytest.warns(UserWarning, match="the prompt at 7 s was never reached"):
        report = edit_file(FakeEditor(), source, tmp_path / "out.mp4", "a", prompts=[(7, "d"), (0.15, "c"), (0.1, "b")])
    assert [change.prompt for change in report.prompts] == ["a", "c"]  # "b" was overtaken, which is as it should be


def test_guidance_reaches_the_session(tmp_path, monkeypatch, capsys):
    """From Python and from the command line; it is named only where it is asked for."""
    asked = []

    class Noting(FakeEditor):
        def session(self, prompt, **options):
            asked.append(options)
            return super().session(prompt)

    source, out = write_clip(tmp_path / "in.mp4", frames=5), tmp_path / "out.mp4"
    edit_file(Noting(), source, out, "a")
    edit_file(Noting(), source, out, "a", guidance=3.0, negative_prompt="dull")
    monkeypatch.setattr("sana_streaming.stream.editor.Editor.load", lambda model, device: Noting())
    command = ["edit", str(source), str(out), "--prompt", "a", "--guidance"]
    assert cli.main([*command, "2.5", "--negative-prompt", "grey"]) == 0
    assert asked == [
        {"seed": 0, "steps": None},
        {"seed": 0, "steps": None, "guidance": 3.0, "negative_prompt": "dull"},
        {"seed": 0, "steps": None, "guidance": 2.5, "negative_prompt": "grey"},
    ]
    for wrong in ("0.5", "nan", "much"):
        assert cli.main([*command, wrong]) == 2
        assert f"expected a number of 1 or more, got '{wrong}'" in capsys.readouterr().err


def test_a_truncated_source_ends_normally(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(50)]
    source = write_clip(tmp_path / "in.mkv", noise, tone=2.0)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with pytest.warns(UserWarning, match=r"in\.mkv") as seen:
        report = edit_file(FakeEditor(), source, tmp_path / "out.mp4", "negative")
    assert len(seen) == 1
    assert len(times_of(tmp_path / "out.mp4")) == report.frames > 15


def test_bad_input_leaves_nothing(tmp_path):
    source = write_clip(tmp_path / "in.mp4", frames=2)
    for output, prompt, options in [
        ("in.mp4", "negative", {}),
        ("out.mp4", " ", {}),
        ("out.mp4", "negative", {"size": 8}),
        ("out.mp4", "negative", {"start": 50}),
        ("out.mp4", "negative", {"start": -1}),
        ("out.mp4", "negative", {"start": float("nan")}),
        ("out.mp4", "negative", {"duration": 0}),
        ("out.mp4", "negative", {"fit": "stretch"}),
        ("out.mp4", "negative", {"rate": 0}),
        ("out.mp4", "negative", {"rate": float("nan")}),
        ("out.mp4", "negative", {"rate": float("inf")}),
        ("out.mp4", "negative", {"rate": "model"}),
        ("out.mp4", "negative", {"duration": float("inf")}),
        ("out.mp4", "negative", {"prompts": [(-1, "late")]}),
        ("out.mp4", "negative", {"prompts": [(float("nan"), "late")]}),
        ("out.mp4", None, {}),
        ("out.gif", "negative", {}),
        ("out.mp4", "negative", {"prompts": [(0.0, "")]}),
    ]:
        with pytest.raises(ValueError, match=r"expected|must be|cannot"):
            edit_file(FakeEditor(), source, tmp_path / output, prompt, **options)
        assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_files_can_be_checked_before_a_model_is_loaded(tmp_path):
    source = write_clip(tmp_path / "in.mp4", frames=2)
    check_files(source, tmp_path / "out.mp4")
    with pytest.raises(VideoError):
        check_files(source, source)
    with pytest.raises(VideoError):
        check_files(tmp_path / "none.mp4", tmp_path / "out.mp4")
    with pytest.raises(VideoError):
        check_files(source, tmp_path / "out.mp4", start=9)

import weakref
from fractions import Fraction

import numpy as np
import pytest
import torch

from sana_streaming import cli
from sana_streaming.io import Frame, VideoError, VideoInfo
from sana_streaming.io.file_reader import FileReader
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
    stride = 16
    device = torch.device("cpu")

    def session(self, prompt, *, seed=0, steps=None):
        if not prompt.strip():
            raise ValueError("expected a prompt, got none")
        self.last = FakeSession(prompt)
        return self.last


class FakeReader:
    def __init__(self, count, size=(6, 4)):
        self.count, self.closed, self.born, self.alive, self.most = count, False, 0, 0, 0
        self.info = VideoInfo(*size, Fraction(25), Fraction(1, 25), frames=count)

    def frames(self, size=None):
        for i in range(self.count):
            rgb = np.full((self.info.height, self.info.width, 3), i % 256, np.uint8)
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(rgb, self._died)
            yield Frame(rgb, Fraction(i, 25))

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


def ticking():
    now = iter(range(10_000))
    return lambda: float(next(now))


def test_every_frame_is_edited_and_keeps_its_time():
    session, writer = FakeSession(), FakeWriter()
    report = run(FakeReader(20), session, writer, stride=16)
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
    run(FakeReader(5, size=(17, 15)), session, FakeWriter(), stride=16)
    assert session.seen.shape == (5, 16, 32, 3)
    assert session.seen[3].unique().tolist() == [3]


def test_compare_shows_source_and_edited():
    writer = FakeWriter()
    run(FakeReader(3), FakeSession(), writer, compare=True)
    assert writer.shape == (4, 12, 3)
    assert writer.sums == [0, 1, 2]  # the source is on the left


def test_a_prompt_takes_effect_at_the_first_chunk_that_begins_at_its_time_or_later():
    session = FakeSession("a")
    changes = [(0.6, "d"), (0.1, "b"), (0.2, "c"), (99.0, "never")]
    report = run(FakeReader(40), session, FakeWriter(), prompts=changes)
    assert session.prompts == ["a", "c", "d"]  # chunks begin at 0, 0.20, 0.52, 0.84 s; "b" was overtaken
    assert report.prompts == (PromptChange("c", 0.2, 1, 5), PromptChange("d", 0.6, 3, 21))


def test_a_stop_finishes_the_chunk_and_keeps_it():
    writer, asked = FakeWriter(), []
    report = run(FakeReader(100), FakeSession(), writer, stop=lambda: bool(asked.append(1)) or len(asked) == 2)
    assert (report.frames, report.chunks, report.stopped_early) == (13, 2, True)
    assert (len(writer.pts), writer.end) == (13, "cut")


def test_an_error_aborts_the_writer():
    for writer, session in [(FakeWriter(fail_at=7), FakeSession()), (FakeWriter(), FakeEditor())]:
        with pytest.raises((VideoError, AttributeError)):
            run(FakeReader(20), session, writer)
        assert writer.end == "aborted"


def test_an_interrupt_aborts_the_writer():
    writer = FakeWriter()

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(FakeReader(20), FakeSession(), writer, on_progress=interrupt)
    assert writer.end == "aborted"


def test_progress_and_times_are_told():
    told = []
    report = run(FakeReader(20), FakeSession(), FakeWriter(), on_progress=lambda *n: told.append(n), clock=ticking())
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
    report = run(
        FakeReader(count), LateSession(), writer, stride=16, compare=True, on_progress=lambda *n: told.append(n)
    )
    assert writer.pts == [Fraction(i, 25) for i in range(count)]
    assert writer.sums == list(range(count))
    assert writer.edited == [255 - i for i in range(count)]
    assert (report.frames, writer.shape, writer.end) == (count, (4, 12, 3), "whole")
    assert told[-1] == (count, count)


def test_frames_are_done_when_they_are_written():
    told = []
    run(FakeReader(20), LateSession(), FakeWriter(), on_progress=lambda *n: told.append(n))
    assert told == [(7, 20), (15, 20), (20, 20)]  # five were read at first, and none of them was done


def test_a_prompt_counts_the_frames_that_were_read():
    report = run(FakeReader(20), LateSession(), FakeWriter(), prompts=[(0.2, "b")])
    assert report.prompts == (PromptChange("b", 0.2, 1, 5),)


def test_a_stop_keeps_what_comes_late():
    writer = FakeWriter()
    report = run(FakeReader(100), LateSession(), writer, stop=lambda: True)
    assert (report.frames, len(writer.pts), writer.end) == (5, 5, "cut")


def test_waiting_for_late_frames_is_editing():
    report = run(FakeReader(20), LateSession(), FakeWriter(), clock=ticking())
    assert (report.read_seconds, report.edit_seconds, report.write_seconds) == (4, 4, 5)


def test_memory_does_not_grow_with_length():
    most = []
    for count in (40, 400):
        reader = FakeReader(count)
        run(reader, FakeSession(), FakeWriter())
        most.append(reader.most)
    assert most[0] == most[1] <= 2 * 8 + 2
    late = []
    for count in (40, 400):
        reader = FakeReader(count)
        run(reader, LateSession(), FakeWriter())
        late.append(reader.most)
    assert late[0] == late[1] <= most[0] + 6


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

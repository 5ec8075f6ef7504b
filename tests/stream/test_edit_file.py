"""Files: sizes, sound, parts of them, and input that cannot be."""

import math
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from sana_streaming import cli
from sana_streaming.config import nano, two_b
from sana_streaming.io import VideoError
from sana_streaming.io.file_reader import FileReader
from sana_streaming.stream.run import PromptChange, edit_file, open_source

from ..clips import sound_of, times_of, write_clip
from .fakes import FakeEditor, LateSession


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


def test_a_source_can_be_opened_before_a_model_is_loaded(tmp_path):
    source = write_clip(tmp_path / "in.mp4", frames=2)
    with pytest.raises(VideoError):
        open_source(source, source)
    with pytest.raises(VideoError):
        open_source(tmp_path / "none.mp4", tmp_path / "out.mp4")
    with pytest.raises(VideoError):
        open_source(source, tmp_path / "out.mp4", start=9)
    with open_source(source, tmp_path / "out.mp4") as reader:
        report = edit_file(SameEditor(), reader, tmp_path / "out.mp4", "nothing", size=48)
    assert report.frames == len(times_of(tmp_path / "out.mp4")) == 2

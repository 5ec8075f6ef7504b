"""`sana-streaming replay`: the frames of a recording again, and whether they are the same."""

from fractions import Fraction

import av
import pytest
import torch

from sana_streaming import cli
from sana_streaming.server.recorder import Recorder
from sana_streaming.stream.editor import pick_dtype
from sana_streaming.stream.log import describe, header_of

from .stream.tiny import tiny_editor

SIZE = (16, 24)


class FakeEditor:
    """Loads the tiny one, and says what was asked for."""

    @classmethod
    def load(cls, model, device=None):
        if model not in ("tiny", "other"):
            raise ValueError(f"unknown model '{model}'")
        editor = tiny_editor()
        if model == "other":
            next(editor.dit.parameters()).add_(0.5)
        return editor


@pytest.fixture
def monday(tmp_path):
    """The folder of a recording of 9 frames."""
    torch.manual_seed(1)
    editor = tiny_editor()
    session, begin = editor.session("a"), 0
    recorder = Recorder(tmp_path / "monday", header_of(editor))
    for index in range(4):
        frames = torch.randint(0, 256, (session.chunk_frames, *SIZE, 3), dtype=torch.uint8)
        numbers = tuple(range(begin, begin := begin + len(frames)))
        pts = tuple(Fraction(n, 16) for n in numbers)
        record = describe(session, frames=numbers, pts=pts, size=SIZE[::-1], prompt="a", seed=0)
        recorder.chunk(index, frames, session.step(frames), record)
    assert recorder.close().frames == 9
    return tmp_path / "monday"


@pytest.fixture
def replay(monkeypatch, capsys):
    """Run it; exit code, last line of stdout, stderr."""
    monkeypatch.setattr("sana_streaming.stream.editor.Editor", FakeEditor)

    def run(*arguments):
        code = cli.main(["replay", *map(str, arguments)])
        told = capsys.readouterr()
        return code, told.out.strip(), told.err.strip()

    return run


def seconds_left_out(line):
    return " in ".join((line.split(" in ")[0], line.split(", ", 1)[1]))


def test_a_recording_is_checked(replay, monday):
    for path in (monday, monday / "session.jsonl"):
        code, line, errors = replay(path)
        assert (code, errors) == (0, "")
        assert seconds_left_out(line) == "monday: 9 frames in bit-identical to the recording"
    assert sorted(path.name for path in monday.iterdir()) == ["edited.mp4", "session.jsonl", "source.mkv"]


@pytest.mark.parametrize(("options", "width"), [((), 24), (("--compare",), 48)])
def test_a_recording_is_written_anew(replay, monday, tmp_path, options, width):
    code, line, _ = replay(monday, "-o", tmp_path / "again.mp4", *options)
    assert code == 0
    assert "again.mp4: 9 frames in" in line
    assert line.endswith("bit-identical to the recording")
    with av.open(str(tmp_path / "again.mp4")) as file:
        frames = list(file.decode(video=0))
    assert [round(float(frame.time) * 16, 3) for frame in frames] == list(range(9))
    assert (frames[0].width, frames[0].height) == (width, 16)


def test_what_differs_is_told(replay, monday):
    code, line, _ = replay(monday, "--steps", 3)
    assert code == 0
    assert line.endswith("not bit-identical to the recording: 3 steps")
    code, line, _ = replay(monday, "--model", "other")
    assert code == 0
    assert "not bit-identical to the recording: weights " in line
    log = (monday / "session.jsonl").read_text().splitlines(keepends=True)
    digest = log[3].partition('"digest": "')[2][:16]
    (monday / "session.jsonl").write_text("".join([*log[:3], log[3].replace(digest, "0" * 16), *log[4:]]))
    assert replay(monday)[1].endswith("not bit-identical to the recording from chunk 2 on: nobody knows why")


def test_another_model_in_another_precision(monday, capsys):
    usual = pick_dtype(torch.device("cpu"))
    precision = "float32" if usual == torch.bfloat16 else "bfloat16"
    output = monday / "again.mp4"
    asked = ["--model", "nano", "--precision", precision, "--device", "cpu"]
    assert cli.main(["replay", str(monday), "-o", str(output), *asked]) == 0
    told = capsys.readouterr().out
    assert ": model nano, recorded with tiny" in told
    assert ("dtype bfloat16, recorded with float32" in told) == (precision == "bfloat16")
    with av.open(str(output)) as file:
        assert len(list(file.decode(video=0))) == 9


def test_a_recording_without_its_end_is_replayed_up_to_there(replay, monday):
    log = (monday / "session.jsonl").read_bytes()
    (monday / "session.jsonl").write_bytes(log[: log.index(b'"number": 3') + 40])
    code, line, errors = replay(monday)
    assert (code, errors) == (0, "warning: session.jsonl was cut off after 3 chunks; it ends there")
    assert seconds_left_out(line) == "monday: 7 frames in bit-identical to the recording"


def test_what_cannot_be_replayed_is_told_in_one_line(replay, monday, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "session.jsonl").write_text((monday / "session.jsonl").read_text().splitlines(True)[0])
    for arguments, expected in [
        ((tmp_path / "none",), "error: cannot read none: No such file or directory"),
        ((tmp_path,), "error: cannot read session.jsonl"),
        ((tmp_path / "empty",), "error: cannot replay session.jsonl: expected at least one chunk"),
        ((monday, "--compare"), "error: --compare: expected -o OUT as well"),
        ((monday, "--steps", 0), "error: --steps: expected a whole number of at least 1, got 0"),
        ((monday, "-o", tmp_path / "a.gif"), "error: cannot write a.gif"),
        ((monday, "--model", "nobody"), "error: unknown model 'nobody'"),
    ]:
        code, out, errors = replay(*arguments)
        assert (code, out) == (2, "")
        assert errors.splitlines()[-1].startswith(expected)
    assert not (tmp_path / "a.mp4").exists()

"""The command line, and `edit` on it."""

import json
import os
import signal
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import torch

from sana_streaming import __version__, cli
from sana_streaming.config import TaughtEdit, nano, to_dict, two_b

from .clips import times_of, write_clip


class FakeSession:
    chunk_frames = 8

    def __init__(self, prompt):
        self.prompts = [prompt]

    def set_prompt(self, prompt):
        self.prompts.append(prompt)

    def step(self, frames):
        return 255 - frames


class FakeEditor:
    config = nano()
    stride = 16
    device = torch.device("cpu")
    made = None

    @classmethod
    def load(cls, model="nano", device=None):
        if model != "nano":
            raise ValueError(f"unknown model {model!r}; known models are ['nano']")
        return cls()

    def session(self, prompt, *, seed=0, steps=None):
        if len(prompt) > 40:
            warnings.warn("the prompt is cut after 40 characters", stacklevel=2)
        self.asked = {"seed": seed, "steps": steps}
        self.last = FakeSession(prompt)
        FakeEditor.made = self
        return self.last


@pytest.fixture
def edit(monkeypatch, tmp_path, capsys):
    """Run `edit` in a folder with a clip of 1.6 s; exit code, stdout and lines of stderr."""
    monkeypatch.setattr("sana_streaming.stream.editor.Editor", FakeEditor)
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "in.mp4", frames=40, tone=1.6)

    def run(*words):
        code = cli.main(["edit", *words])
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return run


def test_edit(edit, tmp_path):
    code, out, err = edit("in.mp4", "out.mp4", "--prompt", "turn 1=2 around", "--seed", "3", "--steps", "2")
    assert (code, err) == (0, [])
    assert out.startswith("out.mp4: 40 frames in ")
    assert FakeEditor.made.last.prompts == ["turn 1=2 around"]
    assert FakeEditor.made.asked == {"seed": 3, "steps": 2}
    assert len(times_of(tmp_path / "out.mp4")) == 40


def test_prompts_over_time(edit):
    code, _, err = edit("in.mp4", "out.mp4", "--prompt", "0.9=snow=ice", "--prompt", "rain", "--prompt", "0.3=fog")
    assert (code, err) == (0, [])
    assert FakeEditor.made.last.prompts == ["rain", "fog", "snow=ice"]


def test_options_reach_the_result(edit, tmp_path):
    options = "--size 32 --keep-size --compare --start 0.4 --duration 0.4 --device cpu --model nano"
    code, _, _ = edit("in.mp4", "out.mkv", "--prompt", "x", *options.split())
    assert code == 0
    assert len(times_of(tmp_path / "out.mkv")) == 10


@pytest.mark.parametrize(
    ("words", "told", "done"),
    [
        ("--rate source", [], "out.mp4: 40 frames in "),
        ("--rate 12.5", ["64x48 is edited at 64x48, at up to 12.5 of its 25 frames per second"], "(20 edited) in "),
        ("--size 40", ["64x48 is edited at 54x40, letterboxed to 64x48 (the bars are cut off again)"], "40 frames in "),
        (
            "--size 40 --fit crop",
            ["64x48 is edited at 48x32, cropped from 48x36 (11.1 % of the picture is lost)"],
            "40 frames in ",
        ),
        ("--fit letterbox", [], "40 frames in "),
    ],
)
def test_what_becomes_of_the_source_is_told(edit, tmp_path, words, told, done):
    code, out, err = edit("in.mp4", "out.mp4", "--prompt", "x", *words.split())
    assert (code, err) == (0, told)
    assert done in out
    assert ("edited frames per second" in out) == ("edited)" in out)
    assert times_of(tmp_path / "out.mp4") == times_of(tmp_path / "in.mp4")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["in.mp4", "out.mp4"], "--prompt"),
        (["in.mp4"], "OUT"),
        (["--list-edits", "--model", "nono"], "unknown model 'nono'"),
        (["in.mp4", "out.mp4", "--prompt", " "], "expected an instruction"),
        (["in.mp4", "out.mp4", "--prompt", "3="], "expected an instruction"),
        (["in.mp4", "out.mp4", "--prompt", "3=late"], "begins at 0 seconds"),
        (["in.mp4", "out.mp4", "--prompt=-1=early"], "0 seconds or more"),
        (["in.mp4", "out.mp4", "--prompt", "a", "--prompt", "0=b"], "one prompt at a time"),
        (["in.mp4", "out.mp4", "--prompt", "a", "--size", "-5"], "--size"),
        (["in.mp4", "out.mp4", "--prompt", "a", "--size", "many"], "whole number of at least 32, got 'many'"),
        (["in.mp4", "out.mp4", "--prompt", "a", "--fit", "stretch"], "--fit"),
        (
            ["in.mp4", "out.mp4", "--prompt", "a", "--rate", "0.5"],
            "1 or more frames per second, or 'source', got '0.5'",
        ),
        (["in.mp4", "out.mp4", "--prompt", "a", "--rate", "model"], "1 or more frames per second, or 'source'"),
        (["in.mp4", "out.mp4", "--prompt", "a", "--steps", "0"], "--steps"),
        (["in.mp4", "out.mp4", "--prompt", "a", "--seed", "-1"], "--seed"),
        (["in.mp4", "out.mp4", "--prompt", "a", "--seed", str(2**64)], "whole number from 0 to 18446744073709551615"),
        (["in.mp4", "out.mp4", "--prompt", "a", "--start", "-1"], "--start"),
        (["in.mp4", "out.mp4", "--prompt", "a", "--start", "nan"], "--start"),
        (["in.mp4", "out.mp4", "--prompt", "a", "--start", "9"], "before its end"),
        (["in.mp4", "out.mp4", "--prompt", "a", "--start", "1e300"], "before its end"),
        (["in.mp4", "out.mp4", "--prompt", "a", "--start", "1.59"], "before its last frame"),
        (["in.mp4", "out.mp4", "--prompt", "a", "--duration", "0"], "--duration"),
        (["in.mp4", "out.mp4", "--prompt", "a", "--duration", "-1"], "above 0, got '-1'"),
        (["in.mp4", "out.mp4", "--prompt", "a", "--model", "nono"], "unknown model 'nono'"),
        (["in.mp4", "out.mp4", "--prompt", "a", "--colour"], "--colour"),
        (["in.mp4", "in.mp4", "--prompt", "a"], "it is the video that is read"),
        (["in.mp4", "none/out.mp4", "--prompt", "a"], "there is no folder"),
        (["in.mp4", ".", "--prompt", "a"], "got a folder"),
        (["in.mp4", "a" * 300 + ".mp4", "--prompt", "a"], "too long"),
        (["a" * 300 + ".mp4", "out.mp4", "--prompt", "a"], "too long"),
        (["in.mp4", "out.mp4", "--prompt", "a", "--size", "13000"], "at most 16384 pixels, got 17334x13000"),
        (["in.mp4", "out.gif", "--prompt", "a"], "ends in one of"),
        (["none.mp4", "out.mp4", "--prompt", "a"], "no such file"),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_leaves_nothing(edit, tmp_path, words, expected):
    code, out, err = edit(*words)
    assert (code, out) == (2, "")
    assert len(err) == 1
    assert err[0].startswith("error: ")
    assert expected in err[0]
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def model_folder(path, config):
    """A model as `--list-edits` reads it: without weights."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(to_dict(config)))


TAUGHT = {
    "car_in_snow": TaughtEdit("both", "remove the car and make it snow"),
    "add": TaughtEdit("object", "add a ball", choices=tuple(f"toy number {i}" for i in range(9))),
    "zoom": TaughtEdit("camera", "zoom in"),
    "sepia": TaughtEdit("look", "give the video a sepia tone"),
    "rain": TaughtEdit("weather", "make it rain"),
    "beach": TaughtEdit("background", "put them on a beach"),
    "neon": TaughtEdit("look", "trace the scene in glowing neon lines", strong=True),
}


@pytest.mark.parametrize("words", ["--list-edits --model m", "in.mp4 --model m --list-edits", "--list-edits --model=m"])
def test_list_of_edits(edit, tmp_path, monkeypatch, words):
    """By kind in one order, by name as they were taught; what this version does not know comes last."""
    model_folder(tmp_path / "m", replace(nano(), edits=TAUGHT))
    monkeypatch.setenv("COLUMNS", "60")
    code, out, err = edit(*words.split())
    assert (code, err) == (0, [])
    assert out.splitlines() == [
        "whole-frame looks",
        "  sepia        give the video a sepia tone",
        "  neon         trace the scene in glowing neon lines",
        "",
        "weather",
        "  rain         make it rain",
        "",
        "objects",
        "  add          add a ball",
        "               toy number 0, toy number 1, toy number 2, toy",
        "               number 3, toy number 4, toy number 5, toy",
        "               number 6, toy number 7, toy number 8",
        "",
        "backgrounds",
        "  beach        put them on a beach",
        "",
        "two at once",
        "  car_in_snow  remove the car and make it snow",
        "",
        "camera",
        "  zoom         zoom in",
    ]


def test_list_of_edits_of_a_model_without(edit, tmp_path):
    model_folder(tmp_path / "m", two_b())
    code, out, err = edit("--list-edits", "--model", "m")
    assert (code, err) == (0, [])
    assert out == "2b: no list of edits comes with this model; any instruction may be tried\n"


def test_list_of_edits_of_the_model_in_the_package(edit):
    code, out, _ = edit("--list-edits")
    assert code == 0
    assert "\n  watercolor " in out


def test_list_of_edits_may_be_read_in_part():
    reader, writer = os.pipe()
    os.close(reader)  # as `head` does when it has seen enough
    command = [sys.executable, "-m", "sana_streaming", "edit", "--list-edits"]
    with os.fdopen(writer, "w") as pipe:
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_warnings_are_one_line(edit):
    code, _, err = edit("in.mp4", "out.mp4", "--prompt", "a" * 50)
    assert code == 0
    assert err == ["warning: the prompt is cut after 40 characters"]


def test_a_signal_finishes_the_chunk(edit, tmp_path, monkeypatch):
    def step(self, frames):
        os.kill(os.getpid(), signal.SIGINT)
        return frames

    monkeypatch.setattr(FakeSession, "step", step)
    before = signal.getsignal(signal.SIGINT)
    code, out, _ = edit("in.mp4", "out.mp4", "--prompt", "a")
    assert code == 130
    assert out.startswith("stopped early: out.mp4: 8 of 40 frames in ")
    assert len(times_of(tmp_path / "out.mp4")) == 8
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_signal_aborts_and_leaves_nothing(edit, tmp_path, monkeypatch):
    def step(self, frames):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        return frames

    monkeypatch.setattr(FakeSession, "step", step)
    code, out, err = edit("in.mp4", "out.mp4", "--prompt", "a")
    assert (code, out) == (130, "")
    assert err[-1] == "interrupted: nothing was kept"
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("kind", [MemoryError, FloatingPointError])
def test_a_chunk_that_fails_is_one_line_and_leaves_nothing(edit, tmp_path, monkeypatch, kind):
    def step(self, frames):
        raise kind("chunk 0: what was needed, and what to try")

    monkeypatch.setattr(FakeSession, "step", step)
    code, out, err = edit("in.mp4", "out.mp4", "--prompt", "a")
    assert (code, out, err) == (1, "", ["error: chunk 0: what was needed, and what to try"])
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_an_interrupt_while_libraries_load_is_one_line(edit, monkeypatch):
    """A compiled module that is interrupted while it is imported makes an ImportError of it."""

    def load(model, device):
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr(FakeEditor, "load", load)
    assert edit("in.mp4", "out.mp4", "--prompt", "a") == (130, "", ["interrupted: nothing was kept"])


def test_a_closed_stderr(edit, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stderr", None)
    assert edit("in.mp4", "out.mp4", "--prompt", "a")[0] == 0
    assert (tmp_path / "out.mp4").exists()


def test_one_frame_is_not_frames(edit):
    assert edit("in.mp4", "out.mp4", "--prompt", "a", "--duration", "0.01")[1].startswith("out.mp4: 1 frame in ")


def test_progress_lines_come_every_few_seconds(capsys):
    now = iter([0.0, 1.0, 6.0, 7.0, 12.0])
    with cli.progress(clock=lambda: next(now)) as show:
        for done, total in [(10, 100), (60, 100), (70, 100), (90, None)]:
            show(done, total)
    assert capsys.readouterr().err.splitlines() == [
        "60/100 frames, 10.0 frames per second, 4 s left",
        "90/? frames, 7.5 frames per second",
    ]


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with cli.progress() as show:
        show(50, 100)
    assert "50/100" in capsys.readouterr().err


def test_version_and_help(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip().endswith(__version__)
    assert cli.main(["edit", "--help"]) == 0
    assert "--keep-size" in capsys.readouterr().out
    assert cli.main([]) == 2
    assert cli.main(["paint"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_help_does_not_load_heavy_libraries():
    code = (
        "import sys; from sana_streaming.cli import main; main(['edit', '--help']); "
        "sys.exit(bool({'torch', 'av', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


def test_how_threads_wait_is_settled_before_torch_is_loaded():
    code = (
        "import os, sys; from sana_streaming.cli import main; main(['--version']); "
        "print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    )
    clean = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[1:] == [f"{cli.SPINS} False"]


@pytest.mark.parametrize("chosen", [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}], ids=str)
def test_how_threads_wait_is_the_users_to_choose(chosen):
    environment = dict(chosen)
    cli.wait_briefly(environment)
    assert environment == chosen


def test_a_live_process_stops_at_sigint(tmp_path):
    """The whole road in a process of its own: the signal comes from outside, between chunks or within one."""
    write_clip(tmp_path / "in.mp4", frames=200)
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, time, torch\n"
        "from sana_streaming import cli\n"
        "from sana_streaming.config import nano\n"
        "from sana_streaming.stream import editor\n"
        "class Session:\n"
        "    chunk_frames = 8\n"
        "    def step(self, frames):\n"
        "        print('chunk', flush=True)\n"
        "        time.sleep(0.1)\n"
        "        return frames\n"
        "class Editor:\n"
        "    config, stride, device = nano(), 16, torch.device('cpu')\n"
        "    load = classmethod(lambda cls, model, device=None: cls())\n"
        "    session = lambda self, prompt, seed=0, steps=None: Session()\n"
        "editor.Editor = Editor\n"
        "sys.exit(cli.main(['edit', 'in.mp4', 'out.mp4', '--prompt', 'a']))\n"
    )
    with subprocess.Popen(
        [sys.executable, str(program)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "chunk\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "stopped early: out.mp4: " in out
    assert 8 <= len(times_of(tmp_path / "out.mp4")) < 200
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "program.py"]

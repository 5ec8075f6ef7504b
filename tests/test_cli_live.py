"""`sana-streaming edit` of a source that goes on by itself."""

from fractions import Fraction

import numpy as np
import pytest

from sana_streaming import cli
from sana_streaming.io import Frame, VideoInfo
from sana_streaming.io.readers import READERS

from .clips import times_of
from .stream.tiny import tiny_editor


class Camera:
    """Opened once: another one would find the device in use."""

    opened = closed = 0

    def __init__(self, rest, start=0.0, duration=None):
        assert Camera.opened == Camera.closed
        Camera.opened += 1
        self.info = VideoInfo(width=48, height=32, rate=Fraction(25), time_base=Fraction(1, 90_000))

    def frames(self, size=None):
        width, height = size or (48, 32)
        for i in range(9):
            yield Frame(np.full((height, width, 3), 20 * i, np.uint8), Fraction(i, 25))

    def soundtrack(self):
        return None

    def close(self):
        Camera.closed = Camera.opened


class Editor:
    @staticmethod
    def load(model, device=None):
        assert Camera.opened == 1  # what is wrong with a camera is known before
        return tiny_editor()


@pytest.fixture
def camera(monkeypatch):
    monkeypatch.setattr(Camera, "opened", 0)
    monkeypatch.setattr(Camera, "closed", 0)
    monkeypatch.setitem(READERS, "camera", Camera)
    monkeypatch.setattr("sana_streaming.stream.editor.Editor", Editor)


def test_a_camera_is_opened_once(camera, tmp_path, capsys):
    out = tmp_path / "out.mp4"
    assert cli.main(["edit", "camera:0", str(out), "--prompt", "a", "--size", "32"]) == 0
    assert (Camera.opened, Camera.closed) == (1, 1)
    assert len(times_of(out)) == 9


def test_it_is_closed_when_the_model_is_unknown(camera, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(Editor, "load", lambda *_, **__: (_ for _ in ()).throw(ValueError("unknown model")))
    assert cli.main(["edit", "camera:0", str(tmp_path / "out.mp4"), "--prompt", "a"]) == cli.BAD_INPUT
    assert (Camera.opened, Camera.closed) == (1, 1)

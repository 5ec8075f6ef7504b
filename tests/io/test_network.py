"""A camera on the network: the library itself listens, and a process sends to it."""

import socket
import subprocess
import sys
import warnings
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from sana_streaming import cli
from sana_streaming.config import nano
from sana_streaming.io import VideoError, network
from sana_streaming.io.readers import open_reader

LISTEN = {"rtsp_flags": "listen", "listen_timeout": "30", "fflags": "nobuffer", "analyzeduration": "100000"}


@pytest.fixture
def address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"rtsp://127.0.0.1:{port}/live"


@pytest.fixture
def publish(address):
    """Processes that send so many pictures each, as soon as somebody listens."""
    running = []

    def start(count, hold=0.0):
        script = str(Path(__file__).with_name("publisher.py"))
        running.append(subprocess.Popen([sys.executable, script, address, str(count), str(hold)]))

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_frames_come_from_the_network(address, publish):
    publish(40)
    with open_reader(address, options=LISTEN, timeout=(30, 5), again=(), duration=0.4) as camera:
        assert (camera.info.width, camera.info.height, camera.info.frames) == (64, 48, None)
        frames = list(camera.frames())
    levels = [frame.rgb.mean() for frame in frames]
    assert frames[0].pts == 0
    assert len(frames) >= 2
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    for (a, low), (b, high) in pairwise(zip(frames, levels, strict=True)):
        assert high - low == pytest.approx(125 * float(b.pts - a.pts), abs=4)  # it becomes brighter by 5 every 1/25 s


def test_what_breaks_off_is_connected_to_again(address, publish):
    publish(20)
    publish(20)
    frames = []
    with open_reader(address, options=LISTEN, timeout=(30, 5), again=(0.0,)) as camera, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for frame in camera.frames():
            frames.append(frame)
            if begins_anew(frames):
                break
    assert camera.reconnects >= 1
    assert begins_anew(frames)
    assert all(a.pts < b.pts for a, b in pairwise(frames))


def begins_anew(frames):
    """Within a connection pictures only become brighter."""
    return any(b.rgb.mean() < a.rgb.mean() - 10 for a, b in pairwise(frames[-2:]))


def test_a_camera_that_falls_silent_ends_the_video(address, publish):
    publish(15, hold=30)
    told = r"^rtsp://127\.0\.0\.1:\d+/live: .*; the result ends there$"
    with (
        open_reader(address, options=LISTEN, timeout=(30, 0.5), again=()) as camera,
        pytest.warns(UserWarning, match=told),
    ):
        assert list(camera.frames())


class FakeSession:
    chunk_frames = 2

    def step(self, frames):
        return 255 - frames


class FakeEditor:
    config = nano()
    stride = 16

    def __init__(self):
        import torch

        self.device = torch.device("cpu")

    @classmethod
    def load(cls, model="nano", device=None):
        return cls()

    def session(self, prompt, **options):
        return FakeSession()


def test_a_network_camera_is_edited_into_a_file(address, publish, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sana_streaming.stream.editor.Editor", FakeEditor)
    monkeypatch.setattr(network, "OPTIONS", LISTEN)
    publish(60)  # is looked at before a model is loaded, and then called again
    output = tmp_path / "out.mp4"
    code = cli.main(["edit", address, str(output), "--prompt", "invert", "--duration", "0.4"])
    assert (code, capsys.readouterr().err.splitlines()[-1:]) == (0, [])
    with av.open(str(output)) as file:
        frames = list(file.decode(video=0))
    assert 1 <= len(frames) <= 11
    assert all(np.diff([frame.time for frame in frames]) > 0)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("rtsp://127.0.0.1:{port}/live", r"cannot read rtsp://127\.0\.0\.1:\d+/live: connection refused"),
        ("rtsp://me:secret@127.0.0.1:{port}/live?key=secret", "connection refused"),
        ("rtsp:///live", "expected rtsp://HOST/PATH, got no host"),
        ("rtsps://a:port/live", "bad address"),
    ],
)
def test_a_wrong_address_is_told_in_one_line_without_its_password(address, wrong, expected):
    with pytest.raises(VideoError, match=expected) as error:
        open_reader(wrong.format(port=address.split(":")[2].removesuffix("/live")))
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)

"""A camera of this machine. The library's own test pictures stand in for a device: only the name of the format is
another."""

import sys
import time
from itertools import pairwise
from types import SimpleNamespace

import av
import pytest

from sana_streaming.io import VideoError
from sana_streaming.io.camera import camera_reader, device_name
from sana_streaming.io.readers import open_reader, split_scheme


def test_frames_come_through_the_road_of_a_device():
    with open_reader("camera:testsrc=size=64x48:rate=50,realtime", format="lavfi", duration=0.2) as camera:
        info = camera.info
        frames = list(camera.frames((32, 24)))
    assert (info.width, info.height, info.rate, info.frames) == (64, 48, 50, None)
    assert frames[0].pts == 0
    assert 1 <= len(frames) <= 10
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    assert {frame.rgb.shape for frame in frames} == {(24, 32, 3)}
    assert frames[0].rgb.std() > 30


def test_a_camera_that_is_faster_than_its_reader_loses_frames_and_nothing_waits():
    with camera_reader("testsrc=size=64x48:rate=50", format="lavfi", newest=3) as camera:
        next(camera.frames())
        end = time.monotonic() + 60
        while not camera.dropped and time.monotonic() < end:  # nobody reads, and it goes on
            assert len(camera._pictures) <= 3
            time.sleep(0.01)
        assert camera.dropped > 0
        assert len(camera._pictures) <= 3
    assert not camera._thread.is_alive()


@pytest.mark.parametrize(
    ("platform", "device", "expected"),
    [
        ("linux", "0", ("/dev/video0", "v4l2", "input_format")),
        ("linux", "/dev/v4l/by-id/cam", ("/dev/v4l/by-id/cam", "v4l2", "input_format")),
        ("darwin", "1", ("1", "avfoundation", "pixel_format")),
        ("win32", "1", ("video=Second", "dshow", "vcodec")),
        ("win32", "Any Name", ("video=Any Name", "dshow", "vcodec")),
    ],
)
def test_every_platform_has_its_own_words(monkeypatch, platform, device, expected):
    asked = []

    def refuse(name, **options):
        asked.append((name, options["format"], options["options"]))
        raise av.error.OSError(5, "Input/output error")

    found = [("Microphone", ["audio"]), ("First", ["video"]), ("Second", ["video"])]
    listed = [SimpleNamespace(name=name, media_types=kinds) for name, kinds in found]
    monkeypatch.setattr(av, "enumerate_input_devices", lambda kind: listed)
    monkeypatch.setattr(av, "open", refuse)
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(VideoError, match="input/output error"):
        camera_reader(f"{device}?size=1280x720&rate=29.97&format=mjpeg")
    name, kind, encoding = expected
    assert asked == [(name, kind, {"video_size": "1280x720", "framerate": "29.97", encoding: "mjpeg"})]


def test_a_camera_that_is_not_there_is_told_in_one_line(monkeypatch):
    with pytest.raises(VideoError, match=r"^cannot read camera /dev/video977: no such file or directory$"):
        open_reader("camera:/dev/video977", format="v4l2")
    monkeypatch.setattr(av, "enumerate_input_devices", lambda kind: [])
    with pytest.raises(VideoError, match="expected a number below 0, the number of cameras here"):
        device_name("0", "dshow")
    with pytest.raises(VideoError, match=r"^cannot read camera 0: expected a number below 0, .* here$"):
        camera_reader("0", format="dshow")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("camera:", "expected camera:0 or camera:DEVICE, got no device"),
        ("camera:?size=1x1", "got no device"),
        ("camera:0?size=big", "expected size=WIDTHxHEIGHT, got 'big'"),
        ("camera:0?rate=0", "expected rate=frames per second, got '0'"),
        ("camera:0?format=", "expected format=a name such as mjpeg, got ''"),
        ("camera:0?zoom=2", r"expected size, rate, format behind '\?', got 'zoom'"),
        ("pigeon://coop", r"expected a file or one of \['camera', 'file', 'rtsp', 'rtsps'\], got 'pigeon'"),
    ],
)
def test_a_wrong_address_is_told_in_one_line(address, expected):
    with pytest.raises(VideoError, match=expected) as error:
        open_reader(address)
    assert "\n" not in str(error.value)


def test_schemes():
    assert split_scheme("camera:0") == split_scheme("camera://0") == ("camera", "0")
    assert split_scheme("camera:/dev/video0?rate=30") == ("camera", "/dev/video0?rate=30")
    assert split_scheme("my camera:0.mp4") == ("file", "my camera:0.mp4")
    assert split_scheme("rtsp://a/b?c=d") == ("rtsp", "a/b?c=d")

"""A camera of this machine: camera:0, or camera:/dev/video0?size=1280x720&rate=30&format=mjpeg."""

import re
import sys
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import av

from .frame import VideoError
from .live import LiveReader

# By platform: the video library's name of its cameras, and of the option for a camera's own encoding.
FORMATS = {"linux": ("v4l2", "input_format"), "darwin": ("avfoundation", "pixel_format"), "win32": ("dshow", "vcodec")}
VALUES = {
    "size": (r"[1-9]\d{1,4}x[1-9]\d{1,4}", "WIDTHxHEIGHT"),
    "rate": (r"[1-9]\d{0,2}(\.\d+)?", "frames per second"),
    "format": (r"\w+", "a name such as mjpeg"),
}


def camera_reader(address: str, *, format: str | None = None, **live: Any) -> LiveReader:  # noqa: A002
    """A live reader of DEVICE?size=..&rate=..&format=..; a number counts the cameras from 0. Size, rate and encoding
    are wishes: a camera gives the nearest it has, or says no. format: that of the video library, the platform's
    own if not given. live: see `LiveReader`."""
    kind, encoding = FORMATS.get(sys.platform, FORMATS["linux"])
    kind = format or kind
    device, _, wishes = address.partition("?")
    if not device:
        raise VideoError("cannot read camera: expected camera:0 or camera:DEVICE, got no device")
    names = {"size": "video_size", "rate": "framerate", "format": encoding}
    options = {names[name]: value for name, value in _wishes(device, wishes).items()}
    return LiveReader(f"camera {device}", partial(_open, device, kind, options), **live)


def _open(device: str, kind: str, options: dict[str, str]) -> Any:
    return av.open(device_name(device, kind), format=kind, options=options, timeout=(10.0, None))


def device_name(device: str, kind: str) -> str:
    """What the video library calls a camera."""
    if kind == "v4l2":
        return f"/dev/video{device}" if device.isdecimal() else device
    if kind == "dshow":
        return f"video={_listed(int(device), kind) if device.isdecimal() else device}"
    return device


def _listed(index: int, kind: str) -> str:
    cameras = [found for found in av.enumerate_input_devices(kind) if "video" in found.media_types]
    if index >= len(cameras):
        raise VideoError(f"expected a number below {len(cameras)}, the number of cameras here")
    return cameras[index].name


def _wishes(device: str, text: str) -> dict[str, str]:
    wishes = dict(parse_qsl(text, keep_blank_values=True))
    for name, value in wishes.items():
        if name not in VALUES:
            raise VideoError(f"cannot read camera {device}: expected {', '.join(VALUES)} behind '?', got '{name}'")
        pattern, meaning = VALUES[name]
        if not re.fullmatch(pattern, value):
            raise VideoError(f"cannot read camera {device}: expected {name}={meaning}, got '{value}'")
    return wishes

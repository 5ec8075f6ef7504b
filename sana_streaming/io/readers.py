"""Every reader by the scheme of its address. A new one is a new file and a line here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .camera import camera_reader
from .file_reader import FileReader
from .frame import Reader, VideoError
from .network import network_reader


def rtsp(rest: str, **options: Any) -> Reader:
    return network_reader(f"rtsp://{rest}", **options)


def rtsps(rest: str, **options: Any) -> Reader:
    return network_reader(f"rtsps://{rest}", **options)


READERS: dict[str, Callable[..., Reader]] = {
    "file": FileReader,
    "camera": camera_reader,
    "rtsp": rtsp,
    "rtsps": rtsps,
}


def open_reader(address: str | Path, **options: Any) -> Reader:
    """`clip.mp4` and `file://clip.mp4` are files, `camera:0` is a camera, and `scheme://...` picks another reader.
    VideoError if it is unknown."""
    scheme, rest = split_scheme(address)
    if scheme not in READERS:
        raise VideoError(f"cannot read {address}: expected a file or one of {sorted(READERS)}, got {scheme!r}")
    return READERS[scheme](rest, **options)


def split_scheme(address: str | Path) -> tuple[str, str]:
    if str(address).startswith("camera:"):
        return "camera", str(address).removeprefix("camera:").removeprefix("//")
    scheme, mark, rest = str(address).partition("://")
    return (scheme, rest) if mark else ("file", str(address))

"""Every writer by the scheme of its address. A new one is a new file and a line here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import file_writer
from .file_writer import FileWriter
from .frame import VideoError, Writer
from .readers import split_scheme

WRITERS: dict[str, Callable[..., Writer]] = {"file": FileWriter}


def open_writer(address: str | Path, **options: Any) -> Writer:
    """`clip.mp4` and `file://clip.mp4` are files; `scheme://...` picks another writer. VideoError if it is unknown."""
    scheme, rest = split_scheme(address)
    if scheme not in WRITERS:
        raise VideoError(f"cannot write {address}: expected a file or one of {sorted(WRITERS)}, got {scheme!r}")
    return WRITERS[scheme](rest, **options)


def check_output(address: str | Path, source: str | Path) -> None:
    """VideoError if `address` cannot become the result of editing `source`."""
    scheme, rest = split_scheme(address)
    if scheme not in WRITERS:
        raise VideoError(f"cannot write {address}: expected a file or one of {sorted(WRITERS)}, got {scheme!r}")
    if scheme == "file":
        file_writer.check_output(rest, split_scheme(source)[1])

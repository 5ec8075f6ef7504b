"""Pictures on disk and back, bit for bit: FFV1 in Matroska, which video programs open too."""

import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from .frame import VideoError

TICK = Fraction(1, 1000)  # seconds; Matroska keeps times in milliseconds
# Every picture but the last is on the disk, so that little is lost when the power goes.
WRITTEN_OFTEN = {"cluster_time_limit": "1", "flush_packets": "1"}
LARGE = 300_000  # pixels from which one thread is too slow for a camera


class LosslessWriter:
    """RGB pictures of one size (width, height). OSError or FFmpegError if the disk is full; close it all the same."""

    def __init__(self, path: Path, size: tuple[int, int], rate: Fraction):
        self._container = av.open(str(path), "w", format="matroska", options=WRITTEN_OFTEN)
        stream: Any = self._container.add_stream("ffv1", rate=rate, options={"level": "3", "slicecrc": "1"})
        stream.width, stream.height = size
        stream.pix_fmt = "bgr0"
        stream.codec_context.time_base = TICK
        stream.codec_context.thread_count = 1 if size[0] * size[1] < LARGE else 4
        self._stream, self._pts = stream, -1

    def write(self, rgb: np.ndarray, seconds: Fraction) -> None:
        """seconds: since the beginning; kept to the nearest tick that comes after the picture before."""
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(format="bgr0")
        self._pts = max(round(seconds / TICK), self._pts + 1)
        picture.pts, picture.time_base = self._pts, TICK
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        try:
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()


def read_lossless(path: Path) -> Iterator[np.ndarray]:
    """The pictures of such a file, uint8 [H, W, 3]; of one that was cut off, those that are whole, with a warning."""
    try:
        container = av.open(str(path))
    except (OSError, av.error.FFmpegError) as error:
        raise VideoError(f"cannot read {path.name}: {error.strerror}; it belongs to the recording") from error
    with container:
        try:
            for picture in container.decode(video=0):
                yield picture.to_ndarray(format="rgb24")
        except av.error.FFmpegError as error:
            warnings.warn(f"{path.name} cannot be read to its end ({error.strerror})", stacklevel=2)


def starts(path: Path) -> Fraction:
    """Seconds of the first picture of such a file."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return Fraction(stream.start_time or 0) * Fraction(stream.time_base or TICK)
    except (OSError, av.error.FFmpegError) as error:
        raise VideoError(f"cannot read {path.name}: {error.strerror}; it belongs to the recording") from error

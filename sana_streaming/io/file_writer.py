"""Write a video file: H.264 pictures at their own times, and the sound of the source."""

import os
import secrets
from collections import deque
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.reformatter import VideoReformatter

from .frame import Color, Frame, VideoError
from .picture import to_yuv
from .soundtrack import Soundtrack

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
# Without B-frames packets come in the order of their times, and a varying rate survives in every player.
ENCODER = {"crf": "18", "preset": "veryfast", "bf": "0"}
LONGEST_SIDE = 16384  # of what the encoder takes
LIBRARY_ERRORS = (OSError, av.error.FFmpegError)


class FileWriter:
    """A video file that gets its name only when it is whole. Until then it lies in the same folder under a hidden name.

    Frames keep their times to the nearest `time_base`. `size` (width, height) is what pictures are scaled to; None: as
    they come. An odd side grows by one pixel, since H.264 pictures for every player have even sides.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        rate: Fraction = Fraction(25),
        time_base: Fraction = Fraction(1, 90_000),
        color: Color | None = None,
        size: tuple[int, int] | None = None,
        sound: Soundtrack | None = None,
    ):
        self.path = check_output(path)
        if size is not None and max(size) > LONGEST_SIDE:
            raise VideoError(
                f"cannot write {self.path.name}: expected sides of at most {LONGEST_SIDE} pixels, "
                f"got {size[0]}x{size[1]}; choose a smaller size"
            )
        self._rate, self._base, self._color, self._size, self._sound = rate, time_base, color or Color(), size, sound
        self._scaler = VideoReformatter()
        self._stream: Any = None
        self._held: deque[Any] = deque()  # packets whose duration is not known yet
        self._durations: dict[int, int] = {}  # pts -> duration, of frames that the encoder still has
        self._pts: int | None = None  # of the last frame
        self._gap = max(1, round(1 / rate / time_base))  # between the last two frames
        self._last_duration: Fraction | None = None
        kind = FORMATS[self.path.suffix.lower()]
        self._part = self.path.with_name(f".{self.path.stem[:32]}.{secrets.token_hex(4)}.part{self.path.suffix}")
        try:
            self._part.touch()  # the library would find out at the first frame only
            options = {} if kind == "matroska" else {"movflags": "+faststart"}
            self._container = av.open(str(self._part), "w", format=kind, options=options)
        except LIBRARY_ERRORS as error:
            self._part.unlink(missing_ok=True)
            where = self.path.parent
            raise VideoError(f"cannot write {self.path}: {error.strerror}; is {where} a folder to write in?") from error

    def write(self, frame: Frame) -> None:
        pts = round(frame.pts / self._base)
        if self._stream is None:
            self._begin(frame)
        elif self._pts is not None:
            pts = max(pts, self._pts + 1)
            self._gap = self._durations[self._pts] = pts - self._pts
        self._pts, self._last_duration = pts, frame.duration
        picture = to_yuv(frame.rgb, self._shown(frame), self._color, self._scaler)
        picture.pts, picture.time_base = pts, self._base
        self._mux(self._stream.encode(picture))

    def close(self, keep_tail: bool = True) -> None:
        if self._stream is None or self._pts is None:
            raise VideoError(f"cannot write {self.path}: expected at least one frame, got none")
        duration = self._gap if self._last_duration is None else max(1, round(self._last_duration / self._base))
        self._durations[self._pts] = duration
        self._mux(self._stream.encode(None))
        if self._sound is not None:
            self._put(*self._sound.until(None if keep_tail else (self._pts + duration) * self._base))
            self._sound.close()
        try:
            self._container.close()
            os.replace(self._part, self.path)
        except LIBRARY_ERRORS as error:
            raise self._failure(error) from error

    def abort(self) -> None:
        if self._sound is not None:
            self._sound.close()
        try:
            self._container.close()
        except LIBRARY_ERRORS:
            pass  # the unfinished file is thrown away
        finally:
            self._part.unlink(missing_ok=True)

    def _shown(self, frame: Frame) -> tuple[int, int]:
        return self._size or (frame.rgb.shape[1], frame.rgb.shape[0])

    def _begin(self, frame: Frame) -> None:
        width, height = self._shown(frame)
        self._stream = self._container.add_stream("libx264", rate=self._rate, options=ENCODER)
        self._stream.width, self._stream.height, self._stream.pix_fmt = (
            width + width % 2,
            height + height % 2,
            "yuv420p",
        )
        context = self._stream.codec_context
        context.time_base = self._base
        context.colorspace, context.color_primaries, context.color_trc = (
            self._color.matrix,
            self._color.primaries,
            self._color.transfer,
        )
        context.color_range = 1  # limited, as is usual for video
        if self._sound is not None:
            self._sound.add_to(self._container)

    def _mux(self, packets: list[Any]) -> None:
        self._held.extend(packets)
        while self._held and self._held[0].pts in self._durations:
            packet = self._held.popleft()
            packet.duration = self._durations.pop(packet.pts)
            sound = () if self._sound is None else self._sound.until(packet.pts * self._base)
            self._put(*sound, packet)

    def _put(self, *packets: Any) -> None:
        try:
            for packet in packets:
                self._container.mux(packet)
        except LIBRARY_ERRORS as error:
            raise self._failure(error) from error

    def _failure(self, error: Any) -> VideoError:
        return VideoError(f"cannot write {self.path}: {error.strerror}; nothing was kept")


def check_output(path: str | Path, source: str | Path | None = None) -> Path:
    """The path of a result, made absolute. VideoError if it cannot become one, or if it is the file that is read."""
    path = Path(path).absolute()
    try:
        if path.is_dir():
            raise VideoError(f"cannot write {path}: expected a file name, got a folder")
        if path.suffix.lower() not in FORMATS:
            raise VideoError(f"cannot write {path.name}: expected a name that ends in one of {', '.join(FORMATS)}")
        if not path.parent.is_dir():
            raise VideoError(f"cannot write {path}: there is no folder {path.parent}; create it first")
        if source is not None and path.exists() and os.path.exists(source) and path.samefile(source):
            raise VideoError(f"cannot write {path}: it is the video that is read; choose another name")
    except OSError as error:
        raise VideoError(f"cannot write {path.name}: {error.strerror}") from error
    return path

"""Read a video file, frame by frame."""

import stat
import warnings
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from .frame import Frame, VideoError, VideoInfo, meant
from .picture import color_of, orientation, to_rgb
from .soundtrack import Soundtrack, audio_stream

TEXT_FORMATS = frozenset({"tty"})  # text files, which the video library would gladly draw
FINEST_TIME_BASE = Fraction(1, 1_000_000)
MISSING = Fraction(1, 2)  # seconds short of the promised end that count as a file cut off


class FileReader:
    """Frames of a video file, as shown: turned by its rotation, with square pixels, each at its own time.

    Reading begins at `start` seconds and ends `duration` seconds later. Without a start the times are those of the
    file; with one, the first frame at or after it has time 0. What is damaged or cut off is left out, with one warning;
    a file of which nothing can be read is a VideoError.
    """

    def __init__(self, path: str | Path, start: float = 0.0, duration: float | None = None):
        self.path = Path(path).absolute()
        self._start = meant(start)
        self._end = None if duration is None else self._start + meant(duration)
        self._warned = False
        self._container = _open(self.path)
        try:
            self._stream = _video_stream(self._container, self.path)
            self._audio = audio_stream(self._container)
            self._zero = max(Fraction(0), min(_start_time(s) for s in (self._stream, self._audio) if s is not None))
            self._rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or 25).limit_denominator(
                100_000
            )
            self._pictures = self._decode()
            first = next(self._pictures, None)
            if first is None:
                raise VideoError(self._nothing())
            self._first = first
            self._shift = first[0] if self._start else Fraction(0)
            self._color, self._orientation = color_of(first[1]), orientation(first[1])
            self.info = self._describe(first[1])
        except BaseException:
            self.close()
            raise

    def frames(self, size: tuple[int, int] | None = None) -> Iterator[Frame]:
        """The frames in order, once. `size` is (width, height) to scale each one to as it is read."""
        width, height = size or (self.info.width, self.info.height)
        stored = (height, width) if self._orientation.transpose else (width, height)
        scaler = VideoReformatter()

        def frame(end: Fraction) -> Frame:
            rgb = to_rgb(picture, *stored, self._color, scaler)
            return Frame(self._orientation.apply(rgb), time - self._shift, end - time)

        time, picture = self._first
        end = time + 1 / self._rate
        for following in self._pictures:
            end = following[0] + (following[0] - time)
            yield frame(following[0])
            time, picture = following
        if picture.duration:
            end = time + picture.duration * Fraction(picture.time_base or 0)
        if self._end is not None:
            end = min(end, self._end)
        yield frame(end)
        self._warn_if_short(end)

    def soundtrack(self) -> Soundtrack | None:
        """The sound that belongs to these frames, for a writer. None if there is none, or none of a known encoding."""
        if self._audio is None:
            if self._container.streams.audio:
                warnings.warn(f"{self.path.name}: its sound has an unknown encoding and is left out", stacklevel=2)
            return None
        end = None if self._end is None else self._zero + self._end
        return Soundtrack(self.path, self._zero + self._shift, end, cut=self._start > 0)

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> "FileReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decode(self) -> Iterator[tuple[Fraction, av.VideoFrame]]:
        """Pictures from start to end with their seconds since the file's beginning, which rise strictly."""
        self._stream.thread_type = "AUTO"
        base, last = Fraction(self._stream.time_base or 0), None
        if self._start:
            with suppress(av.error.FFmpegError, OverflowError):  # what cannot seek is read from its beginning
                self._container.seek(int((self._zero + self._start) / base), stream=self._stream)
        for picture in self._intact():
            pts = picture.pts if picture.pts is not None else picture.dts
            if pts is not None:
                time = pts * base - self._zero
            else:
                time = Fraction(0) if last is None else last + 1 / self._rate
            if last is not None and time <= last:
                continue
            last = time
            if self._end is not None and time >= self._end:
                return
            if time >= self._start:
                yield time, picture

    def _intact(self) -> Iterator[av.VideoFrame]:
        """All that can be decoded."""
        try:
            for packet in self._container.demux(self._stream):
                try:
                    yield from packet.decode()
                except av.error.InvalidDataError:
                    self._warn("a damaged part was left out")
        except av.error.FFmpegError as error:
            self._warn(f"cannot be read to its end ({error.strerror}); the result ends there too")

    def _describe(self, picture: av.VideoFrame) -> VideoInfo:
        width, height = picture.width, picture.height
        pixel = self._stream.sample_aspect_ratio or Fraction(1)
        if pixel > 1:
            width = round(width * pixel)
        elif 0 < pixel < 1:
            height = round(height / pixel)
        if self._orientation.transpose:
            width, height = height, width
        end = self._promised_end()
        if self._end is not None:
            end = self._end if end is None else min(end, self._end)
        duration = None if end is None else max(Fraction(0), end - self._start)
        frames = None if duration is None else max(1, round(duration * self._rate))
        if self._start == 0 and self._end is None and self._stream.frames:
            frames = self._stream.frames
        base = Fraction(self._stream.time_base or FINEST_TIME_BASE)
        return VideoInfo(
            width=width,
            height=height,
            rate=self._rate,
            time_base=max(base, FINEST_TIME_BASE),
            duration=duration,
            frames=frames,
            has_audio=self._audio is not None,
            color=self._color,
        )

    def _promised_end(self) -> Fraction | None:
        """Where the pictures end, in seconds since the file's beginning, by what the file says of itself."""
        if self._stream.duration:
            return (
                _start_time(self._stream) + self._stream.duration * Fraction(self._stream.time_base or 0) - self._zero
            )
        if "DURATION" in self._stream.metadata:
            with suppress(ValueError):
                hours, minutes, seconds = self._stream.metadata["DURATION"].split(":")
                return Fraction(hours) * 3600 + Fraction(minutes) * 60 + Fraction(seconds)
        return Fraction(self._container.duration, av.time_base) if self._container.duration else None

    def _warn_if_short(self, end: Fraction) -> None:
        promised = self._promised_end()
        if promised is not None and self._end is not None:
            promised = min(promised, self._end)
        if promised is not None and end + MISSING < promised:
            self._warn(
                f"ends at {float(end):.2f} s although it says it is {float(promised):.2f} s long; it may be cut off"
            )

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"{self.path.name} {what}", stacklevel=2)

    def _nothing(self) -> str:
        promised = self._promised_end()
        if promised and self._start >= promised:
            start, end = float(self._start), float(promised)
            return f"cannot begin {self.path.name} at {start:g} s: expected a start before its end, {end:.2f} s"
        if self._start and not self._warned:
            return f"cannot begin {self.path.name} at {float(self._start):g} s: expected a start before its last frame"
        return f"cannot read {self.path.name}: expected at least one frame, got none; the file may be damaged or empty"


def _open(path: Path) -> Any:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise VideoError(f"cannot read {path.name}: no such file; expected a video at {path}") from error
    except OSError as error:
        raise VideoError(f"cannot read {path.name}: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise VideoError(f"cannot read {path.name}: expected a video file, got a folder")
    try:
        container = av.open(str(path), metadata_errors="ignore")
    except PermissionError as error:
        raise VideoError(f"cannot read {path.name}: no permission to open it") from error
    except av.error.FFmpegError as error:
        raise VideoError(
            f"cannot read {path.name}: expected a video file, got one of no known format, or a damaged one"
        ) from error
    if container.format.name in TEXT_FORMATS:
        container.close()
        raise VideoError(f"cannot read {path.name}: expected a video file, got text")
    return container


def _video_stream(container: Any, path: Path) -> Any:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise VideoError(
                    f"cannot read {path.name}: its pictures have an unknown encoding; convert it to H.264 first"
                )
            return stream
    kinds = sorted({s.type for s in container.streams})
    raise VideoError(
        f"cannot read {path.name}: expected a file with pictures, got one with {', '.join(kinds) or 'nothing'} only"
    )


def _start_time(stream: Any) -> Fraction:
    return (stream.start_time or 0) * Fraction(stream.time_base or 0)

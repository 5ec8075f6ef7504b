"""Frames of a source that goes on by itself, such as a camera: a thread takes them as they come, the newest stay."""

import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.codec.context import Flags
from av.video.reformatter import VideoReformatter

from .frame import Color, Frame, VideoError, VideoInfo, meant
from .picture import color_of, orientation, to_rgb

NEWEST = 4  # frames that wait at most; older ones are dropped
PATIENCE = 10.0  # seconds without a frame that count as the end
BACK_OFF = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each attempt to connect again
JUMP = 10  # seconds between two frames from which the source is taken to have set its clock
POLL = 0.005  # seconds between two questions to a device that does not wait itself
USUAL_RATE = Fraction(25)
TIME_BASE = Fraction(1, 90_000)
MILLISECOND = Fraction(1, 1000)


@dataclass
class Timeline:
    """Times that only rise, of a source whose own may jump, repeat or begin anew."""

    rate: Fraction
    raw: Fraction | None = None  # the source's own time of the last frame
    shown: Fraction | None = None
    arrived: float = 0.0

    def place(self, raw: Fraction | None, now: float) -> Fraction | None:
        """The time of a frame that has its own time `raw` and came in at `now`, seconds by this machine's clock; the
        first one has 0. None: it is late, or the last one again, and is left out."""
        if self.shown is None:
            self.raw, self.shown, self.arrived = raw, Fraction(0), now
            return self.shown
        step = None if raw is None or self.raw is None else raw - self.raw
        if step is not None and -JUMP < step <= 0:
            return None
        if step is None or abs(step) >= JUMP:
            step = max(1 / self.rate, round((now - self.arrived) / MILLISECOND) * MILLISECOND)
        self.raw, self.shown, self.arrived = raw, self.shown + step, now
        return self.shown

    def broken(self) -> None:
        """The next frame is of another connection, whose times say nothing."""
        self.raw = None


class LiveReader:
    """Frames as they come, each at its own time, which begins with 0 and rises. Latency is bounded: frames that nobody
    takes are dropped, and counted. A source that ends or stalls ends the video, with a warning.

    name: for people. connect: opens the source, a container; raises FFmpegError. again: after an error or the end it is
    opened again, with back-off. start, duration: seconds, as of a file. VideoError if no frame comes."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Any],
        *,
        start: float = 0.0,
        duration: float | None = None,
        again: Sequence[float] = (),
        newest: int = NEWEST,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.name, self.dropped, self.reconnects = name, 0, 0
        self._connect, self._again, self._newest, self._patience, self._clock = connect, again, newest, patience, clock
        self._start, self._duration = meant(start), None if duration is None else meant(duration)
        self._pictures: deque[tuple[Fraction, av.VideoFrame]] = deque()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._over: str | None = None  # why no more frames come
        self._reconnecting = False  # it is being connected to anew, which takes its time
        self._info: VideoInfo | None = None
        self._color = Color()
        self._thread = threading.Thread(target=self._work, name=f"reads {name}", daemon=True)
        self._thread.start()
        try:
            if not self._wait() or self._info is None:
                raise VideoError(f"cannot read {name}: {self._over or f'no picture came in {patience:g} s'}")
        except BaseException:
            self.close()
            raise
        self.info: VideoInfo = self._info

    def frames(self, size: tuple[int, int] | None = None) -> Iterator[Frame]:
        """The newest frame, and those after it. `size` is (width, height) to scale each one to as it is read."""
        width, height = size or (self.info.width, self.info.height)
        scaler, begin = VideoReformatter(), None
        with self._changed:
            while len(self._pictures) > 1:  # they are from the time when nobody read
                self._pictures.popleft()
            self.dropped = 0
        while self._wait():
            with self._changed:
                seconds, picture = self._pictures.popleft()
            begin = seconds if begin is None else begin
            at = seconds - begin - self._start
            if self._duration is not None and at >= self._duration:
                return
            if at >= 0:
                turn = orientation(picture)
                stored = (height, width) if turn.transpose else (width, height)
                yield Frame(turn.apply(to_rgb(picture, *stored, self._color, scaler)), at)
        if not self._closed.is_set():
            why = self._over or f"it gave no picture for {self._patience:g} s"
            warnings.warn(f"{self.name}: {why}; the result ends there", stacklevel=2)

    def soundtrack(self) -> None:
        """Sound is not read."""

    def close(self) -> None:
        with self._changed:
            self._closed.set()
            self._changed.notify_all()
        self._thread.join(1)  # a device may be stuck; then the thread ends whenever it can, and holds up nobody

    def __enter__(self) -> "LiveReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self) -> bool:
        """Until there is a frame; False if none comes."""
        with self._changed:
            while not self._pictures and self._over is None and not self._closed.is_set():
                if not self._changed.wait(self._patience) and not self._reconnecting:
                    return False
            return bool(self._pictures) and not self._closed.is_set()

    def _work(self) -> None:
        """Take all pictures, of one connection after the other."""
        why, timeline = "", Timeline(USUAL_RATE)
        attempts = iter(self._again)
        while not self._closed.is_set():
            try:
                with self._connect() as container:
                    self._reconnecting = False
                    for picture in self._decode(container, timeline):
                        self._offer(picture)
                        attempts = iter(self._again)
                why = "it ended"
            except (OSError, av.error.FFmpegError) as error:
                why = _told(error)
            except VideoError as error:
                why = str(error)
            wait = next(attempts, None) if self._info is not None else None
            if wait is None:
                break
            timeline.broken()
            self.reconnects, self._reconnecting = self.reconnects + 1, True
            self._closed.wait(wait)
        with self._changed:
            self._over = why
            self._changed.notify_all()

    def _decode(self, container: Any, timeline: Timeline) -> Iterator[tuple[Fraction, av.VideoFrame]]:
        """The pictures of a connection with their times, until the reader is closed."""
        if not container.streams.video:
            raise VideoError("expected pictures, got none")
        stream = container.streams.video[0]
        stream.thread_type = "SLICE"  # threads by frame would hold frames back
        stream.codec_context.flags |= Flags.low_delay
        for packet in self._packets(container, stream):
            with suppress(av.error.InvalidDataError):  # a part was lost on the way
                for picture in packet.decode():
                    if self._info is None:
                        self._color, self._info = color_of(picture), self._described(stream, picture)
                        timeline.rate = self._info.rate
                    own = None if picture.pts is None else picture.pts * Fraction(picture.time_base)
                    placed = timeline.place(own, self._clock())
                    if placed is not None:
                        yield placed, picture

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        while not self._closed.is_set():
            try:
                for packet in container.demux(stream):
                    yield packet
                    if self._closed.is_set():
                        return
            except av.error.BlockingIOError:  # some devices say so when the next picture is not there yet
                self._closed.wait(POLL)
            else:
                return

    def _offer(self, picture: tuple[Fraction, av.VideoFrame]) -> None:
        with self._changed:
            if len(self._pictures) == self._newest:
                self._pictures.popleft()
                self.dropped += 1
            self._pictures.append(picture)
            self._changed.notify_all()

    def _described(self, stream: Any, picture: av.VideoFrame) -> VideoInfo:
        rate = Fraction(stream.average_rate or stream.guessed_rate or USUAL_RATE).limit_denominator(100_000)
        width, height = picture.width, picture.height
        if orientation(picture).transpose:
            width, height = height, width
        return VideoInfo(
            width=width,
            height=height,
            rate=rate if 1 <= rate <= 240 else USUAL_RATE,
            time_base=TIME_BASE,
            duration=self._duration,
            color=self._color,
        )


def _told(error: Any) -> str:
    """What went wrong, in a few words; an address in it may hold a password."""
    if isinstance(error, av.error.ExitError):
        return "it did not answer in time"
    return (error.strerror or type(error).__name__).lower()

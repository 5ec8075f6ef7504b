"""A recording: source, edited picture and log of a stream, written by a thread of its own beside the show.

    monday/session.jsonl   all that decides the edited frames, see `stream.log`
    monday/source.mkv      the frames that were edited, lossless, so that `stream.replay` is exact; source-1.mkv and so
                           on after a change of size
    monday/edited.mp4      what was shown, H.264, and the sound that belongs to it
    monday/sound.mka       that sound, lossless, if the source had any
    monday/start.pt        what the stream remembered, if it had begun before the recording

The folder is called monday.part until it is complete. The show never waits for the disk: a recording that cannot keep
up, or that runs out of space, ends there with a warning, and what it has is closed properly.
"""

import os
import shutil
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from torch import Tensor

from sana_streaming.stream import snapshot
from sana_streaming.stream.log import (
    ChunkRecord,
    Header,
    SourceFrame,
    chunk_line,
    digest_of,
    end_line,
    event_line,
    header_line,
)
from sana_streaming.stream.replay import LOG, START, real

from .recording_files import Files

WAITING = 512 * 2**20  # bytes that may wait for the disk
RESERVE = 64 * 2**20  # bytes that stay free on the disk: files need some to be closed
SECRET = {"token", "resume", "id", "sdp", "candidate"}  # keys of messages that are nobody's business


@dataclass(frozen=True)
class Recording:
    """What came of it."""

    folder: Path
    files: tuple[Path, ...]  # none if no chunk was recorded
    chunks: int
    frames: int
    trouble: str | None  # why it ended before it was asked to


class Recorder:
    """Listens to a stream (`stream.log.Tap`) and writes its recording. Made when recording begins, closed once.

    folder: gets this name when it is complete; ValueError if there is something. rate: usual frames per second. warn:
    told in one line why a recording ended early, from the recorder's thread. waiting: bytes that may wait to be
    written. free: bytes left on the disk of a folder.
    """

    def __init__(
        self,
        folder: str | Path,
        header: Header,
        *,
        rate: Fraction = Fraction(25),
        warn: Callable[[str], None] = lambda _: None,
        waiting: int = WAITING,
        free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ):
        self.folder = Path(folder).absolute()
        self._part = self.folder.with_name(f"{self.folder.name}.part")
        try:
            if self.folder.exists():
                raise ValueError(f"cannot record to {self.folder.name}: it is there already")
            self._part.mkdir(parents=True)
            self._log = (self._part / LOG).open("w", encoding="utf-8")
        except OSError as error:
            raise ValueError(f"cannot record to {self.folder.name}: {error.strerror}") from error
        self._header, self._rate, self._warn, self._limit, self._free = header, rate, warn, waiting, free
        self._files = Files(self._part, rate)
        self._jobs: deque[tuple[Callable[[], None], int]] = deque()
        self._bytes = 0  # of what waits
        self._changed = threading.Condition()
        self._trouble: str | None = None
        self._closing: str | None = None
        self._passing = self._black = False  # bypass and panic, as told last
        self._seen = 0  # chunks that were taken on
        self._chunks = self._frames = 0
        self._due: deque[Fraction | None] = deque()  # pts of edited frames to come: codecs that look ahead are late
        self._result: Recording | None = None
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def source(self, frame: SourceFrame) -> None:
        """Shown as it is while the model is bypassed; else it is recorded with its chunk."""
        self._files.sound.clocks.frame(frame.pts, frame.captured)
        if self._passing and not self._black:
            rgb, pts = frame.rgb, frame.pts
            self._put(lambda: self._files.show(rgb, pts), rgb.nbytes)

    def chunk(self, number: int, frames: Tensor, edited: Tensor, record: ChunkRecord) -> None:
        first, black = self._seen == 0, self._black
        past = record.before if first else None
        record = replace(record, before=None)  # else what waits would keep the memory of every chunk alive
        self._seen += 1
        self._put(lambda: self._write(frames, edited, record, past, black), frames.nbytes + edited.nbytes)

    def sound(self, samples: np.ndarray, now: float) -> None:
        """int16 [N, 2] at 48 kHz, of which the last one was taken together with a frame that was captured at `now`."""
        self._put(lambda: self._files.hear(samples, now), samples.nbytes)

    def event(self, message: Any) -> None:
        """A message of the protocol: a model of pydantic or a mapping."""
        told = dict(message if isinstance(message, dict) else message.model_dump(mode="json"))
        if told.get("type") == "stats":
            return  # of the moment and of the machine
        if told.get("type") == "state":
            self._passing, self._black = told["bypass"], told["panic"]
        told = {key: value for key, value in told.items() if key not in SECRET}
        self._put(lambda: self._line(event_line(self._chunks, told)), 0)

    def close(self, reason: str = "stopped") -> Recording:
        """Write what waits and finish. Takes as long as the disk does: not for the threads of the show."""
        with self._changed:
            self._closing = self._closing or reason
            self._changed.notify()
        self._thread.join()
        assert self._result is not None
        return self._result

    @property
    def trouble(self) -> str | None:
        """Why it ended, if it did before it was asked to."""
        return self._trouble

    def _put(self, job: Callable[[], None], size: int) -> None:
        with self._changed:
            if self._trouble is not None or self._closing is not None:
                return
            if self._jobs and self._bytes + size > self._limit:
                self._trouble = "the disk or the encoder cannot keep up"
            else:
                self._jobs.append((job, size))
                self._bytes += size
            self._changed.notify()

    def _work(self) -> None:
        try:
            self._line(header_line(self._header))
            while (job := self._next()) is not None:
                job[0]()
                with self._changed:
                    self._bytes -= job[1]
        except (OSError, av.error.FFmpegError) as error:
            self._trouble = error.strerror or str(error)
        except Exception as error:  # whatever it is, the show goes on
            self._trouble = f"{type(error).__name__}: {error}"
        self._jobs.clear()  # of a recording that failed
        self._result = self._finish()
        if self._trouble is not None:
            kept = f"{self._frames} frames are kept" if self._chunks else "nothing is kept"
            with suppress(Exception):  # who listened may be gone
                self._warn(" ".join(f"the recording ended: {self._trouble}; {kept}".split()))

    def _next(self) -> tuple[Callable[[], None], int] | None:
        """What is to be done next. What waits is written first, also when no more can be taken on."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closing is not None or self._trouble is not None)
            return self._jobs.popleft() if self._jobs else None

    def _write(
        self, frames: Tensor, edited: Tensor, record: ChunkRecord, past: snapshot.Snapshot | None, black: bool
    ) -> None:
        room = self._free(self._part)
        if room < RESERVE + frames.nbytes:
            raise OSError(28, f"the disk is full ({room // 2**20} MB free)")
        if past is not None:
            snapshot.save(past, self._part / START)
        self._files.keep(frames.numpy(), record)
        if record.begins:
            self._due.clear()
        filler = len(record.pts) - real(record)
        self._due.extend((*record.pts[: real(record)], *[None] * filler))
        for rgb in edited.numpy():
            pts = self._due.popleft() if self._due else None
            if pts is not None:
                self._files.show(np.zeros_like(rgb) if black else rgb, pts)
        self._line(chunk_line(record, digest_of(edited)))
        self._chunks, self._frames = self._chunks + 1, self._frames + len(frames)

    def _line(self, line: str) -> None:
        self._log.write(line)
        self._log.flush()

    def _finish(self) -> Recording:
        """Close all files, each whatever became of the others, and give the folder its name."""
        if self._chunks:
            with suppress(OSError):
                self._line(end_line(self._chunks, self._trouble or self._closing or ""))
        with suppress(OSError):
            self._log.close()
        self._files.close()
        if not self._chunks:
            shutil.rmtree(self._part, ignore_errors=True)
            return Recording(self.folder, (), 0, 0, self._trouble)
        folder = self.folder
        try:
            os.replace(self._part, folder)
        except OSError as error:
            folder, self._trouble = self._part, self._trouble or f"{error.strerror}"
        return Recording(folder, tuple(sorted(folder.iterdir())), self._chunks, self._frames, self._trouble)

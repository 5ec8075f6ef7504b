"""The files of a recording: the frames that were edited, what was shown, and the sound."""

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from sana_streaming.io.frame import Color
from sana_streaming.io.lossless import LosslessWriter
from sana_streaming.io.picture import to_yuv
from sana_streaming.stream.log import ChunkRecord
from sana_streaming.stream.replay import SOUND, source_name

from .recorded_sound import RecordedSound, Track

EDITED = "edited.mp4"
# Whole after every fragment, so that it plays even when the power went. The delay lets the file say that the encoder of
# sound begins with a few samples of its own; without it all pictures would be moved by them.
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+delay_moov+default_base_moof", "flush_packets": "1"}
ENCODER = {"crf": "18", "preset": "veryfast", "bf": "0"}
SOUND_BITS = 160_000  # per second
TICK = Fraction(1, 90_000)
COLOR = Color()


class Files:
    """OSError or FFmpegError if the disk is full; close them all the same. One thread."""

    def __init__(self, folder: Path, rate: Fraction):
        self._folder, self._rate = folder, rate
        self._begin: Fraction | None = None  # pts at which the recording begins
        self._part, self._size = -1, (0, 0)
        self._source: LosslessWriter | None = None
        self._edited: Any = None
        self._stream: Any = None
        self._shape = (0, 0)  # width and height of what is shown
        self._scaler = VideoReformatter()
        self._shown = -1  # pts of the last one shown, in ticks
        self.sound = RecordedSound(folder / SOUND)

    def keep(self, frames: np.ndarray, record: ChunkRecord) -> None:
        """The source of a chunk."""
        if record.size != self._size or self._source is None:
            if self._source is not None:
                self._source.close()
            self._part, self._size = self._part + 1, record.size
            self._source = LosslessWriter(self._folder / source_name(self._part), self._size, self._rate)
        for rgb, pts in zip(frames, record.pts, strict=True):
            self._source.write(rgb, self._seconds(pts))

    def show(self, rgb: np.ndarray, pts: Fraction) -> None:
        """A frame of what the viewer saw. All have the size of the first; what is too late is left out."""
        if self._stream is None:
            self._open(rgb.shape[1], rgb.shape[0])
        tick = round(self._seconds(pts) / TICK)
        if tick <= self._shown:
            return
        self._shown = tick
        picture = to_yuv(rgb, self._shape, COLOR, self._scaler)
        picture.pts, picture.time_base = tick, TICK
        self._edited.mux(self._stream.encode(picture))
        self._write_sound()

    def hear(self, samples: np.ndarray, now: float) -> None:
        """Sound of the source, see `RecordedSound.take`."""
        self.sound.take(samples, now)
        self._write_sound()

    def close(self) -> None:
        with suppress(OSError, av.error.FFmpegError):
            if self._source is not None:
                self._source.close()
        with suppress(OSError, av.error.FFmpegError):
            if self._stream is not None:
                self._edited.mux(self._stream.encode(None))
        with suppress(OSError, av.error.FFmpegError):
            if self._begin is not None:
                self.sound.close(self._begin, self._length)
        with suppress(OSError, av.error.FFmpegError):
            if self._edited is not None:
                self._edited.close()

    def _open(self, width: int, height: int) -> None:
        self._edited = av.open(str(self._folder / EDITED), "w", format="mp4", options=FRAGMENTS)
        self._stream = self._edited.add_stream("libx264", rate=self._rate, options=ENCODER)
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt, self._shape = "yuv420p", (width, height)
        context = self._stream.codec_context
        context.time_base, context.gop_size = TICK, max(1, round(2 * self._rate))
        context.colorspace, context.color_primaries, context.color_trc = COLOR.matrix, COLOR.primaries, COLOR.transfer
        context.color_range, context.thread_count = 1, 1 if width * height < 300_000 else 4
        self.sound.tracks.append(Track(self._edited, "aac", SOUND_BITS))

    def _write_sound(self) -> None:
        if self._begin is not None and self._edited is not None:
            self.sound.write(self._begin, self._length)

    @property
    def _length(self) -> Fraction:
        """Seconds that are shown."""
        return self._shown * TICK + 1 / self._rate if self._shown >= 0 else Fraction(0)

    def _seconds(self, pts: Fraction) -> Fraction:
        self._begin = pts if self._begin is None else self._begin
        return max(Fraction(0), pts - self._begin)

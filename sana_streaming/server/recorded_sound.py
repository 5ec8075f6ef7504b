"""The sound of a recording, on the time line of its frames.

Sound and frames come with moments of the server's clock, frames with times of their own as well: together they say
where sound belongs. Sound waits for the frames it belongs to, which take longer, and is written with them. Where none
came there is silence, so that every stream of sound is as long as the picture.
"""

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from sana_streaming.io.lossless import WRITTEN_OFTEN

from .audio import CHANNELS, RATE, SLACK
from .clocks import ServerClock

LATE = 1.0  # seconds that sound may arrive after the frame it belongs to was edited
NEIGHBOURS = 50  # packets that are looked at: a second
LONGEST = 20.0  # seconds that wait for frames; where none come, sound goes on without


class Track:
    """A stream of sound in a file. bits: per second, of a codec that is not lossless."""

    def __init__(self, container: Any, codec: str, bits: int | None = None):
        self._container, self._stream = container, container.add_stream(codec, rate=RATE)
        self._stream.codec_context.layout = "stereo"
        if bits is not None:
            self._stream.codec_context.bit_rate = bits

    def write(self, samples: np.ndarray, place: int) -> None:
        """int16 [N, 2], of which the first one has that number."""
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), place
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))


class RecordedSound:
    """Takes sound and writes it into any number of tracks, and into a file of its own if there is any.

    path: of that file, lossless. One thread; only `clocks.frame` may be another's."""

    def __init__(self, path: Path):
        self.clocks = ServerClock()
        self.tracks: list[Track] = []
        self._path = path
        self._file: Any = None
        self._waiting: deque[tuple[np.ndarray, float]] = deque()
        self._written = 0  # samples, from the beginning of the recording

    def take(self, samples: np.ndarray, now: float) -> None:
        """int16 [N, 2], of which the last one belongs to a frame that was captured at `now`."""
        self._waiting.append((samples, now))
        while self._waiting[0][1] < now - 2 * LONGEST:  # no frame ever came
            self._waiting.popleft()

    def write(self, begin: Fraction, length: Fraction, late: float = LATE) -> None:
        """What belongs to the first `length` seconds of the recording, which begins at `begin` of the source's clock,
        and what has waited too long. late: seconds before the end in which sound that is missing may still come."""
        if self.clocks.offset is not None and self._waiting:
            zero, newest = self.clocks.offset + float(begin), self._waiting[-1][1]
            while self._waiting:
                samples, now = self._waiting[0]
                place = self._place(zero)
                if abs(place - self._written) < SLACK * RATE:
                    place = self._written  # the sound itself is even
                if place + len(samples) > length * RATE and now > newest - LONGEST:
                    break
                self._waiting.popleft()
                self._put(samples, place)
        self._silence(round((float(length) - late) * RATE))

    def _place(self, zero: float) -> int:
        """Of the first that waits, by that of all that wait that came the fastest: packets are late, never early."""
        came = [(now - zero) * RATE for _, now in islice(self._waiting, NEIGHBOURS)]
        ends = accumulate(len(samples) for samples, _ in islice(self._waiting, NEIGHBOURS))
        return round(min(at - end for at, end in zip(came, ends, strict=True)))

    def close(self, begin: Fraction, length: Fraction) -> None:
        try:
            self.write(begin, length, late=0.0)
            for track in self.tracks:
                track.close()
        finally:
            if self._file is not None:
                self._file.close()

    def _put(self, samples: np.ndarray, place: int) -> None:
        self._silence(place)
        samples = samples[max(0, self._written - place) :]
        if not len(samples):
            return
        if self._file is None:
            self._file = av.open(str(self._path), "w", format="matroska", options=WRITTEN_OFTEN)
            track = Track(self._file, "flac")
            for begin, silence in _silences(0, self._written):
                track.write(silence, begin)
            self.tracks.append(track)
        self._all(samples)

    def _silence(self, until: int) -> None:
        for _, silence in _silences(self._written, until):
            self._all(silence)

    def _all(self, samples: np.ndarray) -> None:
        for track in self.tracks:
            track.write(samples, self._written)
        self._written += len(samples)


def _silences(begin: int, end: int) -> Iterator[tuple[int, np.ndarray]]:
    """Silence from one sample to another, in pieces."""
    for place in range(begin, end, RATE):
        yield place, np.zeros((min(RATE, end - place), CHANNELS), np.int16)

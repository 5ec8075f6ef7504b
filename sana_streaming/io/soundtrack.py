"""The sound of a source, carried packet by packet beside the edited pictures."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer

# What players expect inside each container. Other sound is encoded anew as AAC.
COPIED = {
    "mp4": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus"}),
    "mov": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le"}),
    "matroska": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "vorbis", "flac", "pcm_s16le", "pcm_s24le"}),
}

Timed = tuple[Fraction, Any]  # seconds on the time line of the frames, and the packet


class Soundtrack:
    """The sound of a file from `origin` to `end`, seconds of the file's own clock, moved so that `origin` becomes 0.

    It reads the file a second time, beside the pictures, so that neither has to wait in memory for the other.
    """

    def __init__(self, path: Path, origin: Fraction, end: Fraction | None = None, cut: bool = False):
        """`cut` leaves out what lies before `origin`; without it, sound that begins a little earlier stays."""
        self.path, self.origin, self.end, self.cut = path, origin, end, cut
        self._input = av.open(str(path), metadata_errors="ignore")
        self._stream = audio_stream(self._input)
        self._base = Fraction(self._stream.time_base or 1)
        self._packets: Iterator[Timed] = iter(())
        self._next: Timed | None = None

    def add_to(self, output: OutputContainer) -> None:
        """Add the stream to a container without a header yet: as it is if the container takes it, else as AAC."""
        container, codec = output.format.name.split(",")[0], self._stream.codec_context.codec.canonical_name
        if container == "matroska" and self._input.format.name.startswith("mov") and codec != "opus":
            self.cut = True  # mp4 hides what lies before 0; Matroska would show it, and move all else behind it
        if codec in COPIED[container]:
            self._packets = self._copied(output.add_stream_from_template(self._stream))
        else:
            self._packets = self._encoded(output.add_stream("aac", rate=self._stream.codec_context.sample_rate))
        self._next = next(self._packets, None)

    def until(self, time: Fraction | None) -> Iterator[av.Packet]:
        """Packets, ready to mux, that begin at or before `time` (all the rest: None)."""
        while self._next is not None and (time is None or self._next[0] <= time):
            packet = self._next[1]
            self._next = next(self._packets, None)
            yield packet

    def close(self) -> None:
        self._next = None
        self._input.close()

    def _source_packets(self) -> Iterator[Timed]:
        base = self._base
        if self.cut:
            self._input.seek(int(self.origin / base), stream=self._stream)
        try:
            for packet in self._input.demux(self._stream):
                if packet.pts is None:
                    continue
                if self.cut and packet.pts * base < self.origin:
                    continue
                if self.end is not None and packet.pts * base >= self.end:
                    return
                yield packet.pts * base - self.origin, packet
        except av.error.FFmpegError:
            return  # a damaged file: the pictures say so

    def _copied(self, target: Any) -> Iterator[Timed]:
        shift = round(self.origin / self._base)
        for time, packet in self._source_packets():
            packet.dts = (packet.pts if packet.dts is None else packet.dts) - shift
            packet.pts -= shift
            packet.stream = target
            yield time, packet

    def _encoded(self, target: Any) -> Iterator[Timed]:
        encoder = target.codec_context
        encoder.layout = "mono" if self._stream.codec_context.layout.nb_channels == 1 else "stereo"
        resampler = av.AudioResampler(format="fltp", layout=encoder.layout, rate=encoder.sample_rate)
        shift = round(self.origin / self._base)
        for _, packet in self._source_packets():
            try:
                sounds = packet.decode()
            except av.error.InvalidDataError:
                continue
            for sound in sounds:
                if sound.pts is not None:
                    sound.pts -= shift
                for part in resampler.resample(sound):
                    yield from _timed(target.encode(part))
        for part in resampler.resample(None):
            yield from _timed(target.encode(part))
        yield from _timed(target.encode(None))


def audio_stream(container: Any) -> Any:
    """The first audio stream of a known encoding, or None."""
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def _timed(packets: list[Any]) -> Iterator[Timed]:
    for packet in packets:
        yield packet.pts * packet.time_base, packet

"""Small video files for tests."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE = Fraction(25)


def gradient(height: int, width: int, index: int = 0) -> np.ndarray:
    """A smooth picture, uint8 [H, W, 3]: red rises to the right, green downwards, blue with the index."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = [255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1), np.full((height, width), 20 * index % 256)]
    return np.stack(rgb, axis=-1).astype(np.uint8)


def write_clip(
    path: Path,
    pictures: Sequence[np.ndarray] | None = None,
    *,
    size: tuple[int, int] = (64, 48),
    frames: int = 20,
    ticks: Sequence[int] | None = None,  # pts in 1/12800 s; None: 25 per second
    tone: float | None = None,  # seconds of sound
    tone_codec: str = "aac",
    click: float | None = None,  # seconds at which silence with one click replaces the tone
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rotation: int = 0,
    mirror: bool = False,
    matrix: int = 2,
    sample_aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
    mux_options: dict[str, str] | None = None,
) -> Path:
    pictures = [gradient(size[1], size[0], i) for i in range(frames)] if pictures is None else pictures
    ticks = [512 * i for i in range(len(pictures))] if ticks is None else ticks
    durations = dict(zip(ticks, [b - a for a, b in pairwise(ticks)] + [512], strict=True))
    with av.open(str(path), "w", options=mux_options or {}) as output:
        video: Any = output.add_stream(
            codec, rate=RATE, options={"bf": "0"} if options is None and codec == "libx264" else options or {}
        )
        video.height, video.width = pictures[0].shape[:2] if pictures else size[::-1]
        video.pix_fmt = pixels
        video.codec_context.time_base = Fraction(1, 12800)
        if matrix != 2:
            context = video.codec_context
            context.colorspace = context.color_primaries = context.color_trc = matrix
        if sample_aspect:
            video.sample_aspect_ratio = sample_aspect
        if rotation or mirror:
            video.set_display_rotation(rotation, hflip=mirror)
        sound: Any = output.add_stream(tone_codec, rate=48000) if tone else None
        if sound is not None:
            sound.codec_context.layout = "mono"
        for packets in (_encode(video, pictures, ticks, pixels, matrix), _encode_tone(sound, tone or 0.0, click)):
            for packet in packets:
                if packet.stream is video:
                    packet.duration = durations[packet.pts]
                output.mux(packet)
    return path


def _encode(video: Any, pictures: Any, ticks: Any, pixels: str, matrix: int) -> Iterator[Any]:
    for rgb, tick in zip(pictures, ticks, strict=True):
        picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        scaler_matrix = 5 if matrix in (2, 6) else matrix
        picture = picture.reformat(format=pixels, src_color_range=2, dst_color_range=1, dst_colorspace=scaler_matrix)
        picture.pts, picture.time_base = tick, Fraction(1, 12800)
        yield from video.encode(picture)
    yield from video.encode(None)


def _encode_tone(sound: Any, seconds: float, click: float | None) -> Iterator[Any]:
    if sound is None:
        return
    times = np.arange(round(seconds * 48000)) / 48000
    wave = np.sin(2 * np.pi * 440 * times) * 8000
    if click is not None:
        wave = np.where(np.abs(times - click) < 0.0005, 30000, 0)
    for begin in range(0, len(wave), 1024):
        samples = wave[begin : begin + 1024].astype(np.int16)[None]
        part = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        part.sample_rate, part.pts, part.time_base = 48000, begin, Fraction(1, 48000)
        yield from sound.encode(part)
    yield from sound.encode(None)


def times_of(path: Path) -> list[Fraction]:
    """pts of all frames, in seconds."""
    with av.open(str(path)) as file:
        return [Fraction(frame.pts or 0) * Fraction(frame.time_base) for frame in file.decode(video=0)]


def sound_of(path: Path) -> tuple[str, float] | None:
    """Name of the sound's codec and its length in seconds. None for a silent file."""
    with av.open(str(path)) as file:
        if not file.streams.audio:
            return None
        stream = file.streams.audio[0]
        samples = sum(frame.samples for frame in file.decode(stream))
        return stream.codec_context.name, samples / stream.codec_context.sample_rate

"""What is measured: the stages of a chunk, and the whole road from file to file."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch

from sana_streaming.bench import machine
from sana_streaming.bench.watch import Watch, WatchedCodec
from sana_streaming.config import to_dict
from sana_streaming.io import Frame
from sana_streaming.io.readers import open_reader
from sana_streaming.io.writers import open_writer
from sana_streaming.stream.editor import Editor
from sana_streaming.stream.run import Report, edit

PROMPT = "turn the scene into a watercolor"
WARM_UP = 4  # chunks


def bench(
    editor: Editor,
    clip: Path,
    *,
    size: tuple[int, int],
    steps: int | None,
    seconds: float,
    repeats: int,
    chunks: int,
    seed: int,
) -> dict[str, Any]:
    """Medians, after a warm-up, as JSON types. The speed of matrix products is measured between the repeats and between
    the chunks, so that a slow or busy machine can be told from slow code."""
    products = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    probes = {name: machine.matrix_product(editor.device, dtype) for name, dtype in products.items()}
    rates: dict[str, list[float]] = {name: [] for name in probes}

    def probe() -> None:
        for name, measured in probes.items():
            rates[name].append(measured())

    options = {"size": min(size), "rate": "source", "steps": steps, "seed": seed}  # every frame is edited
    with tempfile.TemporaryDirectory() as folder:
        source, edited = Path(folder) / "source.mp4", Path(folder) / "edited.mp4"
        cut_to_size(clip, source, size, seconds)
        whole_road(editor, source, edited, PROMPT, duration=min(seconds, 1.0), **options)
        probe()
        for rate in rates.values():
            rate.clear()
        runs = []
        for _ in range(repeats):
            runs.append(whole_road(editor, source, edited, PROMPT, **options))
            probe()
        memory = machine.peak_memory_mb(editor.device)
        per_stage = stages(
            editor, source, PROMPT, steps=steps, seed=seed, chunks=chunks, warm_up=WARM_UP, between=probe
        )
    reports = [report for _, report in runs]
    fps = [report.frames / wall for wall, report in runs]
    milliseconds = {
        "read": median(1000 * r.read_seconds / r.frames for r in reports),
        **asdict(per_stage),
        "write": median(1000 * r.write_seconds / r.frames for r in reports),
    }
    sampler = editor.config.sampler
    return {
        "end_to_end_fps": median(fps),  # distinct frames, from file to file
        "end_to_end_fps_of_each_repeat": fps,
        "milliseconds_per_frame": milliseconds,
        "peak_memory_mb": memory,
        "matrix_product_gflops": {name: median(rate) for name, rate in rates.items()},
        "model": editor.config.name,
        "device": str(editor.device),
        "dtype": str(next(editor.dit.parameters()).dtype).removeprefix("torch."),
        "size": list(size),
        "steps": sampler.steps if steps is None else steps,
        "chunk_latent_frames": [sampler.first_chunk, sampler.chunk],
        "chunk_frames": [
            editor.codec.frames_of(sampler.first_chunk, True),
            editor.codec.frames_of(sampler.chunk, False),
        ],
        "frames": reports[0].frames,
        "clip": clip.name,
        "prompt": PROMPT,
        "seed": seed,
        "machine": machine.describe(editor.device),
        "config": to_dict(editor.config),
    }


@dataclass(frozen=True)
class Stages:
    """Milliseconds per frame, the median over chunks of a stream in full flow."""

    encode: float
    denoise: float  # with the pass that commits the chunk
    decode: float
    other: float  # to and from the device, and between uint8 and [-1, 1]


def stages(
    editor: Editor,
    clip: Path,
    prompt: str,
    *,
    steps: int | None,
    seed: int,
    chunks: int,
    warm_up: int,
    between: Callable[[], None],
) -> Stages:
    """Edit the frames of a clip, over and over, as files are edited. The first chunks are not measured: in them memory
    is claimed and the windows of the model fill. `between` is called after each measured chunk."""
    watch = Watch(editor.device)
    codec = WatchedCodec(editor.codec, watch)
    session = Editor(editor.config, editor.dit, codec, editor.encode_text).session(prompt, seed=seed, steps=steps)
    pictures = _endless(clip)
    rows = []
    for index in range(warm_up + chunks):
        frames = torch.from_numpy(np.stack(list(islice(pictures, session.chunk_frames))))
        watch.note()
        edit(session, frames, editor.stride)
        watch.note()
        enter, encode, denoise, decode, leave = watch.milliseconds()
        if index >= warm_up:
            rows.append([span / len(frames) for span in (encode, denoise, decode, enter + leave)])
            between()
    return Stages(*(median(column) for column in zip(*rows, strict=True)))


def whole_road(editor: Editor, clip: Path, result: Path, prompt: str, **options: Any) -> tuple[float, Report]:
    """Seconds to edit a file into another, from opening the one to closing the other, and the report of the run."""
    start = perf_counter()
    report = editor.edit(clip, result, prompt, **options)
    return perf_counter() - start, report


def cut_to_size(source: Path, target: Path, size: tuple[int, int], seconds: float) -> None:
    """Write a clip of so many seconds and exactly (width, height): the middle of the source's picture, scaled to fit,
    and its frames over and over."""
    reader = open_reader(source)
    rate = reader.info.rate
    reader.close()
    count = max(1, round(seconds * rate))
    writer = open_writer(target, rate=rate)
    for index, rgb in enumerate(islice(_endless(source, size), count)):
        writer.write(Frame(rgb, pts=index / rate, duration=1 / rate))
    writer.close()


def _endless(clip: Path, size: tuple[int, int] | None = None) -> Iterator[np.ndarray]:
    """RGB uint8 [H, W, 3] of a clip that begins anew where it ends; with `size`, the middle (width, height) of each."""
    while True:
        reader = open_reader(clip)
        width, height = size or (reader.info.width, reader.info.height)
        scale = max(width / reader.info.width, height / reader.info.height)
        scaled = max(width, round(scale * reader.info.width)), max(height, round(scale * reader.info.height))
        left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
        for frame in reader.frames(scaled):
            yield np.ascontiguousarray(frame.rgb[top : top + height, left : left + width])
        reader.close()

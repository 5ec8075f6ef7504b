"""The one road of a video: read, cut into chunks, edit, write."""

import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sana_streaming.io import Frame, Reader, Writer, meant
from sana_streaming.io.size import working_size

from .chunker import chunks
from .pairing import Pairs

if TYPE_CHECKING:
    from .editor import Editor, Session

DEFAULT_SIZES = {"cpu": 256, "cuda": 512}
SMALLEST_SIZE = 32


@dataclass(frozen=True)
class PromptChange:
    """A prompt and where it took effect."""

    prompt: str
    seconds: float  # as asked
    chunk: int
    frame: int


@dataclass(frozen=True)
class Report:
    """What a run did, and how long it waited for each stage."""

    frames: int
    expected: int | None  # frames in all, by the reader's estimate
    chunks: int
    seconds: float
    read_seconds: float
    edit_seconds: float
    write_seconds: float
    stopped_early: bool
    prompts: tuple[PromptChange, ...]

    @property
    def fps(self) -> float:
        return self.frames / self.seconds if self.seconds else 0.0


def run(
    reader: Reader,
    session: "Session",
    writer: Writer,
    *,
    size: tuple[int, int] | None = None,
    stride: int = 1,
    prompts: Sequence[tuple[float, str]] = (),
    compare: bool = False,
    on_progress: Callable[[int, int | None], None] | None = None,
    stop: Callable[[], bool] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Report:
    """Edit all that the reader gives, one chunk in memory at a time. Closes the writer, or aborts it on an error.

    size: (width, height) that frames are edited at. stride: of the model's grid; frames are padded to it and cut back.
    prompts: (seconds, prompt) of changes. A change takes effect at the first chunk that begins at or after its time.
    compare: write source and edited side by side.
    on_progress: called after each chunk, once a frame is done, with frames done and frames expected (None: unknown).
    stop: asked after each chunk; if true, the run ends there, and what is done so far is kept.
    """
    seconds = dict.fromkeys(("read", "edit", "write"), 0.0)

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        since = clock()
        yield
        seconds[stage] += clock() - since

    begin = clock()
    pending = deque(sorted(prompts, key=lambda change: change[0]))
    applied: list[PromptChange] = []
    pairs, frames, count, stopped = Pairs(), 0, 0, False

    def write(sources: Sequence[Frame], edited: np.ndarray) -> None:
        with timed("write"):
            for frame, rgb in pairs.join(sources, edited):
                writer.write(replace(frame, rgb=np.concatenate([frame.rgb, rgb], axis=1) if compare else rgb))

    stream = chunks(reader.frames(size), lambda: session.chunk_frames)
    try:
        while not stopped:
            with timed("read"):
                chunk = next(stream, None)
            if chunk is None:
                break
            due = None
            while pending and meant(pending[0][0]) <= chunk.pts:
                due = pending.popleft()
            with timed("edit"):
                if due is not None:
                    session.set_prompt(due[1])
                    applied.append(PromptChange(due[1], due[0], count, frames))
                edited = edit(session, chunk.tensor(), stride)
            write(chunk.frames, edited)
            frames, count = frames + len(chunk.frames), count + 1
            done = frames - len(pairs.waiting)
            if on_progress is not None and done:
                on_progress(done, reader.info.frames)
            stopped = stop is not None and stop()
        if pairs.waiting:
            with timed("edit"):
                height, width = pairs.waiting[0].rgb.shape[:2]
                edited = session.flush()[:, :height, :width].numpy()
            write((), edited)
            assert not pairs.waiting
            if on_progress is not None:
                on_progress(frames, reader.info.frames)
        with timed("write"):
            writer.close(keep_tail=not stopped)
    except BaseException:
        writer.abort()
        raise
    return Report(
        frames=frames,
        expected=reader.info.frames,
        chunks=count,
        seconds=clock() - begin,
        read_seconds=seconds["read"],
        edit_seconds=seconds["edit"],
        write_seconds=seconds["write"],
        stopped_early=stopped,
        prompts=tuple(applied),
    )


def edit(session: "Session", frames: Tensor, stride: int) -> np.ndarray:
    """One chunk, uint8 [F, H, W, 3] of any H and W: padded to the grid by its own edge, edited, then cut back."""
    height, width = frames.shape[1:3]
    for axis, length in ((1, height), (2, width)):
        edge = frames.narrow(axis, length - 1, 1)
        frames = torch.cat([frames, *[edge] * (-length % stride)], dim=axis)
    return session.step(frames)[:, :height, :width].cpu().numpy()


def edit_file(
    editor: "Editor",
    source: str | Path,
    edited: str | Path,
    prompt: str,
    *,
    size: int | None = None,
    keep_size: bool = False,
    compare: bool = False,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    negative_prompt: str | None = None,
    start: float = 0.0,
    duration: float | None = None,
    prompts: Sequence[tuple[float, str]] = (),
    on_progress: Callable[[int, int | None], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Report:
    """Edit a video file into another: same times, same sound, same aspect.

    size: short side in pixels that the video is edited at, and that the result has (default: 256 on a CPU, 512 on a
    GPU, and never more than the source has). keep_size: scale the result back to the source's size. seed, steps,
    guidance, negative_prompt: as in `Session`. start, duration: seconds of the source. prompts: later changes, in
    seconds of the result. compare, on_progress, stop: as in `run`. ValueError for what cannot be read, written or
    understood; then no file is left behind.
    """
    from sana_streaming.io.overlap import ReadAhead, WriteBehind
    from sana_streaming.io.readers import open_reader
    from sana_streaming.io.writers import check_output, open_writer

    if size is not None and size < SMALLEST_SIZE:
        raise ValueError(f"size must be at least {SMALLEST_SIZE} pixels, got {size}")
    for at, text in ((start, prompt), *prompts):
        if not 0 <= at < math.inf:
            raise ValueError(f"expected a time of 0 seconds or more, got {at}")
        if not text or not text.strip():
            raise ValueError(f"expected an instruction, got {text!r}")
    if duration is not None and not 0 < duration < math.inf:
        raise ValueError(f"expected a duration above 0 seconds, got {duration}")
    check_output(edited, source)
    reader = open_reader(source, start=start, duration=duration)
    try:
        info = reader.info
        working = working_size(info.width, info.height, size, DEFAULT_SIZES.get(editor.device.type, 512))
        given = {"guidance": guidance, "negative_prompt": negative_prompt}
        options = {name: value for name, value in given.items() if value is not None}
        session = editor.session(prompt, seed=seed, steps=steps, **options)
        width, height = (info.width, info.height) if keep_size else working
        shown = width * (2 if compare else 1), height
        writer = open_writer(
            edited, rate=info.rate, time_base=info.time_base, color=info.color, size=shown, sound=reader.soundtrack()
        )
        if editor.device.type != "cpu":  # on a CPU the model has work for every core
            reader, writer = ReadAhead(reader), WriteBehind(writer)
        report = run(
            reader,
            session,
            writer,
            size=working,
            stride=editor.stride,
            prompts=prompts,
            compare=compare,
            on_progress=on_progress,
            stop=stop,
        )
    finally:
        reader.close()
    reached = max((change.seconds for change in report.prompts), default=0.0)
    for begin, _ in prompts if not report.stopped_early else ():
        if begin > reached:
            warnings.warn(f"the prompt at {begin:g} s was never reached; the last chunk begins before", stacklevel=2)
    return replace(report, prompts=(PromptChange(prompt, 0.0, 0, 0), *report.prompts))


def check_files(source: str | Path, edited: str | Path, start: float = 0.0, duration: float | None = None) -> None:
    """VideoError for what `edit_file` would refuse, before a model is loaded for it."""
    from sana_streaming.io.readers import open_reader
    from sana_streaming.io.writers import check_output

    check_output(edited, source)
    open_reader(source, start=start, duration=duration).close()

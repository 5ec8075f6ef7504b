"""The one road of a video: read, cut into chunks, edit, write."""

import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sana_streaming.io import Frame, Reader, VideoInfo, Writer, meant
from sana_streaming.io.size import Geometry, working_geometry

from .chunker import chunks
from .pairing import Pairs
from .ticks import ticks

if TYPE_CHECKING:
    from .editor import Editor
    from .session import Session

DEFAULT_SIZES = {"cpu": 256, "cuda": 512}
SMALLEST_SIZE = 32
NO_PICTURE = np.empty((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class PromptChange:
    """A prompt and where it took effect."""

    prompt: str
    seconds: float  # as asked
    chunk: int
    frame: int  # of the result


@dataclass(frozen=True)
class Report:
    """What a run did, and how long it waited for each stage."""

    frames: int  # of the result, which are those of the source
    edited: int  # of them; at a rate below the source's, the others show the edited frame before them
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
        """Edited frames per second: those that differ."""
        return self.edited / self.seconds if self.seconds else 0.0


def run(
    reader: Reader,
    session: "Session",
    writer: Writer,
    geometry: Geometry,
    *,
    rate: Fraction | None = None,
    prompts: Sequence[tuple[float, str]] = (),
    compare: bool = False,
    on_progress: Callable[[int, int | None], None] | None = None,
    stop: Callable[[], bool] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Report:
    """Edit all that the reader gives, one chunk in memory at a time. Closes the writer, or aborts it on an error.

    rate: frames per second that are edited at most, see `ticks`; every frame is written at its own time.
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
    pairs, frames, edited, count, stopped = Pairs(), 0, 0, 0, False

    def to_edit() -> Iterator[Frame]:
        for frame, own in ticks(reader.frames(geometry.scaled), rate):
            picture = geometry.cropped(frame.rgb)
            pairs.expect(replace(frame, rgb=picture if compare else NO_PICTURE), own)
            if own:
                yield replace(frame, rgb=picture)

    def write(pictures: Iterable[np.ndarray]) -> None:
        nonlocal frames
        with timed("write"):
            for frame, rgb in pairs.join(pictures):
                writer.write(replace(frame, rgb=np.concatenate([frame.rgb, rgb], axis=1) if compare else rgb))
                frames += 1
        if on_progress is not None and frames:
            on_progress(frames, reader.info.frames)

    stream = chunks(to_edit(), lambda: session.chunk_frames)
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
                    before = sum(frame.pts < chunk.pts for frame, _ in pairs.waiting)
                    applied.append(PromptChange(due[1], due[0], count, frames + before))
                pictures = edit(session, chunk.tensor(), geometry.stride)
            edited, count = edited + len(chunk.frames), count + 1
            write(pictures)
            stopped = stop is not None and stop()
        if pairs.incomplete:
            with timed("edit"):
                width, height = geometry.picture
                pictures = session.flush()[:, :height, :width].numpy()
            write(pictures)
        elif pairs.waiting:  # what came after the last frame that was edited
            write(())
        assert not pairs.waiting
        with timed("write"):
            writer.close(keep_tail=not stopped)
    except BaseException:
        writer.abort()
        raise
    return Report(
        frames=frames,
        edited=edited,
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
    source: str | Path | Reader,
    edited: str | Path,
    prompt: str,
    *,
    size: int | None = None,
    fit: str = "letterbox",
    keep_size: bool = False,
    rate: float | str | None = None,
    compare: bool = False,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    negative_prompt: str | None = None,
    cuts: str | None = None,
    start: float = 0.0,
    duration: float | None = None,
    prompts: Sequence[tuple[float, str]] = (),
    on_progress: Callable[[int, int | None], None] | None = None,
    stop: Callable[[], bool] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Report:
    """Edit a video file into another: same frame times, same sound, same aspect.

    source: also what `open_source` gave, for which start and duration count no more; it is closed in the end.
    size: short side in pixels that the video is edited at, and that the result has (default: as many pixels as the
    model was trained at; for models of any size 256 on a CPU, 512 on a GPU, and never more than the source has).
    fit: onto the grid of the model, "letterbox" (all of the picture) or "crop" (its middle); see `working_geometry`.
    keep_size: scale the result back to the source's size. rate: frames per second that are edited at most, or
    "source" for every frame (default: the model's own rate); see `ticks`. seed, steps, guidance, negative_prompt,
    cuts: as in `Session`. start, duration: seconds of the source. prompts: later changes, in seconds of the result.
    compare, on_progress, stop: as in `run`. tell: called once, before the work begins, with a line on how the source's
    size and rate are changed, if they are. ValueError for what cannot be read, written or understood; then no file is
    left behind.
    """
    from sana_streaming.io.overlap import ReadAhead, WriteBehind
    from sana_streaming.io.writers import open_writer

    if size is not None and size < SMALLEST_SIZE:
        raise ValueError(f"size must be at least {SMALLEST_SIZE} pixels, got {size}")
    for at, text in ((start, prompt), *prompts):
        if not 0 <= at < math.inf:
            raise ValueError(f"expected a time of 0 seconds or more, got {at}")
        if not text or not text.strip():
            raise ValueError(f"expected an instruction, got {text!r}")
    if duration is not None and not 0 < duration < math.inf:
        raise ValueError(f"expected a duration above 0 seconds, got {duration}")
    ticking = chosen_rate(editor.config.sampler.rate if rate is None else rate)
    reader = open_source(source, edited, start, duration) if isinstance(source, (str, Path)) else source
    try:
        info = reader.info
        geometry = working_geometry(
            (info.width, info.height),
            editor.stride,
            fit=fit,
            short=size,
            default=DEFAULT_SIZES.get(editor.device.type, 512),
            trained=editor.config.frame_size,
        )
        given = {"guidance": guidance, "negative_prompt": negative_prompt, "cuts": cuts}
        options = {name: value for name, value in given.items() if value is not None}
        session = editor.session(prompt, seed=seed, steps=steps, **options)
        width, height = geometry.in_source((info.width, info.height)) if keep_size else geometry.picture
        shown = width * (2 if compare else 1), height
        writer = open_writer(
            edited, rate=info.rate, time_base=info.time_base, color=info.color, size=shown, sound=reader.soundtrack()
        )
        if editor.device.type != "cpu":  # on a CPU the model has work for every core
            reader, writer = ReadAhead(reader), WriteBehind(writer)
        line = told(info, geometry, ticking)
        if tell is not None and line is not None:
            tell(line)
        report = run(
            reader,
            session,
            writer,
            geometry,
            rate=ticking,
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


def chosen_rate(rate: float | str | None) -> Fraction | None:
    """Frames per second that are edited at most; None for every frame."""
    if rate is None or rate == "source":
        return None
    if isinstance(rate, str) or not 1 <= rate < math.inf:
        raise ValueError(f"expected a rate of 1 or more frames per second, or 'source', got {rate!r}")
    return meant(rate)


def told(info: VideoInfo, geometry: Geometry, rate: Fraction | None) -> str | None:
    """What becomes of a source's size and rate, in one line; None if nothing does."""
    source = (info.width, info.height)
    line = geometry.told(source)
    if rate is not None:
        return f"{line}, at up to {float(rate):.4g} of its {float(info.rate):.4g} frames per second"
    return None if geometry.scaled == geometry.grid == source else line


def open_source(source: str | Path, edited: str | Path, start: float = 0.0, duration: float | None = None) -> Reader:
    """A reader of a source that is to be edited into a file. VideoError if either cannot be, so that it is known before
    a model is loaded. A camera is opened by this, and goes on by itself."""
    from sana_streaming.io.readers import open_reader
    from sana_streaming.io.writers import check_output

    check_output(edited, source)
    return open_reader(source, start=start, duration=duration)

"""The edited frames of a recording, made again from its log and its source.

    log = read_log("recordings/monday/session.jsonl")
    for frame in replay(log, Editor.load(log.header.model)):
        writer.write(frame)

With the model, the precision and the device of the recording every frame is bit-identical to what was shown. Another
model is given the same frames and requests: each request holds from its first chunk that begins at or after the frame
where it took effect.
"""

import warnings
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sana_streaming.diffusion.flow import sampling
from sana_streaming.io import Frame

from . import snapshot
from .log import ChunkRecord, Header, Log, digest_of, header_of
from .pairing import Pairs
from .run import edit

if TYPE_CHECKING:
    from .editor import Editor
    from .session import Session

LOG, SOURCE, START, SOUND = "session.jsonl", "source.mkv", "start.pt", "sound.mka"  # files of a recording


@dataclass(frozen=True)
class Piece:
    """What one step of a session was given and gave."""

    source: tuple[Frame, ...]  # nothing where a stream ends and gives the rest
    edited: np.ndarray  # uint8 [F, H, W, 3]; of a codec that looks ahead fewer at first
    same: bool | None  # as recorded, bit for bit; None: cannot be told


def source_name(part: int) -> str:
    """File of the source's frames. Another part begins where the size changes."""
    return SOURCE if part == 0 else f"source-{part}.mkv"


def replay(log: Log, editor: "Editor", *, steps: int | None = None) -> Iterator[Frame]:
    """Every edited frame at its own time. steps: denoising steps (default: as recorded, or another model's own)."""
    for source, rgb in joined(pieces(log, editor, steps=steps)):
        yield replace(source, rgb=rgb)


def joined(parts: Iterator[Piece]) -> Iterator[tuple[Frame, np.ndarray]]:
    """Each source frame and its edited one."""
    pairs = Pairs()
    for piece in parts:
        for frame in piece.source:
            pairs.expect(frame)
        yield from pairs.join(piece.edited)


def differences(recorded: Header, now: Header) -> list[str]:
    """What keeps a replay from being bit-identical, in words; weights count where all else of a model is the same."""
    names = ["model", "dtype"] if (recorded.model, recorded.dtype) != (now.model, now.dtype) else ["weights"]
    pairs = ((name, getattr(recorded, name), getattr(now, name)) for name in (*names, "device", "torch", "threads"))
    return [f"{name} {after}, recorded with {before}" for name, before, after in pairs if before != after]


def pieces(log: Log, editor: "Editor", *, steps: int | None = None) -> Iterator[Piece]:
    """The stream of a log, step by step."""
    now = header_of(editor)
    if log.header.model != now.model:
        yield from _other_chunks(log, editor, steps)
    elif not log.chunks or log.chunks[0].begins:
        yield from _same_chunks(log, editor, steps, None)
    else:  # the recording began in the middle of a stream: go on from what was remembered then
        start = log.path.parent / START
        same = (log.header.weights, log.header.dtype) == (now.weights, now.dtype)
        if same and start.exists():
            yield from _same_chunks(log, editor, steps, snapshot.load(start))
            return
        why = "not there" if same else "of other weights or another precision"
        warnings.warn(f"what the stream remembered when the recording began is {why}; it begins anew", stacklevel=2)
        yield from _other_chunks(log, editor, log.chunks[0].steps if steps is None else steps)


def real(record: ChunkRecord) -> int:
    """How many frames of a chunk are of the source. What comes after only fills it up, and bears the last number."""
    numbers = record.frames
    return numbers.index(numbers[-1]) + 1


def recorded(log: Log) -> Generator[tuple[ChunkRecord, str, tuple[Frame, ...]], None, None]:
    """Each chunk of a log with its frames; their times begin with 0. Ends, with a warning, where frames are missing."""
    from sana_streaming.io.lossless import read_lossless

    part, size, begin = -1, (0, 0), log.chunks[0].pts[0] if log.chunks else Fraction(0)
    pictures: Any = iter(())
    for record, digest in zip(log.chunks, log.digests, strict=True):
        if record.size != size:
            pictures.close() if part >= 0 else None
            part, size = part + 1, record.size
            pictures = read_lossless(log.path.parent / source_name(part))
        frames = tuple(Frame(rgb, pts - begin) for pts, rgb in zip(record.pts, pictures, strict=False))
        if len(frames) < len(record.pts):
            warnings.warn(f"the source ends before chunk {record.number} of the log; it ends there", stacklevel=2)
            return
        yield record, digest, frames


def _same_chunks(log: Log, editor: "Editor", steps: int | None, start: snapshot.Snapshot | None) -> Iterator[Piece]:
    """Chunks as they were recorded; start: what the stream remembered, if the first is not its beginning."""
    session: Session | None = None
    with closing(recorded(log)) as chunks:
        for record, digest, frames in chunks:
            if session is None or record.begins:
                yield from _rest(session)
                session = _begin(editor, record, steps, {"guidance": record.guidance, "chunk": _chunk(editor, record)})
                if start is not None and not record.begins:
                    snapshot.put(session, start)
            _request(session, record)
            used = record.steps if steps is None else steps
            if used != len(session.sampling.levels) - 1:
                session.sampling = sampling(editor.config.sampler, used)
            edited = session.step(_tensor(frames))
            yield Piece(frames[: real(record)], edited.numpy(), digest_of(edited) == digest)
    yield from _rest(session)


def _other_chunks(log: Log, editor: "Editor", steps: int | None) -> Iterator[Piece]:
    """The same frames and requests in the chunks of another model."""
    session: Session | None = None
    gathered: list[Frame] = []
    waiting: list[ChunkRecord] = []
    wanted = 0

    def step() -> Iterator[Piece]:
        if session is None or not gathered:
            return
        padded = _tensor((*gathered, *gathered[-1:] * (wanted - len(gathered))))
        source = tuple(gathered)
        gathered.clear()
        yield Piece(source, edit(session, padded, editor.stride), None)

    with closing(recorded(log)) as chunks:
        for record, _, frames in chunks:
            if session is None or record.begins:
                yield from step()
                yield from _rest(session)
                session, waiting = _begin(editor, record, steps, {}), []
            waiting.append(record)
            for frame in frames[: real(record)]:
                if not gathered:
                    for request in waiting:
                        _request(session, request)
                    waiting, wanted = [], session.chunk_frames
                gathered.append(frame)
                if len(gathered) == wanted:
                    yield from step()
    yield from step()
    yield from _rest(session)


def _begin(editor: "Editor", record: ChunkRecord, steps: int | None, options: dict[str, Any]) -> "Session":
    if options.get("guidance", 1.0) != 1 and record.negative_prompt is not None:
        options["negative_prompt"] = record.negative_prompt
    if record.cuts != "ignore":
        options["cuts"] = record.cuts
    if steps is None and "guidance" in options:
        steps = record.steps
    return editor.session(record.prompt, seed=record.seed, steps=steps, **options)


def _chunk(editor: "Editor", record: ChunkRecord) -> int | None:
    """The option of that name that gives the recorded lengths."""
    sampler = editor.config.sampler
    return None if record.lengths == (sampler.first_chunk, sampler.chunk) else record.lengths[1]


def _request(session: "Session", record: ChunkRecord) -> None:
    """Ask for what took effect in a chunk."""
    if record.reseeded:
        session.generator = torch.Generator().manual_seed(record.seed)
        session.state = session.state and replace(session.state, noise=None)
    if record.policy is not None:
        session.set_prompt(record.prompt, record.policy)
    if record.reset:
        session.reset()
    if record.anchor:
        session.anchor()


def _rest(session: "Session | None") -> Iterator[Piece]:
    """What a stream that ends still holds back."""
    edited = None if session is None else session.flush()
    if edited is not None and len(edited):
        yield Piece((), edited.numpy(), None)


def _tensor(frames: tuple[Frame, ...]) -> Tensor:
    return torch.from_numpy(np.stack([frame.rgb for frame in frames]))

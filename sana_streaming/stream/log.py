"""The log of a stream: all that decides its edited frames, one JSON object a line, keyed on chunks and frames.

    {"type": "session", "version": 1, "model": ..., "weights": ..., "dtype": ..., "device": ..., "threads": ..., ...}
    {"type": "chunk", "number": 0, "frames": [...], "pts": ["1/16", ...], "prompt": ..., "seed": ..., "digest": ...}
    {"type": "event", "chunk": 1, "message": {...}}                         what was told on the way; decides nothing
    {"type": "end", "chunks": 1, "reason": "stopped"}                       a log without it was cut off

The frames themselves lie beside it, see `server.recorder`. No line holds a wall-clock time.
"""

import dataclasses
import hashlib
import json
import platform
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from .snapshot import Snapshot, take

if TYPE_CHECKING:
    from .editor import Editor
    from .session import Session

VERSION = 1
SAMPLE = 1024  # values of each tensor of a model that its fingerprint reads


class LogError(ValueError):
    """A log that cannot be read. The message is one line."""


@dataclass(frozen=True)
class ChunkRecord:
    """All that decides one chunk of a stream, but its frames and what the stream remembers of those before."""

    number: int  # of the chunk in its stream, from 0
    frames: tuple[int, ...]  # numbers of the source frames, as many as the session saw
    pts: tuple[Fraction, ...]  # their seconds
    size: tuple[int, int]  # width and height as edited
    prompt: str  # in force in this chunk
    seed: int  # in force in this chunk
    steps: int  # likewise
    guidance: float = 1.0
    negative_prompt: str | None = None
    lengths: tuple[int, int] = (1, 1)  # latent frames of first and other chunks
    cuts: str = "ignore"
    begins: bool = False  # a new session: nothing of what was before matters
    policy: str | None = None  # of a prompt that takes effect here; None: the prompt is that of the chunk before
    reseeded: bool = False  # the noise begins anew here, with `seed`
    reset: bool = False
    anchor: bool = False
    before: Snapshot | None = field(default=None, compare=False, repr=False)  # what is remembered; no part of the log


class SourceFrame(Protocol):
    """A frame as it came in."""

    @property
    def rgb(self) -> Any: ...  # uint8 [H, W, 3]

    @property
    def pts(self) -> Fraction: ...

    @property
    def number(self) -> int: ...

    @property
    def captured(self) -> float: ...  # seconds by this machine's clock, when it came


class Tap(Protocol):
    """Who listens to a stream, such as a recorder. No call waits for anything, nor raises.

    Calls come from the threads of the hub; arrays and tensors are not changed after the call, by either side.
    """

    def source(self, frame: SourceFrame) -> None:
        """A frame came in. Not every one is edited: frames are dropped, or pass by."""
        ...

    def chunk(self, number: int, frames: Tensor, edited: Tensor, record: ChunkRecord) -> None:
        """A chunk was edited: RGB uint8 [F, H, W, 3] as the session saw it and as it gave it. `record` was made by
        `describe` before the step."""
        ...

    def event(self, message: Any) -> None:
        """Something was told to the client or by it: a message of the protocol."""
        ...


def describe(
    session: "Session",
    *,
    frames: tuple[int, ...],
    pts: tuple[Fraction, ...],
    size: tuple[int, int],
    prompt: str,
    seed: int,
    reseeded: bool = False,
) -> ChunkRecord:
    """The record of a session's next chunk; to be called right before its `step`, after all requests were made.

    frames, pts: number and time of each frame of the chunk. size: width and height. prompt, seed: those in force in
    this chunk (the session keeps neither as such). reseeded: the noise was begun anew, with `seed`, for this chunk."""
    begins = session.chunks == 0
    return ChunkRecord(
        number=session.chunks,
        frames=frames,
        pts=pts,
        size=size,
        prompt=prompt,
        seed=seed,
        steps=len(session.sampling.levels) - 1,
        guidance=session.guidance,
        negative_prompt=session.negative,
        lengths=session.lengths,
        cuts=session.on_cut,
        begins=begins,
        policy=None if session.change is None else session.change.policy,
        reseeded=reseeded,
        reset=session.resetting is not None,
        anchor=session.anchoring is not None,
        before=None if begins else take(session),
    )


@dataclass(frozen=True)
class Header:
    """What made the frames of a log, and where."""

    model: str
    weights: str  # fingerprint
    dtype: str
    device: str
    torch: str
    threads: int  # of a CPU: sums are split among them, and rounded accordingly


@dataclass(frozen=True)
class Log:
    """A log that was read."""

    path: Path
    header: Header
    chunks: tuple[ChunkRecord, ...]
    digests: tuple[str, ...]  # of each chunk's edited frames
    complete: bool


def header_of(editor: "Editor") -> Header:
    """What an editor's frames are made of, to compare with that of a log."""
    device = editor.device
    cpu = device.type == "cpu"
    name = f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}" if cpu else _gpu(device)
    dtype = str(next(editor.dit.parameters()).dtype).removeprefix("torch.")
    threads = torch.get_num_threads() if cpu else 0
    return Header(editor.config.name, fingerprint(editor.dit, editor.codec), dtype, name, torch.__version__, threads)


def _gpu(device: torch.device) -> str:
    return f"{device.type} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


def fingerprint(*modules: nn.Module) -> str:
    """Of names, shapes and some values of every weight: another training gives another one. Takes moments, also for
    models of gigabytes."""
    digest = hashlib.sha256()
    for module in modules:
        for name, value in module.state_dict().items():
            flat = value.detach().flatten()
            some = flat[:: max(1, -(-len(flat) // SAMPLE))].cpu().contiguous()
            digest.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
            digest.update(some.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def digest_of(frames: Tensor) -> str:
    """Of frames, uint8: equal if and only if they are bit-identical."""
    return hashlib.blake2b(frames.contiguous().numpy().tobytes(), digest_size=8).hexdigest()


def header_line(header: Header) -> str:
    return _line({"type": "session", "version": VERSION, **dataclasses.asdict(header)})


def chunk_line(record: ChunkRecord, digest: str) -> str:
    values = {f.name: getattr(record, f.name) for f in dataclasses.fields(record) if f.name != "before"}
    return _line({"type": "chunk", **values, "pts": [str(pts) for pts in record.pts], "digest": digest})


def event_line(chunk: int, message: Mapping[str, Any]) -> str:
    """chunk: number of the chunks of this log that were complete before."""
    return _line({"type": "event", "chunk": chunk, "message": dict(message)})


def end_line(chunks: int, reason: str) -> str:
    return _line({"type": "end", "chunks": chunks, "reason": reason})


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def read_log(path: str | Path) -> Log:
    """A log; of one that was cut off, what is whole, with a warning. LogError for what is no log."""
    path = Path(path)
    try:
        text = path.read_bytes().decode(errors="replace")
    except OSError as error:
        raise LogError(f"cannot read {path.name}: {error.strerror}; expected the log of a recording") from error
    header: Header | None = None
    chunks: list[ChunkRecord] = []
    digests: list[str] = []
    complete = False
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        value = _parsed(line)
        if value is None and header is not None and not line.endswith("\n"):
            break  # the line that was being written when the power went
        if value is None:
            raise LogError(f"cannot read {path.name}: line {number} is not one of a session log")
        try:
            if header is None:
                header = _header(value, path.name)
            elif value["type"] == "chunk":
                chunks.append(_chunk(value))
                digests.append(value["digest"])
            elif value["type"] == "end":
                complete = True
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            if isinstance(error, LogError):
                raise
            raise LogError(f"cannot read {path.name}: line {number} is not one of a session log ({error})") from error
    if header is None:
        raise LogError(f"cannot read {path.name}: expected the log of a recording, got an empty file")
    if not complete:
        warnings.warn(f"{path.name} was cut off after {len(chunks)} chunks; it ends there", stacklevel=2)
    return Log(path, header, tuple(chunks), tuple(digests), complete)


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and line.endswith("\n") else None


def _header(value: dict[str, Any], name: str) -> Header:
    if value.get("type") != "session":
        raise LogError(f"cannot read {name}: expected the log of a recording, which begins with a line of its session")
    if value.get("version") != VERSION:
        raise LogError(f"cannot read {name}: expected a log of version {VERSION}, got {value.get('version')}")
    return Header(**{f.name: value[f.name] for f in dataclasses.fields(Header)})


def _chunk(value: dict[str, Any]) -> ChunkRecord:
    fields = {f.name: value[f.name] for f in dataclasses.fields(ChunkRecord) if f.name != "before"}
    if not len(fields["frames"]) == len(fields["pts"]) > 0:
        raise ValueError(f"{len(fields['frames'])} frames and {len(fields['pts'])} times")
    lists = {name: tuple(fields[name]) for name in ("frames", "size", "lengths")}
    return ChunkRecord(**{**fields, **lists, "pts": tuple(Fraction(pts) for pts in fields["pts"])})

"""What a session remembers at one moment, to go on from there elsewhere or later, bit for bit."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sana_streaming.state import map_state

from .scene_cuts import Watch

if TYPE_CHECKING:
    from .road import EditState
    from .session import Session


@dataclass(frozen=True)
class Snapshot:
    """A session between two chunks. Costs nothing to take: state is never changed in place."""

    chunks: int
    size: tuple[int, int]  # height and width
    state: EditState | None
    generator: Tensor  # the state of the random generator
    watch: Watch


def take(session: Session) -> Snapshot:
    return Snapshot(session.chunks, session.size, session.state, session.generator.get_state(), session.watch)


def put(session: Session, snapshot: Snapshot) -> None:
    """Let a session, of the same model and with the same settings, go on from a snapshot."""
    session.chunks, session.size, session.watch = snapshot.chunks, snapshot.size, snapshot.watch
    session.state = map_state(lambda x: x.to(session.editor.device), snapshot.state)
    session.generator.set_state(snapshot.generator)


def save(snapshot: Snapshot, path: Path) -> None:
    torch.save(_plain(snapshot), path)


def load(path: Path) -> Snapshot:
    """ValueError if the file does not hold one. Nothing in it is run: it can only fill classes that are loaded."""
    try:
        snapshot = _value(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise ValueError(f"cannot read {path.name}: it does not hold what a stream remembers ({error})") from error
    if not isinstance(snapshot, Snapshot):
        raise ValueError(f"cannot read {path.name}: it does not hold what a stream remembers")
    return snapshot


def _plain(value: Any) -> Any:
    """Dataclasses as dictionaries that name their class."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()  # a view would bring all of what it is a view of
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if dataclasses.is_dataclass(value):
        kind = type(value)
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": [kind.__module__, kind.__qualname__], "fields": fields}
    return value


def _value(plain: Any) -> Any:
    if isinstance(plain, tuple):
        return tuple(_value(item) for item in plain)
    if isinstance(plain, dict):
        module, name = plain["class"]
        kind = getattr(sys.modules[module], name)
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            raise ValueError(f"{module}.{name} is no part of a state")
        return kind(**{key: _value(item) for key, item in plain["fields"].items()})
    return plain

"""All sessions of a server, those who wait included, and the lock that guards them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from .admission import Admission
from .hosted import Hosted
from .limits import Limits
from .protocol import Closed, EditOffered, Opened, Queued, error

if TYPE_CHECKING:
    from sana_streaming.stream.editor import Editor


class Busy(Exception):
    """No room now. The session `id` waits in the queue: it is told `queued` as it moves up, then `opened`."""

    def __init__(self, position: int, session_id: str):
        super().__init__(f"no room for another session now: position {position} in the queue")
        self.position = position
        self.id = session_id


class UnknownSession(ValueError):
    """There is no session of this id, or no longer."""


class Registry:
    """`lives` and what they hold are read and changed under `lock`, but for what is the model thread's own. Who gives
    the model something to do tells `changed`."""

    def __init__(self, editor: Editor, limits: Limits, clock: Callable[[], float]):
        self.editor, self.limits, self.clock = editor, limits, clock
        self.admission = Admission(limits.sessions, limits.waiting, limits.together)
        self.lives: dict[str, Hosted] = {}
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)

    def known(self, session_id: str) -> Hosted:
        if session_id not in self.lives:
            raise UnknownSession("there is no session of this id, or no longer")
        return self.lives[session_id]

    def enter(self, live: Hosted) -> None:
        """A new session begins, or waits: Busy. QueueFull if there is no place even for that."""
        with self.lock:
            live.position = self.admission.ask(live.id, live.demand)
            self.lives[live.id] = live
            if live.position:
                raise Busy(live.position, live.id)
            self.tell_opened(live)

    def close(self, session_id: str, reason: str) -> None:
        """End a session at once. Unknown ids do nothing."""
        with self.lock:
            live = self.lives.pop(session_id, None)
            if live is None:
                return
            self.admission.leave(session_id)
            if live.state != "closed":  # as one that had not begun is at its own wish
                live.enter("end")
            live.tell(Closed(reason=reason))
            self.advance()
            self.changed.notify_all()

    def advance(self) -> None:
        """Let those begin who waited and for whom there is room now."""
        with self.lock:
            now = self.clock()
            for session_id in self.admission.advance():
                live = self.lives[session_id]
                live.position, live.presence = 0, replace(live.presence, active=now)
                self.tell_opened(live)
            for session_id in self.admission.queue:
                live, position = self.lives[session_id], self.admission.position(session_id)
                if position != live.position:
                    live.position = position
                    live.tell(Queued(position=position))

    def tell_opened(self, live: Hosted, resumed: bool = False) -> None:
        config = self.editor.config
        edits = (EditOffered(name=n, kind=e.kind, example=e.example, strong=e.strong) for n, e in config.edits.items())
        live.tell(
            Opened(
                id=live.id,
                model=config.name,
                edits=tuple(edits),
                prompt_limit=self.limits.prompt,
                width=live.size[0],
                height=live.size[1],
                chunk_frames=live.governor.chunk,
                fps=live.fps,
                resumed=resumed,
            )
        )
        live.tell_state()

    def tell_error(self, session_id: str, code: str, failure: object, n: int | None = None) -> None:
        with self.lock:
            if (live := self.lives.get(session_id)) is not None:
                live.tell(error(code, failure, n))

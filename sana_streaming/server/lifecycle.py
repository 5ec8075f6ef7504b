"""The states of a session, and what leads from one to the next.

    idle -> warming -> running <-> paused -> draining -> closed

idle: open, nothing came yet. warming: frames are gathered for the first chunk, and it is edited. running: chunks are
edited. paused: nothing is edited, the last frame stays in view. draining: nothing more is taken in; what was taken in
is still edited and shown. closed: over.
"""

from dataclasses import dataclass

from .protocol import State

TRANSITIONS: dict[str, dict[State, State]] = {
    "start": {"idle": "warming", "warming": "warming", "running": "running"},
    "edited": {"warming": "running", "running": "running", "paused": "paused", "draining": "draining"},
    "pause": {"idle": "paused", "warming": "paused", "running": "paused", "paused": "paused"},
    "resume": {"paused": "running", "warming": "warming", "running": "running"},
    "drain": {"draining": "draining"},
    "close": {"idle": "closed", "warming": "draining", "running": "draining", "paused": "draining"},
    "end": {"idle": "closed", "warming": "closed", "running": "closed", "paused": "closed", "draining": "closed"},
}


def after(state: State, event: str) -> State:
    """The state that an event leads to. ValueError if it does not fit the state."""
    known = TRANSITIONS[event]
    if state not in known:
        raise ValueError(f"cannot {event} a session that is {state}: expected one that is {' or '.join(known)}")
    return known[state]


def edits(state: State) -> bool:
    """Whether chunks are edited in this state."""
    return state in ("warming", "running", "draining")


def takes(state: State) -> bool:
    """Whether frames are taken in; the first one starts a session that is idle."""
    return state in ("idle", "warming", "running")


@dataclass(frozen=True)
class Presence:
    """When a session was last heard of, and since when it has no connection."""

    active: float
    lost: float | None = None

    def overdue(self, now: float, idle: float, grace: float) -> str | None:
        """Why the session is given up, if it is."""
        if self.lost is not None:
            return f"no connection for {grace:.0f} s" if now - self.lost >= grace else None
        return f"idle for {idle:.0f} s" if now - self.active >= idle else None

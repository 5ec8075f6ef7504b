"""All sessions of a server on one model: commands and frames in, edited frames and messages out.

Transports call `open`, `command`, `push`, `pull` and `close` from any thread; one `Worker` thread runs the model.
Nobody waits for it: what happens is told through `notify`, a callable that takes one `ServerMessage`, is called from
any thread, and must return at once and not call the hub.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from sana_streaming.io.size import Size
from sana_streaming.stream.governor import levels
from sana_streaming.stream.log import Tap

from . import lifecycle
from .admission import Admission, QueueFull
from .commands import carry_out
from .editing import Editing, Worker
from .frame import LiveFrame
from .hosted import Hosted, Notify
from .limits import Limits
from .protocol import ClientMessage, Open, SetPrompt, State, error
from .registry import Busy, Registry, UnknownSession

if TYPE_CHECKING:
    from sana_streaming.stream.editor import Editor

__all__ = ["Busy", "Hub", "Limits", "LiveFrame", "QueueFull", "UnknownSession", "Worker"]

Observe = Callable[[str, float], None]  # stage and seconds

DEFAULT_LIMITS = Limits()
DRAIN_SECONDS = 10.0  # after which a session that ends no longer waits for its viewers


class Hub:
    """See above. `editor`: an `Editor`; of it only `config`, `stride`, `device`, `prompt`, `session` and
    `step_together` are used.

    `observe` is told how many seconds each edited frame took, when it is shown: for each of the `STAGES` "fill" (from
    arrival until its chunk is complete), "queue" (until the model begins), "edit" (until it is ready) and "clock"
    (until it is shown), and for "total", their sum. It is called from the threads that pull, and must return at once.
    """

    def __init__(
        self,
        editor: Editor,
        limits: Limits = DEFAULT_LIMITS,
        clock: Callable[[], float] = time.monotonic,
        observe: Observe | None = None,
    ):
        if editor.config.sampler.clip:
            raise ValueError(f"the model {editor.config.name} edits clips as a whole: expected one that edits streams")
        self.editor, self.limits, self.clock, self.observe = editor, limits, clock, observe
        self._registry = Registry(editor, limits, clock)
        self._editing = Editing(editor, self._registry)
        self._lives, self._lock = self._registry.lives, self._registry.lock

    # Any thread

    def open(self, message: Open, notify: Notify) -> str:
        """A new session, or with `resume` one that lost its connection -> its id, which cannot be guessed. `opened`
        and `state` go to notify before this returns. ValueError in one line for what cannot be; Busy if it must wait
        (the id it carries may be used like any other), QueueFull, a ValueError, if it cannot even do that."""
        if message.resume is not None:
            return self._resume(message.resume, notify)
        size = self._size_for(message)
        self.limits.check_prompt(message.prompt)
        session = self.editor.session(message.prompt, seed=message.seed, steps=message.steps)
        sampler = self.editor.config.sampler
        all_levels = levels(sampler, message.steps or sampler.steps, size, self.editor.stride)
        if message.policy == "every":
            all_levels = all_levels[:1]  # nobody waits for these frames: they keep their quality
        session_id = secrets.token_urlsafe(24)
        self._registry.enter(Hosted(session_id, message, notify, session, all_levels, sampler.rate, self.clock()))
        return session_id

    def command(self, session_id: str, message: ClientMessage) -> None:
        """Carry out a command, at once or at the next chunk. Receipts and errors go to notify; nothing is raised.
        `open`, `record`, `offer` and `candidate` are the transport's own."""
        tell_error = self._registry.tell_error
        try:
            if isinstance(message, SetPrompt):
                self.limits.check_prompt(message.prompt)
                self.editor.prompt(message.prompt)  # read here, so that a prompt that cannot be is refused at once
            with self._lock:
                live = self._lives.get(session_id)
                if live is None:
                    return
                now = self.clock()
                live.presence = replace(live.presence, active=now)
                for tap in live.taps:
                    tap.event(message)
                carry_out(live, message, now)
                if live.state == "closed":
                    self.close(session_id, "closed")
                self._registry.changed.notify_all()
        except ValueError as failure:
            tell_error(session_id, "invalid" if isinstance(message, SetPrompt) else "state", failure, message.n)
        except MemoryError as failure:
            tell_error(session_id, "memory", failure, message.n)
        except Exception as failure:
            tell_error(session_id, "internal", f"{message.type} failed: {failure}", message.n)

    def push(self, session_id: str, frame: LiveFrame) -> bool:
        """A frame of the source, of the size that `opened` tells. Never blocks, never grows. False: it was not taken;
        under the policy "every" the same frame should then be offered again a little later."""
        with self._lock:
            live, now = self._lives.get(session_id), self.clock()
            if live is None or live.position:
                return False
            live.presence = replace(live.presence, active=now)
            if not lifecycle.takes(live.state) or misfits(live, frame):
                return False
            if live.governor.full and not live.bypass:
                return False
            if live.state == "idle":
                live.enter("start")
            live.frames_in += 1
            for tap in live.taps:
                tap.source(frame)
            if live.bypass:
                live.pacer.arrived(frame.pts, frame.captured)
                live.pacer.put((frame,))
            elif live.governor.push(frame, frame.captured):
                live.arrivals.append(frame.captured)
                live.pacer.arrived(frame.pts, frame.captured)
                if live.governor.ready_since is not None:
                    self._registry.changed.notify_all()
            return True

    def pull(self, session_id: str, now: float | None = None) -> LiveFrame | None:
        """The edited frame that is due, or the last one again, `repeated`; None before the first."""
        with self._lock:
            live = self._lives.get(session_id)
            if live is None:
                return None
            now = self.clock() if now is None else now
            before = live.pacer.shown
            frame = live.pacer.current if live.state == "paused" else live.pacer.pull(now)
            fresh = live.pacer.shown > before
            if frame is not None and fresh:
                live.latencies.append(now - frame.captured)
            panic, size = live.panic, live.size
        if frame is not None and fresh and frame.passage is not None and self.observe is not None:
            for stage, seconds in frame.passage.stages(frame.captured, now).items():
                self.observe(stage, seconds)
        if panic:
            black = np.zeros((size[1], size[0], 3), np.uint8)
            shown = frame or LiveFrame(black, Fraction(0), now, 0)
            return replace(shown, rgb=black, repeated=not fresh)
        return None if frame is None else replace(frame, repeated=not fresh)

    def due(self, session_id: str) -> float | None:
        """When to pull for the next frame to be shown in time; None while none waits."""
        with self._lock:
            live = self._lives.get(session_id)
            return None if live is None or live.state == "paused" else live.pacer.next_due

    def delay(self, session_id: str) -> float:
        """Seconds from push to pull now; what sound is delayed by."""
        with self._lock:
            live = self._lives.get(session_id)
            return 0.0 if live is None else live.pacer.delay

    def size(self, session_id: str) -> Size:
        """Width and height that frames are pushed at and come back at. ValueError if there is no such session."""
        with self._lock:
            return self._registry.known(session_id).size

    def state(self, session_id: str) -> State:
        """ValueError if there is no such session."""
        with self._lock:
            return self._registry.known(session_id).state

    @property
    def sessions(self) -> tuple[str, ...]:
        """Ids of all that are open, those in the queue included."""
        with self._lock:
            return tuple(self._lives)

    @property
    def admission(self) -> Admission:
        return self._registry.admission

    def taps(self, session_id: str, tap: Tap) -> None:
        """Let `tap` hear of all that goes on in a session, from its next chunk on. ValueError if there is none."""
        with self._lock:
            live = self._registry.known(session_id)
            live.taps = (*live.taps, tap)
            live.tell_state()  # "recording"

    def untap(self, session_id: str, tap: Tap) -> None:
        with self._lock:
            live = self._lives.get(session_id)
            if live is not None and tap in live.taps:
                live.taps = tuple(other for other in live.taps if other is not tap)
                live.tell_state()

    def detach(self, session_id: str) -> None:
        """The connection was lost: the session stays for the grace time, for `open` with `resume`."""
        with self._lock:
            if (live := self._lives.get(session_id)) is not None:
                live.presence = replace(live.presence, lost=self.clock())

    def close(self, session_id: str, reason: str = "") -> None:
        """End a session at once. Unknown ids do nothing."""
        self._registry.close(session_id, reason)

    def tick(self) -> None:
        """Once a second or so: statistics, timeouts, the queue."""
        with self._lock:
            now = self.clock()
            for live in tuple(self._lives.values()):
                waits = live.position > 0 and live.presence.lost is None
                why = live.presence.overdue(now, self.limits.idle_seconds, self.limits.grace_seconds)
                if why is not None and not waits:
                    self.close(live.id, why)
                elif live.drained is not None and (not live.pacer.waiting or now - live.drained > DRAIN_SECONDS):
                    self.close(live.id, "closed")
                elif not live.position:
                    live.tell(live.stats(now, self.editor.device))
            self._registry.advance()

    # The model's thread

    def warm(self, width: int, height: int, chunks: int = 4) -> None:
        """Edit a few grey chunks of a source of that size, so that the first viewer need not wait for what happens
        only once, and so that it is known what a chunk costs."""
        self._editing.warm(self._size_for(Open(prompt="", width=width, height=height, fps=1)), chunks)

    def work(self) -> bool:
        """Edit what must be ready first; False if there is nothing. The model's thread only."""
        return self._editing.work()

    def wait(self, seconds: float) -> None:
        """Until there may be work, at most so long."""
        self._editing.wait(seconds)

    # Without

    def _resume(self, session_id: str, notify: Notify) -> str:
        with self._lock:
            live, now = self._registry.known(session_id), self.clock()
            live.notify, live.presence = notify, lifecycle.Presence(now)
            if live.position:
                raise Busy(live.position, session_id)
            live.arrivals.clear()
            self._registry.tell_opened(live, resumed=True)
        return session_id

    def _size_for(self, message: Open) -> Size:
        return self.limits.size_for(message, self.editor.config, self.editor.stride, self.editor.device)


def misfits(live: Hosted, frame: LiveFrame) -> bool:
    """Whether the frame is not of the session's size; told once in a row."""
    width, height = live.size
    fits = frame.rgb.dtype == np.uint8 and frame.rgb.shape == (height, width, 3)
    if not fits and not live.refused:
        shape = "x".join(map(str, frame.rgb.shape))
        live.tell(error("invalid", f"expected frames of {height}x{width}x3 uint8, got {shape} {frame.rgb.dtype}"))
    live.refused = not fits
    return not fits

"""All sessions of a server on one model: commands and frames in, edited frames and messages out.

Transports call `open`, `command`, `push`, `pull` and `close` from any thread; one `Worker` thread runs the model.
Nobody waits for it: what happens is told through `notify`, a callable that takes one `ServerMessage`, is called from
any thread, and must return at once and not call the hub.

Streams are edited one chunk after the other, the one that must be ready first before the others.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sana_streaming.diffusion.flow import sampling
from sana_streaming.io.size import Size, working_geometry
from sana_streaming.stream.governor import Level, levels
from sana_streaming.stream.log import Tap, describe
from sana_streaming.stream.prompt_policy import Receipt
from sana_streaming.stream.run import DEFAULT_SIZES, SMALLEST_SIZE

from . import lifecycle
from .admission import Admission, QueueFull
from .hosted import Hosted, LiveFrame, Notify
from .protocol import (
    Accepted,
    Anchor,
    Applied,
    Bypass,
    ClientMessage,
    Close,
    Closed,
    Command,
    EditOffered,
    Open,
    Opened,
    Panic,
    Pause,
    Queued,
    Reset,
    Resume,
    SetPrompt,
    SetSeed,
    Start,
    State,
    Warn,
    error,
)

if TYPE_CHECKING:
    from sana_streaming.stream.editor import Editor

__all__ = ["Busy", "Hub", "Limits", "LiveFrame", "QueueFull", "UnknownSession", "Worker"]

WIDEST = 4  # width over height, and the other way round
DRAIN_SECONDS = 10.0  # after which a session that ends no longer waits for its viewers


@dataclass(frozen=True)
class Limits:
    """What one server takes on."""

    sessions: int = 8  # at most, whatever the model could do
    waiting: int = 16  # places in the queue
    prompt: int = 500  # characters
    side: int = 1280  # pixels of an edited frame, at most
    fps: float = 60.0
    idle_seconds: float = 60.0  # without a frame or a command
    grace_seconds: float = 30.0  # without a connection


class Busy(Exception):
    """No room now. The session `id` waits in the queue: it is told `queued` as it moves up, then `opened`."""

    def __init__(self, position: int, session_id: str):
        super().__init__(f"no room for another session now: position {position} in the queue")
        self.position = position
        self.id = session_id


class UnknownSession(ValueError):
    """There is no session of this id, or no longer."""


class Hub:
    """See above. `editor`: an `Editor`; of it only `config`, `stride`, `device`, `prompt` and `session` are used."""

    def __init__(self, editor: Editor, limits: Limits = Limits(), clock: Callable[[], float] = time.monotonic):
        if editor.config.sampler.clip:
            raise ValueError(f"the model {editor.config.name} edits clips as a whole: expected one that edits streams")
        self.editor, self.limits, self.clock = editor, limits, clock
        self.admission = Admission(limits.sessions, limits.waiting)
        self._lives: dict[str, Hosted] = {}
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)

    # Any thread

    def open(self, message: Open, notify: Notify) -> str:
        """A new session, or with `resume` one that lost its connection -> its id, which cannot be guessed. `opened`
        and `state` go to notify before this returns. ValueError in one line for what cannot be; Busy if it must wait
        (the id it carries may be used like any other), QueueFull, a ValueError, if it cannot even do that."""
        if message.resume is not None:
            return self._resume(message.resume, notify)
        size = self._size_for(message)
        self._check_prompt(message.prompt)
        session = self.editor.session(message.prompt, seed=message.seed, steps=message.steps)
        sampler = self.editor.config.sampler
        all_levels = levels(sampler, message.steps or sampler.steps, size, self.editor.stride)
        if message.policy == "every":
            all_levels = all_levels[:1]  # nobody waits for these frames: they keep their quality
        session_id = secrets.token_urlsafe(24)
        with self._lock:
            live = Hosted(session_id, message, notify, session, all_levels, sampler.rate, self.clock())
            live.position = self.admission.ask(session_id, live.asked * all_levels[0].cost)
            self._lives[session_id] = live
            if live.position:
                raise Busy(live.position, session_id)
            self._tell_opened(live)
        return session_id

    def command(self, session_id: str, message: ClientMessage) -> None:
        """Carry out a command, at once or at the next chunk. Receipts and errors go to notify; nothing is raised.
        `open`, `record`, `offer` and `candidate` are the transport's own."""
        try:
            if isinstance(message, SetPrompt):
                self._check_prompt(message.prompt)
                self.editor.prompt(message.prompt)  # read here, so that a prompt that cannot be is refused at once
            with self._lock:
                live = self._lives.get(session_id)
                if live is None:
                    return
                live.presence = replace(live.presence, active=self.clock())
                for tap in live.taps:
                    tap.event(message)
                self._carry_out(live, message)
                self._changed.notify_all()
        except ValueError as failure:
            self._tell_error(session_id, "invalid" if isinstance(message, SetPrompt) else "state", failure, message.n)
        except MemoryError as failure:
            self._tell_error(session_id, "memory", failure, message.n)
        except Exception as failure:
            self._tell_error(session_id, "internal", f"{message.type} failed: {failure}", message.n)

    def push(self, session_id: str, frame: LiveFrame) -> bool:
        """A frame of the source, of the size that `opened` tells. Never blocks, never grows. False: it was not taken;
        under the policy "every" the same frame should then be offered again a little later."""
        with self._lock:
            live, now = self._lives.get(session_id), self.clock()
            if live is None or live.position:
                return False
            live.presence = replace(live.presence, active=now)
            if not lifecycle.takes(live.state) or self._misfits(live, frame):
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
                    self._changed.notify_all()
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
            if live.panic:
                black = np.zeros((live.size[1], live.size[0], 3), np.uint8)
                return replace(frame, rgb=black, repeated=not fresh) if frame else LiveFrame(black, Fraction(0), now, 0)
            return None if frame is None else replace(frame, repeated=not fresh)

    def delay(self, session_id: str) -> float:
        """Seconds from push to pull now; what sound is delayed by."""
        with self._lock:
            live = self._lives.get(session_id)
            return 0.0 if live is None else live.pacer.delay

    def size(self, session_id: str) -> Size:
        """Width and height that frames are pushed at and come back at. ValueError if there is no such session."""
        with self._lock:
            return self._known(session_id).size

    def state(self, session_id: str) -> State:
        """ValueError if there is no such session."""
        with self._lock:
            return self._known(session_id).state

    @property
    def sessions(self) -> tuple[str, ...]:
        """Ids of all that are open, those in the queue included."""
        with self._lock:
            return tuple(self._lives)

    def taps(self, session_id: str, tap: Tap) -> None:
        """Let `tap` hear of all that goes on in a session, from its next chunk on. ValueError if there is none."""
        with self._lock:
            live = self._known(session_id)
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
        with self._lock:
            live = self._lives.pop(session_id, None)
            if live is None:
                return
            self.admission.leave(session_id)
            live.enter("end")
            live.tell(Closed(reason=reason))
            self._advance()
            self._changed.notify_all()

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
            self._advance()

    # The model's thread

    def warm(self, width: int, height: int, chunks: int = 3) -> None:
        """Edit a few grey chunks of a source of that size, so that the first viewer need not wait for what happens
        only once, and so that it is known what a chunk costs."""
        size = self._size_for(Open(prompt="", width=width, height=height, fps=1))
        sampler = self.editor.config.sampler
        edits = self.editor.config.edits
        prompt = next((edit.example for edit in edits.values()), "make it brighter")
        session, level = self.editor.session(prompt), levels(sampler, sampler.steps, size, self.editor.stride)[0]
        for number in range(chunks):
            frames = torch.full((session.chunk_frames, size[1], size[0], 3), 128, dtype=torch.uint8)
            begin = self.clock()
            session.step(frames)
            if number:
                self.admission.measure(self.clock() - begin, len(frames) * level.cost)

    def work(self) -> bool:
        """Edit the chunk of all sessions that must be ready first; False if there is none. The model's thread only."""
        self._give_requests()
        with self._lock:
            live = self._urgent()
            if live is None:
                return False
            frames, epoch, taps = self._take(live), live.epoch, live.taps
        try:
            if frames:
                self._edit(live, frames, epoch, taps)
            else:  # of a stream that ends
                self._emit(live, live.session.flush(), epoch)
                with self._lock:
                    live.drained = self.clock()
        except MemoryError as failure:
            self._fail(live, "memory", failure)
        except FloatingPointError as failure:
            self._begin_anew(live, len(frames), failure)
        except Exception as failure:
            self._fail(live, "editor", f"{type(failure).__name__}: {failure}")
        return True

    def wait(self, seconds: float) -> None:
        """Until there may be work, at most so long."""
        with self._changed:
            if self._urgent() is None and not any(live.requests for live in self._lives.values()):
                self._changed.wait(seconds)

    def _give_requests(self) -> None:
        """What clients asked for, to their sessions; each then knows how long its next chunk is."""
        with self._lock:
            asked = [(live, tuple(live.requests.values())) for live in self._lives.values() if live.requests]
            for live, _ in asked:
                live.requests.clear()
        for live, requests in asked:
            for request in requests:
                try:
                    live.given[request.type] = (request, self._request(live, request))  # type: ignore[attr-defined]
                except Exception as failure:
                    self._tell_error(live.id, "editor", failure, request.n)
            with self._lock:
                live.governor.expect(live.session.chunk_frames, self.clock())

    def _request(self, live: Hosted, request: Command) -> Receipt:
        session = live.session
        if isinstance(request, SetPrompt):
            receipt = session.set_prompt(request.prompt, request.policy)
            live.prompt_in_force = request.prompt
            return receipt
        if isinstance(request, SetSeed):
            # Noise as in a new stream with that seed; what is remembered of the picture stays.
            session.generator = torch.Generator().manual_seed(request.seed)
            session.state = session.state and replace(session.state, noise=None)
            live.seed_in_force, live.reseeded = request.seed, True
            return Receipt()
        return session.anchor() if isinstance(request, Anchor) else session.reset()

    def _urgent(self) -> Hosted | None:
        """Whose chunk must be ready first: before the next one of the same stream is gathered. No stream is put off
        for ever, for the time at which its frames were there stays, even if some of them are dropped."""
        first, soonest = None, float("inf")
        for live in self._lives.values():
            rests = live.bypass and live.state != "draining"
            if live.position or rests or not lifecycle.edits(live.state) or live.drained is not None:
                continue
            since = live.governor.ready_since
            if since is None and live.state == "draining":
                since = live.worked
            if since is not None and since + live.governor.chunk / live.rate < soonest:
                first, soonest = live, since + live.governor.chunk / live.rate
        return first

    def _take(self, live: Hosted) -> tuple[LiveFrame, ...]:
        """The frames of its next chunk; of a stream that ends the rest, or nothing."""
        frames = live.governor.take(self.clock()) or live.governor.rest()
        live.pending.extend((*frames, *[None] * (live.governor.chunk - len(frames))) if frames else ())
        return frames

    def _edit(self, live: Hosted, frames: tuple[LiveFrame, ...], epoch: int, taps: tuple[Tap, ...]) -> None:
        session, level, wanted = live.session, live.shedder.level, live.governor.chunk
        seen = resized(torch.from_numpy(np.stack([f.rgb for f in filled(frames, wanted)])), level.size)
        record = None
        if taps:
            step = Fraction(1 / live.asked).limit_denominator(1000)
            extra = [frames[-1].pts + step * (i + 1) for i in range(wanted - len(frames))]
            record = describe(
                session,
                frames=tuple(f.number for f in filled(frames, wanted)),
                pts=(*(f.pts for f in frames), *extra),
                size=level.size,
                prompt=live.prompt_in_force,
                seed=live.seed_in_force,
                reseeded=live.reseeded,
            )
        first = session.chunks == 0
        begin = self.clock()
        edited = session.step(seen)
        seconds = self.clock() - begin
        live.reseeded = False
        for tap in taps:
            assert record is not None
            tap.chunk(live.chunks, seen, edited, record)
        self._emit(live, edited, epoch)
        with self._lock:
            now = self.clock()
            live.chunks += 1
            live.worked = now
            live.pacer.period = 1 / live.rate
            if not first:  # which has more to do, once
                live.work.append((seconds, wanted / live.rate))
                self.admission.measure(seconds, wanted * level.cost)
            live.governor.expect(session.chunk_frames, now)
            if live.id in self._lives:
                self._tell_applied(live, frames[0].number)
                live.enter("edited")
            load = sum(other.load(now) for other in self._lives.values())
            changed = not first and live.shedder.observe(load, now)
        if changed:
            self._relevel(live, level)

    def _emit(self, live: Hosted, edited: Tensor, epoch: int) -> None:
        """Edited frames, of any size, to where they are shown. A codec that looks ahead gives them later."""
        pictures = resized(edited, live.size).numpy()
        with self._lock:
            sources = [live.pending.popleft() for _ in range(min(len(pictures), len(live.pending)))]
            done = [replace(f, rgb=rgb) for f, rgb in zip(sources, pictures, strict=False) if f is not None]
            if live.epoch == epoch:
                live.pacer.add(done, self.clock())

    def _relevel(self, live: Hosted, before: Level) -> None:
        """Go on with other steps, or at another size as a new session with the same prompt and seed."""
        level, session = live.shedder.level, live.session
        if level.size == before.size:
            session.sampling = sampling(self.editor.config.sampler, level.steps)
        else:
            self._emit(live, session.flush(), live.epoch)
            self._another(live)
        with self._lock:
            live.work.clear()
            live.governor.expect(live.session.chunk_frames, self.clock())
            live.tell_state()

    def _another(self, live: Hosted) -> None:
        """A new session at the level of now takes over, with the prompt and the seed in force."""
        prompt, seed, steps = live.prompt_in_force, live.seed_in_force, live.shedder.level.steps
        live.session, live.reseeded = self.editor.session(prompt, seed=seed, steps=steps), False
        with self._lock:
            live.pending.clear()

    def _begin_anew(self, live: Hosted, frames: int, failure: FloatingPointError) -> None:
        """A stream whose numbers went out of range loses that chunk and its memory, and the show goes on; one that
        does so in its first chunk ends."""
        if live.session.chunks == 0:
            self._fail(live, "editor", failure)
            return
        self._another(live)
        with self._lock:
            live.governor.dropped += frames
            live.requests = {**{kind: request for kind, (request, _) in live.given.items()}, **live.requests}
            live.given = {}
            live.governor.expect(live.session.chunk_frames, self.clock())
            live.tell(Warn(message=f"the stream begins anew: {' '.join(str(failure).split())}"))

    def _tell_applied(self, live: Hosted, frame: int) -> None:
        """Receipts that the chunk just edited, which began with that source frame, has filled in."""
        for kind, (request, receipt) in tuple(live.given.items()):
            if receipt.applied is not None or isinstance(request, SetSeed):
                del live.given[kind]
                live.tell(Applied(n=request.n, command=kind, chunk=live.chunks - 1, frame=frame))

    def _fail(self, live: Hosted, code: str, failure: object) -> None:
        """The session ends, the others go on."""
        self._tell_error(live.id, code, failure)
        self.close(live.id, "the model failed")

    # With the lock held

    def _carry_out(self, live: Hosted, message: ClientMessage) -> None:
        """ValueError for what does not fit."""
        if live.position:
            raise ValueError(f"this session waits at position {live.position} of the queue")
        now = self.clock()
        match message:
            case SetPrompt() | SetSeed() | Reset() | Anchor():
                if live.state == "draining":
                    raise ValueError(f"cannot {message.type} in a session that is ending")
                live.requests.pop(message.type, None)
                live.requests[message.type] = message
                live.tell(Accepted(n=message.n, command=message.type))
                if isinstance(message, SetPrompt):
                    live.prompt = message.prompt
                    if live.policy == "latest":  # a prompt should be seen on what is in front of the camera now
                        live.governor.dropped += live.governor.flush(live.governor.chunk)
                elif isinstance(message, SetSeed):
                    live.seed = message.seed
                live.tell_state()
            case Start() | Pause() | Resume() | Close():
                was = live.state
                state = lifecycle.after(was, message.type)
                live.tell(Accepted(n=message.n, command=message.type))
                live.enter(message.type)
                if was == "paused" and state != "paused":
                    live.pacer.hold()
                    live.epoch += 1
                    live.arrivals.clear()
                    if live.policy == "latest":
                        live.governor.dropped += live.governor.flush()
                if state == "draining":
                    live.worked = now
                elif state == "closed":
                    self.close(live.id, "closed")
            case Bypass():
                live.tell(Accepted(n=message.n, command=message.type))
                live.bypass = message.on
                live.arrivals.clear()
                if message.on:
                    live.pacer.put(live.governor.rest())
                live.tell_state()
            case Panic():
                live.tell(Accepted(n=message.n, command=message.type))
                live.panic = message.on
                live.tell_state()
            case _:
                raise ValueError(f"'{message.type}' is not a command of a session")

    def _resume(self, session_id: str, notify: Notify) -> str:
        with self._lock:
            live, now = self._known(session_id), self.clock()
            live.notify, live.presence = notify, lifecycle.Presence(now)
            if live.position:
                raise Busy(live.position, session_id)
            live.arrivals.clear()
            self._tell_opened(live, resumed=True)
        return session_id

    def _tell_opened(self, live: Hosted, resumed: bool = False) -> None:
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

    def _advance(self) -> None:
        """Let those begin who waited and for whom there is room now."""
        now = self.clock()
        for session_id in self.admission.advance():
            live = self._lives[session_id]
            live.position, live.presence = 0, replace(live.presence, active=now)
            self._tell_opened(live)
        for session_id in self.admission.queue:
            live, position = self._lives[session_id], self.admission.position(session_id)
            if position != live.position:
                live.position = position
                live.tell(Queued(position=position))

    def _misfits(self, live: Hosted, frame: LiveFrame) -> bool:
        """Whether the frame is not of the session's size; told once in a row."""
        width, height = live.size
        fits = frame.rgb.dtype == np.uint8 and frame.rgb.shape == (height, width, 3)
        if not fits and not live.refused:
            shape = "x".join(map(str, frame.rgb.shape))
            live.tell(error("invalid", f"expected frames of {height}x{width}x3 uint8, got {shape} {frame.rgb.dtype}"))
        live.refused = not fits
        return not fits

    def _known(self, session_id: str) -> Hosted:
        if session_id not in self._lives:
            raise UnknownSession("there is no session of this id, or no longer")
        return self._lives[session_id]

    # Without

    def _tell_error(self, session_id: str, code: str, failure: object, n: int | None = None) -> None:
        with self._lock:
            if (live := self._lives.get(session_id)) is not None:
                live.tell(error(code, failure, n))

    def _check_prompt(self, prompt: str) -> None:
        if len(prompt) > self.limits.prompt:
            raise ValueError(f"expected a prompt of at most {self.limits.prompt} characters, got {len(prompt)}")

    def _size_for(self, message: Open) -> Size:
        """Width and height that a source is edited at."""
        width, height = message.width, message.height
        if message.fps > self.limits.fps:
            raise ValueError(f"expected at most {self.limits.fps:g} frames per second, got {message.fps:g}")
        if min(width, height) < SMALLEST_SIZE or max(width, height) > WIDEST * min(width, height):
            raise ValueError(
                f"expected a picture of at least {SMALLEST_SIZE} pixels and at most {WIDEST} times as long as wide, "
                f"got {width}x{height}"
            )
        editor, side = self.editor, self.limits.side
        default = DEFAULT_SIZES.get(editor.device.type, 512)
        trained = editor.config.frame_size
        picture = working_geometry((width, height), editor.stride, fit="crop", default=default, trained=trained).picture
        if max(picture) > side:
            short = max(editor.stride, side * min(width, height) // max(width, height))
            picture = working_geometry((width, height), editor.stride, fit="crop", short=short).picture
        largest = max(editor.stride, side // editor.stride * editor.stride)
        return min(picture[0], largest), min(picture[1], largest)


class Worker(threading.Thread):
    """Runs the model for a hub, until `stop`."""

    def __init__(self, hub: Hub):
        super().__init__(name="model", daemon=True)
        self.hub = hub
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set():
            if not self.hub.work():
                self.hub.wait(0.1)

    def stop(self) -> None:
        """After the chunk that is being edited."""
        self._stopping.set()


def filled(frames: tuple[LiveFrame, ...], wanted: int) -> tuple[LiveFrame, ...]:
    """With the last one repeated, if they are too few for a chunk."""
    return frames + frames[-1:] * (wanted - len(frames))


def resized(frames: Tensor, size: Size) -> Tensor:
    """RGB uint8 [F, H, W, 3] -> the same at another width and height."""
    width, height = size
    if frames.shape[1:3] == (height, width) or not len(frames):
        return frames
    planes = frames.permute(0, 3, 1, 2).float()
    scaled = F.interpolate(planes, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

"""One session as the transports see it: pictures in, frames out at a steady rate, messages.

All of it lives on the event loop, but `Live.notify`, which any thread may call. Pictures are decoded, scaled and
encoded in a pool of threads. Nothing here grows: of pictures that wait to be decoded the newest few are kept, and a
viewer that is slow gets the latest frame when it is ready for one.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np

from .audio import Sound
from .clocks import SourceClock
from .hub import Hub, LiveFrame
from .metrics import Metrics
from .protocol import Closed, Open, Opened, ServerMessage, Stats, Warn, error

WAITING = 2  # pictures that wait to be decoded
LOOK = 0.005  # seconds between two looks for a frame that is late
PATIENCE = 1.5  # periods after which the last frame is shown again
REMEMBERED = 1024  # source frames whose tag is kept until they come back
SMOOTHING = 0.1
SEEN = 0.9  # share of the source's picture that has to be left when it was cut to the session's shape
SHAPES = 8  # that are warned of

Decoded = tuple[np.ndarray, int | None]  # RGB uint8 [H, W, 3], stamp


class Listener(Protocol):
    """Who is told what a session says."""

    def end(self, code: int, reason: str) -> None:
        """Another one listens from now on."""
        ...

    def tell(self, message: ServerMessage) -> None:
        """On the event loop; must not wait."""
        ...


@dataclass(frozen=True)
class Shown:
    """A frame for viewers."""

    time: float  # seconds from when the feed began
    frame: LiveFrame


class View:
    """What one viewer sees: always the latest frame."""

    def __init__(self, feed: "Feed"):
        self._feed = feed
        self._latest: Shown | None = None
        self._some = asyncio.Event()
        self.closed = False

    def offer(self, shown: Shown) -> None:
        self._latest = shown
        self._some.set()

    async def next(self) -> Shown | None:
        """The next frame that this viewer has not seen; None if there will be none."""
        while not self.closed:
            await self._some.wait()
            self._some.clear()
            shown, self._latest = self._latest, None
            if shown is not None:
                return shown
        return None

    def close(self) -> None:
        self.closed = True
        self._feed.views.discard(self)
        self._some.set()


class Feed:
    """Pulls the edited frames of a session and shows each to all viewers.

    pull: the frame to show at a time, None before the first. due: when the next one is, None while none waits. seen: is
    told of each that is shown, and when."""

    def __init__(
        self,
        pull: Callable[[float], LiveFrame | None],
        due: Callable[[], float | None],
        fps: float,
        clock: Callable[[], float],
        seen: Callable,
    ):
        self.pull, self.due, self.fps, self.clock, self.seen = pull, due, fps, clock, seen
        self.views: set[View] = set()

    def view(self) -> View:
        view = View(self)
        self.views.add(view)
        return view

    async def run(self) -> None:
        """Each frame at the moment at which it is due, and the last one again while the next is late."""
        begin = shown = self.clock()
        while True:
            now = self.clock()
            frame = self.pull(now)
            if frame is not None and not (frame.repeated and now - shown < PATIENCE / self.fps):
                shown = now
                self.seen(frame, now)
                for view in tuple(self.views):
                    view.offer(Shown(now - begin, frame))
            due = self.due()
            wait = 0.0 if due is None else due - self.clock()
            await asyncio.sleep(min(wait, 1 / self.fps) if wait > 0 else LOOK)


class Live:
    """One session. `ended` is called once, when it is over."""

    def __init__(
        self,
        hub: Hub,
        pool: Executor,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        ended: Callable[["Live"], None] = lambda _: None,
    ):
        self.hub, self.pool, self.metrics, self.clock, self.ended = hub, pool, metrics, clock, ended
        self.loop = asyncio.get_running_loop()
        self.opened: Opened | None = None
        self.id = ""
        self.stamped = False
        self.source_height = 0  # of the picture, as the client draws its stamp below
        self.every = False  # frame is to be edited, and the client is made to wait
        self.listener: Listener | None = None
        self.holders: set[object] = set()  # connections that send to it or command it
        self.sound = Sound(self.lateness, clock)
        self.feed: Feed | None = None
        self.tags: dict[int, object] = {}  # number of a source frame -> what its transport wants back with it
        self.ready = asyncio.Event()  # `opened`, or over
        self.over = False
        self._closers: list[Callable[[], object]] = []
        self._tasks: set[asyncio.Task] = set()
        self._waiting: deque[tuple[Callable[[], Decoded], Fraction, float, object]] = deque(maxlen=WAITING)
        self._some, self._room = asyncio.Event(), asyncio.Event()
        self._source = SourceClock()
        self._number = 0
        self._shapes: set[tuple[int, int]] = set()  # of the source's pictures
        self._after = 0.0  # seconds from when a frame is due to the tick that shows it, lately

    def configure(self, message: Open) -> None:
        """What the client said of its frames."""
        self.stamped, self.source_height = message.stamped, message.height
        self.every = message.policy == "every"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of frames, once it is open."""
        assert self.opened is not None
        return self.opened.width, self.opened.height

    def notify(self, message: ServerMessage) -> None:
        """Any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self.loop.call_soon_threadsafe(self._told, message)

    def _told(self, message: ServerMessage) -> None:
        if self.over:
            if isinstance(message, Opened):  # who asked for it left meanwhile
                self.hub.close(message.id, "nobody waits for it")
            return
        if isinstance(message, Opened):
            self.opened, self.id = message, message.id
            if self.feed is None:
                self.feed = Feed(
                    lambda now: self.hub.pull(self.id, now),
                    lambda: self.hub.due(self.id),
                    message.fps,
                    self.clock,
                    self._seen,
                )
                self.spawn(self.feed.run())
                self.spawn(self._decode())
            self.ready.set()
        elif isinstance(message, Stats):
            self.metrics.stats(self.id, message)
        if self.listener is not None:
            self.listener.tell(message)
        if isinstance(message, Closed):
            self.finish()

    def _seen(self, frame: LiveFrame, now: float) -> None:
        if frame.repeated:
            self.metrics.repeated.inc()
            return
        lateness = max(0.0, now - frame.captured)
        assert self.feed is not None
        after = min(max(lateness - self.hub.delay(self.id), 0.0), 1 / self.feed.fps)
        self._after += SMOOTHING * (after - self._after)

    def lateness(self) -> float:
        """Seconds from arrival to display, for sound to be as late."""
        return self.hub.delay(self.id) + self._after

    def came(self, width: int, height: int) -> None:
        """A picture of that size. Sources change it as they like: the session keeps its own, and its viewers see the
        middle; who sends is told once if that is not nearly all. Any thread."""
        if (width, height) in self._shapes or len(self._shapes) >= SHAPES:
            return
        self._shapes.add((width, height))
        shape, wanted = width / height, self.size[0] / self.size[1]
        if (seen := min(shape, wanted) / max(shape, wanted)) < SEEN:
            line = f"the source is {width}x{height}: its middle, {seen:.0%} of it, is edited at "
            self.notify(Warn(message=f"{line}{self.size[0]}x{self.size[1]}"))

    def offer(self, decode: Callable[[], Decoded], pts: Fraction, tag: object = None) -> None:
        """A picture came. `decode` runs in the pool; the oldest that waits gives way."""
        self._waiting.append((decode, pts, self.clock(), tag))
        self._some.set()

    async def put(self, decode: Callable[[], Decoded], pts: Fraction, tag: object = None) -> None:
        """The same, but where every frame is to be edited the sender waits for room."""
        while self.every and len(self._waiting) == WAITING and not self.over:
            self._room.clear()
            await self._room.wait()
        self.offer(decode, pts, tag)

    async def _decode(self) -> None:
        while True:
            await self._some.wait()
            if not self._waiting:
                self._some.clear()
                continue
            decode, pts, captured, tag = self._waiting.popleft()
            self._room.set()
            try:
                rgb, stamp = await self.loop.run_in_executor(self.pool, decode)
            except Exception:  # whatever a broken picture did to its decoder; the next one may be whole
                self.metrics.broken.inc()
                continue
            self.metrics.latency.labels("receive").observe(max(0.0, self.clock() - captured))
            self._number += 1
            self.tags[self._number] = tag
            self.tags.pop(self._number - REMEMBERED, None)
            frame = LiveFrame(rgb, self._source(pts, captured), captured, self._number, stamp=stamp)
            while not self.hub.push(self.id, frame) and self.every and not self.over:
                await asyncio.sleep(0.01)

    def spawn(self, work: Coroutine) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self.notify(error("internal", f"{type(failure).__name__}: {failure}"))

    def on_finish(self, closer: Callable[[], object]) -> Callable[[], None]:
        """Call this when the session is over; the result forgets about it."""
        self._closers.append(closer)
        return lambda: self._closers.remove(closer) if closer in self._closers else None

    def finish(self) -> None:
        """Let go of everything; the hub's session is over, or will be soon."""
        if self.over:
            return
        self.over = True
        for task in tuple(self._tasks):
            task.cancel()
        for view in tuple(self.feed.views) if self.feed else ():
            view.close()
        for closer in tuple(self._closers):
            closer()
        self._room.set()
        self.ready.set()
        self.metrics.forget(self.id)
        self.ended(self)

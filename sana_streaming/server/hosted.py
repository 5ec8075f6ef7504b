"""One session as the hub keeps it: what it is, what it was told, and where its frames are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import median, quantiles
from typing import TYPE_CHECKING

import torch

from sana_streaming.stream.governor import Governor, Level, Shedder
from sana_streaming.stream.log import Tap
from sana_streaming.stream.pacer import Pacer
from sana_streaming.stream.prompt_policy import Receipt

from . import lifecycle
from .frame import LiveFrame
from .protocol import Command, Open, ServerMessage, State, StateTold, Stats

if TYPE_CHECKING:
    from sana_streaming.stream.session import Session

Notify = Callable[[ServerMessage], None]

RECENT_CHUNKS, RECENT_FRAMES = 16, 128  # that statistics look at
LOAD_CHUNKS = 4  # of the latest, that tell the load
STALE_SECONDS = 3.0  # after which a stream that sends nothing counts as no load


@dataclass(frozen=True)
class Pass:
    """Seconds of the model's work on a chunk."""

    seconds: float  # of all that shared the pass
    share: float  # of this stream
    least: float  # of this stream, if all that fit had been ready: they are, when there is more to do


class Hosted:
    """Guarded by the hub's lock, but `session`, `given` and the like, which are the model thread's own."""

    def __init__(
        self,
        session_id: str,
        message: Open,
        notify: Notify,
        session: Session,
        all_levels: Sequence[Level],
        rate: float | None,
        now: float,
    ):
        self.id, self.notify, self.session = session_id, notify, session
        self.asked = min(message.fps, rate or message.fps)  # frames per second to edit
        self.fps, self.policy = message.fps, message.policy
        self.prompt, self.seed = message.prompt, message.seed
        self.prompt_in_force, self.seed_in_force = message.prompt, message.seed
        self.state: State = "idle"
        self.presence = lifecycle.Presence(now)
        self.bypass = self.panic = False
        self.size = all_levels[0].size  # width and height at which frames come and go
        self.shedder = Shedder(all_levels)
        self.governor: Governor[LiveFrame] = Governor(message.policy, rate)
        self.governor.expect(session.chunk_frames, now)
        self.pacer: Pacer[LiveFrame] = Pacer(1 / self.asked)
        self.requests: dict[str, Command] = {}  # by type, the newest: not yet given to the session
        self.given: dict[str, tuple[Command, Receipt]] = {}  # given, and not yet applied
        self.pending: deque[LiveFrame | None] = deque()  # edited or being edited; None: only filled a chunk up
        self.chunks = 0  # edited, over all that `session` was
        self.epoch = 0  # of pauses: what was taken before one is not shown after it
        self.reseeded = False
        self.drained: float | None = None
        self.taps: tuple[Tap, ...] = ()
        self.arrivals: deque[float] = deque(maxlen=RECENT_CHUNKS * 2)
        self.work: deque[tuple[Pass, float]] = deque(maxlen=RECENT_CHUNKS)  # and seconds of video
        self.worked = now  # when the last chunk was ready
        self.latencies: deque[float] = deque(maxlen=RECENT_FRAMES)
        self.frames_in = 0
        self.told_at, self.told_in, self.told_shown = now, 0, 0
        self.position = 0  # in the queue, as told last
        self.refused = False  # the last frame, for its size

    @property
    def rate(self) -> float:
        """Frames per second that are to be edited, as they come."""
        a = self.arrivals
        seen = (len(a) - 1) / (a[-1] - a[0]) if len(a) == a.maxlen and a[-1] > a[0] else self.asked
        return min(seen, self.asked)

    @property
    def demand(self) -> float:
        """Units of work per second at full quality, for `Admission`."""
        return self.asked * self.shedder.levels[0].cost

    @property
    def at_work(self) -> bool:
        """Whether its chunks are edited when they are there."""
        rests = self.bypass and self.state != "draining"
        return not self.position and not rests and lifecycle.edits(self.state) and self.drained is None

    @property
    def due(self) -> float | None:
        """When the chunk that is there must be ready: before the next one of the same stream is gathered. None: there
        is nothing to edit. What is left of a stream that ends is a chunk, too."""
        if not self.at_work:
            return None
        since = self.governor.ready_since
        since = self.worked if since is None and self.state == "draining" else since
        return None if since is None else since + self.governor.chunk / self.rate

    def load(self, now: float) -> float:
        """Seconds of work per second of video, at the least."""
        if not self.work or now - self.worked > max(STALE_SECONDS, 3 * self.work[-1][1]):
            return 0.0
        return median(took.least / video for took, video in list(self.work)[-LOAD_CHUNKS:])

    def tell(self, message: ServerMessage) -> None:
        for tap in self.taps:
            tap.event(message)
        with suppress(Exception):  # a client that cannot be told is no trouble of the others
            self.notify(message)

    def tell_state(self) -> None:
        level = self.shedder.level
        self.tell(
            StateTold(
                state=self.state,
                prompt=self.prompt,
                seed=self.seed,
                chunk=self.chunks,
                steps=level.steps,
                width=level.size[0],
                height=level.size[1],
                bypass=self.bypass,
                panic=self.panic,
                recording=bool(self.taps),
            )
        )

    def enter(self, event: str) -> None:
        """ValueError if it does not fit the state."""
        state = lifecycle.after(self.state, event)
        if state != self.state:
            self.state = state
            self.tell_state()

    def stats(self, now: float, device: torch.device) -> Stats:
        """Since they were asked for last."""
        passed = max(1e-3, now - self.told_at)
        frames_in, shown = self.frames_in - self.told_in, self.pacer.shown - self.told_shown
        self.told_at, self.told_in, self.told_shown = now, self.frames_in, self.pacer.shown
        work = sum(took.share for took, _ in self.work)
        return Stats(
            fps_in=round(frames_in / passed, 2),
            fps_out=round(shown / passed, 2),
            latency_ms=_ms(self.latencies, 50),
            latency_p95_ms=_ms(self.latencies, 95),
            chunk_p95_ms=_ms((took.seconds for took, _ in self.work), 95),
            real_time_factor=round(sum(video for _, video in self.work) / work, 3) if work > 0 else None,
            dropped=self.governor.dropped + self.pacer.lost,
            repeated=self.pacer.repeated,
            queue=len(self.governor.waiting),
            memory_mb=memory_mb(device),
            level=self.shedder.index,
        )


def memory_mb(device: torch.device) -> float | None:
    """Of the GPU if the model is there, else of this process; None where that is not told."""
    if device.type == "cuda":
        return round(torch.cuda.memory_allocated(device) / 2**20, 1)
    try:
        with open("/proc/self/statm", encoding="ascii") as told:
            return round(int(told.read().split()[1]) * 4096 / 2**20, 1)
    except OSError:
        return None


def _ms(seconds: Iterable[float], percent: int) -> float | None:
    """A percentile of durations, in milliseconds; None of nothing."""
    values = list(seconds)
    if not values:
        return None
    value = values[0] if len(values) == 1 else quantiles(values, n=100, method="inclusive")[percent - 1]
    return round(1000 * value, 1)

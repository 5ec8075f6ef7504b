"""How a live stream stays live when the model cannot keep up: frames are dropped before it, evenly; then each chunk is
given less work, first fewer steps, then a smaller picture; and quality comes back when there is room again."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, Protocol, TypeVar

from sana_streaming.config import SamplerConfig

from .ticks import EARLY

POLICIES = ("latest", "every")
QUEUE_CHUNKS = 3  # chunks of frames that may wait
SCALES = (0.75, 0.5)  # of width and height, when fewer steps are not enough
SMALLEST = 128  # pixels of the short side, below which nothing is made smaller
CODEC_PASSES = 2  # about the work of reading and writing a chunk, in passes of the transformer
FIXED = 32_000  # pixels that take as long as what a pass takes whatever its size; `nano` on two cores, 64 to 384 pixels
DOWN_SECONDS = 3.0  # of overload, before quality goes down
UP_SECONDS = 10.0  # of room for the next better level, before it comes back; doubled each time that it did not last
LONGEST_UP_SECONDS = 160.0
ROOM = 0.8  # of real time that the better level may take


class Timed(Protocol):
    @property
    def pts(self) -> Fraction: ...


T = TypeVar("T", bound=Timed)


class Governor(Generic[T]):
    """The frames of one stream that wait for the model, never more than a few chunks.

    policy "latest": a chunk is made of all that waits when the model is ready for it. If that is more than a chunk, it
    takes frames that are evenly spaced, with the newest, and the others are dropped; beyond the bound the oldest are.
    "every": chunks are made of all frames in order, and a full queue takes no more.

    What was taken is the model's: a chunk is never changed afterwards.
    """

    def __init__(self, policy: str = "latest", rate: float | None = None):
        """rate: frames per second that the model is given at most, see `ticks`; those in between are passed over."""
        assert policy in POLICIES
        self.policy = policy
        self.rate = None if rate is None else Fraction(rate)
        self.chunk = 1  # frames that the next chunk takes
        self.waiting: deque[T] = deque()
        self.dropped = 0
        self.ready_since: float | None = None  # when there were enough frames for the next chunk
        self._begin: Fraction | None = None
        self._tick: int | None = None

    @property
    def capacity(self) -> int:
        return QUEUE_CHUNKS * self.chunk

    @property
    def full(self) -> bool:
        """No more is taken; only where every frame counts."""
        return self.policy == "every" and len(self.waiting) >= self.capacity

    def push(self, frame: T, now: float) -> bool:
        """Whether the frame will wait for the model. False also for one that its rate passes over."""
        if self.full or not self._own_tick(frame.pts):
            return False
        self.waiting.append(frame)
        self._bound()
        self._look(now)
        return True

    def expect(self, chunk: int, now: float) -> None:
        """How many frames the next chunk takes."""
        if chunk != self.chunk:
            self.chunk, self.ready_since = chunk, None
            self._bound()
        self._look(now)

    def take(self, now: float) -> tuple[T, ...]:
        """The next chunk; nothing if there are too few frames for one."""
        n, waits = self.chunk, len(self.waiting)
        if waits < n:
            return ()
        if self.policy == "every":
            taken = tuple(self.waiting.popleft() for _ in range(n))
        else:
            frames = tuple(self.waiting)
            taken = tuple(frames[(i + 1) * waits // n - 1] for i in range(n))
            self.waiting.clear()
            self.dropped += waits - n
        self.ready_since = None
        self._look(now)
        return taken

    def rest(self) -> tuple[T, ...]:
        """What is left of a stream that ends, too little for a chunk."""
        taken = tuple(self.waiting)
        self.flush()
        return taken

    def flush(self, keep: int = 0) -> int:
        """Forget all but the newest frames -> how many were forgotten."""
        count = max(0, len(self.waiting) - keep)
        for _ in range(count):
            self.waiting.popleft()
        if len(self.waiting) < self.chunk:
            self.ready_since = None
        return count

    def _bound(self) -> None:
        if self.policy == "latest":
            self.dropped += self.flush(self.capacity)

    def _look(self, now: float) -> None:
        if self.ready_since is None and len(self.waiting) >= self.chunk:
            self.ready_since = now

    def _own_tick(self, pts: Fraction) -> bool:
        """As `ticks` has it."""
        if self.rate is None:
            return True
        if self._begin is None or pts < self._begin:
            self._begin, self._tick = pts, None
        tick = math.floor((pts - self._begin) * self.rate + EARLY)
        own, self._tick = tick != self._tick, tick
        return own


@dataclass(frozen=True)
class Level:
    """How much work a chunk is given."""

    steps: int
    size: tuple[int, int]  # width and height, pixels, multiples of the model's grid

    @property
    def cost(self) -> float:
        """Work per frame, in units that only compare."""
        return (self.steps + 1 + CODEC_PASSES) * (math.prod(self.size) + FIXED)


def levels(sampler: SamplerConfig, steps: int, size: tuple[int, int], stride: int) -> tuple[Level, ...]:
    """From what was asked for down to the least: the step counts that the model was trained at, then smaller sizes."""
    trained = sorted({len(schedule) for schedule in sampler.schedules if len(schedule) < steps}, reverse=True)
    counts = (steps, *trained)
    smaller: list[tuple[int, int]] = []
    for scale in SCALES:
        width, height = (max(stride, stride * round(side * scale / stride)) for side in size)
        if min(width, height) >= min(SMALLEST, *size) and (width, height) not in (size, *smaller):
            smaller.append((width, height))
    return (*(Level(n, size) for n in counts), *(Level(counts[-1], s) for s in smaller))


class Shedder:
    """Which level a stream runs at. Goes down a level after some seconds of overload, and up again when the better one
    would have had room for a longer while; if it then goes down again soon, the next way up takes twice as long."""

    def __init__(self, all_levels: Sequence[Level]):
        self.levels = tuple(all_levels)
        self.index = 0
        self._over: float | None = None  # since when
        self._room: float | None = None
        self._patience = UP_SECONDS
        self._risen: float | None = None

    @property
    def level(self) -> Level:
        return self.levels[self.index]

    def observe(self, load: float, now: float) -> bool:
        """load: seconds of work per second of video, of all streams on the model. Whether the level changed."""
        self._over = (now if self._over is None else self._over) if load > 1 else None
        room = self.index > 0 and load * self.levels[self.index - 1].cost / self.level.cost < ROOM
        self._room = (now if self._room is None else self._room) if room else None
        if self._over is not None and now - self._over >= DOWN_SECONDS and self.index + 1 < len(self.levels):
            if self._risen is not None and now - self._risen < 2 * self._patience:
                self._patience = min(2 * self._patience, LONGEST_UP_SECONDS)
            else:
                self._patience = UP_SECONDS
            return self._go(self.index + 1)
        if self._room is not None and now - self._room >= self._patience:
            self._risen = now
            return self._go(self.index - 1)
        return False

    def _go(self, index: int) -> bool:
        self.index, self._over, self._room = index, None, None
        return True

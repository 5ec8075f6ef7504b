"""Sound passes by the model, as late as the picture is."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from itertools import islice

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

RATE = 48_000  # samples a second
BLOCK = 960  # samples that are sent at once: 20 ms
CHANNELS = 2
SLACK = 0.015  # seconds that sound may be off before it jumps; a frame lasts 16 ms or more
LEAST = 0.12  # seconds of delay; sound that is asked for sooner has not arrived
HELD = 4  # packets of sound that aiortc's receiver holds back against jitter; of pictures none, see `jitter`
LONGEST = 20.0  # seconds that are kept
RECENT = 5.0  # seconds that who begins to listen hears of the past: frames of that time may still be on their way

Ear = Callable[[np.ndarray, float], None]  # samples, int16 [N, 2], and when a picture taken with the last one arrived


class DelayLine:
    """Takes sound as it arrives and gives it `delay` seconds later. Where there is none, it gives silence.

    Inside, sound is one line of samples in the order of arrival. What is given runs on without a gap while it is right
    within SLACK, and jumps where it is not: the delay has changed, or sound was lost. Any thread."""

    def __init__(self, rate: int = RATE):
        self.rate = rate
        self._blocks: deque[tuple[int, np.ndarray]] = deque()  # first sample's place on the server's clock, samples
        self._end: int | None = None  # place after the last sample that came
        self._next: int | None = None  # place of the next one to be given
        self._lock = threading.Lock()

    def push(self, samples: np.ndarray, now: float) -> None:
        """int16 [N, 2], of which the last one was taken at `now`, seconds of the server's clock."""
        with self._lock:
            begin = round(now * self.rate) - len(samples)
            if self._end is not None and abs(begin - self._end) < SLACK * self.rate:
                begin = self._end  # packets come early and late; the sound itself is even
            self._blocks.append((begin, samples))
            self._end = begin + len(samples)
            while self._blocks and self._blocks[0][0] < self._end - LONGEST * self.rate:
                self._blocks.popleft()

    def pull(self, count: int, now: float, delay: float) -> np.ndarray:
        """int16 [count, 2]: what was taken from `now - delay` on."""
        with self._lock:
            due = round((now - delay) * self.rate)
            if self._next is None or abs(due - self._next) >= SLACK * self.rate:
                self._next = due
            begin, end = self._next, self._next + count
            self._next = end
            sound = np.zeros((count, CHANNELS), np.int16)
            for place, samples in self._blocks:
                left, right = max(begin, place), min(end, place + len(samples))
                if left < right:
                    sound[left - begin : right - begin] = samples[left - place : right - place]
            return sound

    @property
    def waiting(self) -> float:
        """Seconds that are kept."""
        with self._lock:
            return sum(len(samples) for _, samples in islice(self._blocks, None)) / self.rate


class Sound:
    """The sound of one session: one track in, any number out, and ears that hear it as it comes.

    delay: seconds that pictures take from arrival to display, now."""

    def __init__(self, delay: Callable[[], float], clock: Callable[[], float] = time.monotonic):
        self.delay, self.clock = delay, clock
        self._lines: set[DelayLine] = set()
        self._ears: list[Ear] = []
        self._recent: deque[tuple[np.ndarray, float]] = deque()

    def listen(self, ear: Ear) -> Callable[[], None]:
        """From now on, and what came lately at once; the result ends it. On the event loop."""
        for samples, now in self._recent:
            ear(samples, now)
        self._ears.append(ear)
        return lambda: self._ears.remove(ear) if ear in self._ears else None

    async def take(self, track: MediaStreamTrack) -> None:
        """Until the track ends."""
        resampler = av.AudioResampler(format="s16", layout="stereo", rate=RATE)
        try:
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.AudioFrame)
                # When a picture that was taken together with the last sample arrived.
                now = self.clock() - HELD * frame.samples / frame.sample_rate
                frame.pts = None  # else a gap in the source's clock would be filled in by the resampler
                for part in resampler.resample(frame):
                    samples = part.to_ndarray().reshape(-1, CHANNELS)
                    self._came(samples, now)
        except MediaStreamError:
            return

    def _came(self, samples: np.ndarray, now: float) -> None:
        self._recent.append((samples, now))
        while self._recent[0][1] < now - RECENT:
            self._recent.popleft()
        for line in self._lines:
            line.push(samples, now)
        for ear in self._ears:
            ear(samples, now)

    def track(self) -> "DelayedTrack":
        line = DelayLine()
        self._lines.add(line)
        track = DelayedTrack(line, self.delay, self.clock)
        track.on("ended", lambda: self._lines.discard(line))
        return track


class DelayedTrack(MediaStreamTrack):
    """Sound for one viewer, 20 ms at a time."""

    kind = "audio"

    def __init__(self, line: DelayLine, delay: Callable[[], float], clock: Callable[[], float]):
        super().__init__()
        self.line, self.delay, self.clock = line, delay, clock
        self._begin: float | None = None
        self._sent = 0

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        if self._begin is None:
            self._begin = self.clock()
        due = self._begin + self._sent / RATE
        await asyncio.sleep(max(0.0, due - self.clock()))
        samples = self.line.pull(BLOCK, due, max(LEAST, self.delay()))
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), self._sent
        self._sent += BLOCK
        return frame

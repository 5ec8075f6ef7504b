"""Clients of a live server, for `live.py`: each sends a synthetic clip and looks at what comes back.

Below every frame a number is drawn (`sana_streaming/server/stamp.py`); the time from then until the edited frame with
the same number is here, decoded, is the latency from glass to glass. Every wait has a limit.
"""

import asyncio
import io
import json
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from multiprocessing.connection import Connection
from typing import Any

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect

from sana_streaming.server import stamp
from sana_streaming.server.websocket import HEADER, QUALITY, VIDEO

TRANSPORTS = ("webrtc", "websocket")
STEP_SECONDS = 30.0  # for each step on the way to the first edited frame, and for the end
LOOP = 48  # frames of the clip, which is played again and again
CLOCK = 90_000  # ticks a second of video in RTP
STAMPS = 65_535


@dataclass(frozen=True)
class Plan:
    url: str
    clients: int
    transport: str
    fps: float
    size: tuple[int, int]  # width and height
    warm_up: float  # seconds that are left out at the beginning
    seconds: float  # that are measured
    prompt: str
    steps: int | None
    seed: int

    @property
    def longest(self) -> float:
        """Seconds after which something is wrong."""
        return 4 * STEP_SECONDS + self.warm_up + self.seconds


@dataclass
class Seen:
    """What one client saw while it was measured."""

    waiting: int = 0  # position in the queue, of a client that had no room; it left
    size: tuple[int, int] = (0, 0)  # of the edited frames
    steps: int = 0  # of denoising, as the server told last
    sent: int = 0
    delays: list[float] = field(default_factory=list)  # seconds, of each frame that came back for the first time
    again: int = 0  # frames that came back once more
    unreadable: int = 0  # frames whose number could not be read
    stats: list[dict[str, Any]] = field(default_factory=list)  # what the server told about once a second
    errors: list[str] = field(default_factory=list)


def run(plan: Plan, pipe: Connection) -> None:
    """The whole of a process: sends "measuring" down the pipe when that begins, then what each client saw."""
    try:
        pipe.send(asyncio.run(asyncio.wait_for(watch(plan, lambda: pipe.send("measuring")), plan.longest)))
    except Exception as failure:
        pipe.send(f"the clients failed: {type(failure).__name__} {failure}".strip())


async def watch(plan: Plan, measuring: Callable[[], None]) -> list[Seen]:
    clip = synthetic(plan.size, plan.seed)
    clients = [Client(plan, clip) for _ in range(plan.clients)]
    try:
        for client in clients:  # one after the other, as people come
            await client.attempt(client.open())
        await asyncio.gather(*(client.attempt(client.connect()) for client in clients))
        await asyncio.sleep(plan.warm_up)
        measuring()
        for client in clients:
            client.begin()
        await asyncio.sleep(plan.seconds)
        return [client.end() for client in clients]
    finally:
        await asyncio.gather(*(client.close() for client in clients), return_exceptions=True)


def synthetic(size: tuple[int, int], seed: int, discs: int = 5) -> list[np.ndarray]:
    """RGB uint8 [H, W, 3]: discs that go round over a gradient; the end meets the beginning."""
    width, height = size
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    ground = np.stack([80 + 100 * x / width, 60 + 120 * y / height, np.full_like(x, 110)], axis=-1)
    colours, places = rng.uniform(0, 255, (discs, 3)), rng.uniform(0.2, 0.8, (discs, 2))
    clip = []
    for number in range(LOOP):
        picture, turn = ground.copy(), 2 * np.pi * number / LOOP
        for i, (colour, (left, top)) in enumerate(zip(colours, places, strict=True)):
            dx, dy = x / width - left - 0.15 * np.cos(turn + i), y / height - top - 0.15 * np.sin(turn + i)
            picture[dx * dx + dy * dy < 0.01] = colour
        clip.append(picture.astype(np.uint8))
    return clip


class Source:
    """A camera that never waits: what was slept through is left out."""

    def __init__(self, clip: Sequence[np.ndarray], fps: float):
        self.clip, self.fps = clip, fps
        self.number = -1
        self.taken = 0
        self.sent: dict[int, float] = {}  # stamp -> when its frame was taken
        self._begin = time.monotonic()

    async def next(self) -> np.ndarray:
        """The next frame with its stamp; `number` tells which it is."""
        self.number = max(self.number + 1, int((time.monotonic() - self._begin) * self.fps))
        await asyncio.sleep(max(0.0, self._begin + self.number / self.fps - time.monotonic()))
        value = self.number % STAMPS + 1
        self.sent[value] = time.monotonic()
        self.taken += 1
        return stamp.draw(self.clip[self.number % len(self.clip)], value)


class Camera(MediaStreamTrack):
    kind = "video"

    def __init__(self, source: Source):
        super().__init__()
        self.source = source

    async def recv(self) -> av.VideoFrame:
        if self.readyState != "live":
            raise MediaStreamError
        frame = av.VideoFrame.from_ndarray(await self.source.next(), format="rgb24")
        frame.pts, frame.time_base = round(self.source.number * CLOCK / self.source.fps), Fraction(1, CLOCK)
        return frame


class Client:
    def __init__(self, plan: Plan, clip: Sequence[np.ndarray]):
        self.plan = plan
        self.source = Source(clip, plan.fps)
        self.seen = Seen()
        self.peer: RTCPeerConnection | None = None
        self._socket: ClientConnection | None = None
        self._tasks: list[asyncio.Task] = []
        self._told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()  # answers of the server that somebody waits for
        self._first = asyncio.Event()  # edited frame
        self._measured = False
        self._before = 0  # frames sent before that
        self._last: int | None = None  # stamp that came back

    async def attempt(self, step: Coroutine) -> None:
        """A client that fails is no trouble of the others."""
        try:
            await asyncio.wait_for(step, STEP_SECONDS)
        except Exception as failure:
            self._failed(failure)

    async def open(self) -> None:
        plan = self.plan
        self._socket = await connect(plan.url.replace("http", "ws", 1) + "api/session", max_size=None)
        self._spawn(self._listen(self._socket))
        width, height = plan.size
        wanted = {"prompt": plan.prompt, "width": width, "height": height, "fps": plan.fps, "seed": plan.seed}
        await self._say({"type": "open", **wanted, "steps": plan.steps, "stamped": True})
        told = await self._told.get()
        if told["type"] == "queued":
            self.seen.waiting = told["position"]
            await self._socket.close()
        elif told["type"] == "opened":
            self.seen.size = told["width"], told["height"]
        else:
            raise RuntimeError(told["message"])

    async def connect(self) -> None:
        """Until the first edited frame is here."""
        if self.seen.waiting or self.seen.errors:
            return
        if self.plan.transport == "websocket":
            self._spawn(self._send_pictures())
        else:
            self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
            self.peer.on("track", lambda track: self._spawn(self._receive(track)))
            self.peer.addTrack(Camera(self.source))
            await self.peer.setLocalDescription(await self.peer.createOffer())
            await self._say({"type": "offer", "sdp": self.peer.localDescription.sdp})
            told = await self._told.get()
            if told["type"] != "answer":
                raise RuntimeError(told["message"])
            await self.peer.setRemoteDescription(RTCSessionDescription(told["sdp"], "answer"))
        await self._first.wait()

    def begin(self) -> None:
        self._measured, self._before = True, self.source.taken

    def end(self) -> Seen:
        self._measured = False
        return replace(self.seen, sent=self.source.taken - self._before, errors=list(self.seen.errors))

    async def close(self) -> None:
        """Whatever state it is in."""
        self._measured = False
        with suppress(Exception):
            async with asyncio.timeout(STEP_SECONDS / 3):
                await self._say({"type": "close"})
        for part in (self.peer, self._socket):
            if part is not None:
                with suppress(Exception):
                    await asyncio.wait_for(part.close(), STEP_SECONDS / 3)
        for task in self._tasks:
            task.cancel()

    async def _say(self, message: dict[str, Any]) -> None:
        assert self._socket is not None
        await self._socket.send(json.dumps(message))

    async def _listen(self, socket: ClientConnection) -> None:
        async for data in socket:
            if isinstance(data, bytes):
                self._see(np.asarray(Image.open(io.BytesIO(data[HEADER.size :])).convert("RGB")))
                continue
            message = json.loads(data)
            if message["type"] in ("opened", "queued", "answer", "error"):
                self._told.put_nowait(message)
            if message["type"] == "state":
                self.seen.steps = message["steps"]
            if self._measured and message["type"] == "stats":
                self.seen.stats.append(message)
            elif self._measured and message["type"] in ("error", "warning", "closed"):
                self.seen.errors.append(message.get("message") or message["reason"])

    async def _receive(self, track: MediaStreamTrack) -> None:
        with suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.VideoFrame)
                self._see(frame.to_ndarray(format="rgb24"))

    async def _send_pictures(self) -> None:
        assert self._socket is not None
        while True:
            buffer = io.BytesIO()
            Image.fromarray(await self.source.next()).save(buffer, "JPEG", quality=QUALITY)
            number = self.source.number
            await self._socket.send(HEADER.pack(VIDEO, number, 1000 * number / self.source.fps) + buffer.getvalue())

    def _see(self, rgb: np.ndarray) -> None:
        now = time.monotonic()
        value = stamp.cut(rgb, rgb.shape[0] - stamp.ROWS)[1]
        self._first.set()
        if not self._measured:
            self._last = value or self._last
        elif value is None or value not in self.source.sent:
            self.seen.unreadable += 1
        elif value == self._last:
            self.seen.again += 1
        else:
            self._last = value
            self.seen.delays.append(now - self.source.sent[value])

    def _spawn(self, work: Coroutine) -> None:
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._done)
        self._tasks.append(task)

    def _done(self, task: asyncio.Task) -> None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failed(failure)

    def _failed(self, failure: BaseException) -> None:
        self.seen.errors.append(f"{type(failure).__name__} {failure}".strip())

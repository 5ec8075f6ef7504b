"""The control connection of a page, and its pictures as JPEG where UDP does not get through.

Text frames are messages of `protocol`. Binary frames are pictures, in both directions:

    <IId   little endian: kind (1 is video), number of the source frame, time of capture by the client's clock in ms
    JPEG   with the stamp below if the session is stamped

An edited picture carries number and time of the source frame that it was made of. The server sends pictures here
once it got one here; a viewer that is slow gets fewer, never older ones.
"""

import asyncio
import io
import math
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from starlette.websockets import WebSocket, WebSocketDisconnect

from . import stamp
from .background import in_background
from .feed import Decoded, Live, Shown, View
from .hub import QueueFull, UnknownSession
from .protocol import Answer, Candidate, ClientMessage, Closed, Offer, Open, ServerMessage, dump, error, parse
from .trust import LARGEST_FRAME, LARGEST_MESSAGE, Bucket
from .webrtc import Peer, middle

if TYPE_CHECKING:
    from .app import Server

HEADER = struct.Struct("<IId")
VIDEO = 1
OUTBOX = 256  # messages that wait to be sent
PATIENCE = 20.0  # seconds: for `open`, and for a client that does not read
QUALITY = 85
SUBSAMPLING = "4:2:0"
COMMANDS = (20.0, 60.0)  # a second, and at once; candidates of WebRTC come in dozens
REFUSALS = (1.0, 300.0)  # messages too many after which the connection is closed
CODES = {UnknownSession: "unknown_session", QueueFull: "busy", MemoryError: "memory"}  # of what cannot be opened
GONE = (WebSocketDisconnect, RuntimeError, TimeoutError, OSError)  # what a client that left is met with
POLICY, TOO_BIG, LATER = 1008, 1009, 1013  # codes of WebSocket for the end of a connection


class Connection:
    """One page."""

    def __init__(self, server: "Server", socket: WebSocket):
        self.server, self.socket = server, socket
        self.live: Live | None = None
        self.peer: Peer | None = None
        self.view: View | None = None
        self._outbox: deque[ServerMessage] = deque()
        self._some = asyncio.Event()
        self._sending = asyncio.Lock()
        self._commands = Bucket(*COMMANDS, server.clock)
        self._frames = Bucket(2 * server.hub.limits.fps, 2 * server.hub.limits.fps, server.clock)
        self._refusals = Bucket(*REFUSALS, server.clock)
        self._refused = False  # the last message
        self._ending: tuple[int, str] | None = None
        self._tasks: list[asyncio.Task] = []

    def tell(self, message: ServerMessage) -> None:
        if len(self._outbox) >= OUTBOX:
            self.end(LATER, "too slow")
            return
        self._outbox.append(message)
        if isinstance(message, Closed):
            self.end(1000, message.reason)
        self._some.set()

    def end(self, code: int, reason: str) -> None:
        """Once what waits was sent."""
        self._ending = self._ending or (code, reason[:100])
        self._some.set()

    async def run(self) -> None:
        await self.socket.accept()
        sender = asyncio.ensure_future(self._send_messages())
        reader = asyncio.ensure_future(self._read())
        try:
            await asyncio.wait((sender, reader), return_when=asyncio.FIRST_COMPLETED)
            if self._ending is None:  # nothing can be sent any more, but what was said before that counts
                await asyncio.wait((reader,), timeout=PATIENCE)
        finally:
            for task in (sender, reader, *self._tasks):
                task.cancel()
            self._let_go()

    def _let_go(self) -> None:
        """The session stays for a while, in case the page comes back."""
        if self.view is not None:
            self.view.close()
        if self.peer is not None:
            in_background(self.peer.close())
        if self.live is not None:
            if self.live.listener is self:
                self.live.listener = None
            self.server.leave(self.live, self)

    async def _read(self) -> None:
        with suppress(*GONE):
            if not await self._open():
                await asyncio.sleep(PATIENCE)  # the sender says why, and ends it
                return
            while True:
                received = await self.socket.receive()
                if received["type"] == "websocket.disconnect":
                    return
                if (data := received.get("bytes")) is not None:
                    await self._frame(data)
                elif (text := received.get("text")) is not None:
                    await self._message(text)

    async def _open(self) -> bool:
        """The first message. False if the connection is to end."""
        try:
            async with asyncio.timeout(PATIENCE):
                message = self._parsed(await self.socket.receive_text())
        except (TimeoutError, KeyError):
            self.end(POLICY, "the first message opens a session")
            return False
        if not isinstance(message, Open):
            if message is not None:
                self.tell(error("state", "expected `open` first", message.n))
            self.end(POLICY, "the first message opens a session")
            return False
        if not self.server.admits_token(message.token):
            self.tell(error("token", "the token is missing or wrong", message.n))
            self.end(POLICY, "token")
            return False
        try:
            self.live = await self.server.open(message, self)
            self.live.holders.add(self)
            return True
        except (ValueError, MemoryError) as wrong:
            code = next((code for kind, code in CODES.items() if isinstance(wrong, kind)), "invalid")
            self.tell(error(code, wrong, message.n))
        except Exception as wrong:  # of the model; the server goes on
            self.tell(error("internal", f"the session could not be opened: {wrong}", message.n))
        self.end(POLICY, "not opened")
        return False

    def _parsed(self, text: str) -> ClientMessage | None:
        if not self._commands.take():
            self.server.metrics.refused.labels("too_many").inc()
            if not self._refused:
                self.tell(error("too_many", "too many messages; this one was left out"))
            self._refused = True
            if not self._refusals.take():
                self.end(POLICY, "too many messages")
            return None
        self._refused = False
        if len(text) > LARGEST_MESSAGE:
            self.tell(error("invalid", f"the message has more than {LARGEST_MESSAGE} characters"))
            return None
        try:
            return parse(text)
        except ValueError as wrong:
            self.tell(error("invalid", wrong))
            return None

    async def _message(self, text: str) -> None:
        message = self._parsed(text)
        live = self.live
        if message is None or live is None or live.over:
            return
        try:
            await self._carry_out(live, message)
        except Exception as failure:  # of the server's own; the show goes on
            self.server.log("error", message=f"{message.type}: {type(failure).__name__}: {failure}")
            self.tell(error("internal", f"{message.type} failed: {failure}", message.n))

    async def _carry_out(self, live: Live, message: ClientMessage) -> None:
        if isinstance(message, Open):
            self.tell(error("state", "a session is open on this connection", message.n))
        elif isinstance(message, Offer):
            await self._offer(live, message)
        elif isinstance(message, Candidate):
            await self._candidate(message)
        else:
            await self.server.command(live, message)

    async def _offer(self, live: Live, message: Offer) -> None:
        if live.feed is None:
            self.tell(error("state", "the session is not open yet", message.n))
            return
        if self.peer is not None:
            await self.peer.close()
        self.peer = Peer(live, self.server.ice, receives=True, sends=True)
        try:
            self.tell(Answer(sdp=await self.peer.answer(message.sdp)))
        except ValueError as wrong:
            self.peer = None
            self.tell(error("invalid", wrong, message.n))

    async def _candidate(self, message: Candidate) -> None:
        if self.peer is None:
            self.tell(error("state", "expected `offer` before candidates", message.n))
            return
        try:
            await self.peer.add_candidate(message.candidate, message.sdpMid, message.sdpMLineIndex)
        except ValueError as wrong:
            self.tell(error("invalid", wrong, message.n))

    async def _frame(self, data: bytes) -> None:
        live = self.live
        if live is None or live.feed is None or live.over or not self._frames.take():
            return
        if len(data) > LARGEST_FRAME:
            self.end(TOO_BIG, f"frames have at most {LARGEST_FRAME} bytes")
            return
        if len(data) <= HEADER.size:
            self.tell(error("invalid", "a picture is shorter than its header"))
            return
        kind, number, captured = HEADER.unpack_from(data)
        if kind != VIDEO or not math.isfinite(captured) or abs(captured) > 1e15:
            self.tell(error("invalid", "the header of a picture was not understood"))
            return
        if self.view is None:
            self.view = live.feed.view()
            self._tasks.append(asyncio.ensure_future(self._send_pictures(live, self.view)))
        size, height = live.size, live.source_height * live.stamped
        pts = Fraction(round(captured * 1000), 1_000_000)
        decode = partial(from_jpeg, data[HEADER.size :], size, height, live.came)
        await live.put(decode, pts, (number, captured))

    async def _send_messages(self) -> None:
        with suppress(*GONE):
            while self._ending is None:
                await self._some.wait()
                self._some.clear()
                while self._outbox:
                    try:
                        await self._send(dump(self._outbox.popleft()))
                    except TimeoutError:  # it is there, but does not read: it is not listened to any more, either
                        self.end(LATER, "too slow")
                        raise
            async with asyncio.timeout(PATIENCE):
                await self.socket.close(*self._ending)

    async def _send_pictures(self, live: Live, view: View) -> None:
        with suppress(*GONE):
            await self._pictures(live, view)

    async def _pictures(self, live: Live, view: View) -> None:
        last = None
        while (shown := await view.next()) is not None:
            if shown.frame.rgb is last:
                continue
            last = shown.frame.rgb
            tag = live.tags.get(shown.frame.number)
            number, captured = tag if isinstance(tag, tuple) else (shown.frame.number & 0xFFFFFFFF, 0.0)
            begin = live.clock()
            jpeg = await live.loop.run_in_executor(live.pool, to_jpeg, shown, live.stamped)
            live.metrics.latency.labels("encode").observe(max(0.0, live.clock() - begin))
            await self._send(HEADER.pack(VIDEO, number, captured) + jpeg)

    async def _send(self, data: str | bytes) -> None:
        """Waits for a client that is slow to read, not for one that has ceased to."""
        async with self._sending, asyncio.timeout(PATIENCE):
            if isinstance(data, str):
                await self.socket.send_text(data)
            else:
                await self.socket.send_bytes(data)


def to_jpeg(shown: Shown, stamped: bool) -> bytes:
    frame = shown.frame
    picture = Image.fromarray(np.ascontiguousarray(stamp.draw(frame.rgb, frame.stamp) if stamped else frame.rgb))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, subsampling=SUBSAMPLING)
    return buffer.getvalue()


def from_jpeg(
    data: bytes,
    size: tuple[int, int],
    stamped_height: int = 0,
    came: Callable[[int, int], None] = lambda width, height: None,
) -> Decoded:
    """As `webrtc.fit`. ValueError for what is no JPEG, or far larger than what is edited. came: told the size of a
    picture without a stamp."""
    width, height = size
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            if picture.width * picture.height > 4096 * 4096:
                raise ValueError(f"a picture of {picture.width}x{picture.height} is too large")
            if not stamped_height:
                came(*picture.size)
            picture.draft("RGB", (width, height))  # decodes at a fraction of the size where that is enough
            rgb = picture.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as wrong:
        raise ValueError(f"a picture is no JPEG: {wrong}") from wrong
    if stamped_height:
        rows = height + max(1, round(height * stamp.ROWS / stamped_height))
        pixels, value = stamp.cut(np.asarray(rgb.resize((width, rows), Image.Resampling.BILINEAR)), height)
        return np.ascontiguousarray(pixels), value
    return np.asarray(rgb.resize(size, Image.Resampling.BILINEAR, box=middle(rgb.size, size))), None

"""Clients of WebRTC in the same process, for tests."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from fractions import Fraction

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from sana_streaming.server.feed import Live
from sana_streaming.server.metrics import Metrics
from sana_streaming.server.protocol import Open
from sana_streaming.server.webrtc import Peer

RATE = 48_000


class Camera(MediaStreamTrack):
    """Frames at a steady rate; `draw(i)` gives RGB uint8 [H, W, 3]."""

    kind = "video"

    def __init__(self, draw, fps=30):
        super().__init__()
        self.draw, self.fps, self.sent = draw, fps, 0

    async def recv(self):
        if self.readyState != "live":
            raise MediaStreamError
        await asyncio.sleep(1 / self.fps)
        frame = av.VideoFrame.from_ndarray(self.draw(self.sent), format="rgb24")
        frame.pts, frame.time_base = self.sent * 90_000 // self.fps, Fraction(1, 90_000)
        self.sent += 1
        return frame


class Tone(MediaStreamTrack):
    """A steady level of sound, 20 ms at a time."""

    kind = "audio"

    def __init__(self):
        super().__init__()
        self.sent = 0

    async def recv(self):
        if self.readyState != "live":
            raise MediaStreamError
        await asyncio.sleep(0.02)
        phase = 2 * np.pi * 440 * (np.arange(960) + self.sent) / RATE
        samples = np.repeat((8000 * np.sin(phase)).astype(np.int16), 2)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), self.sent
        self.sent += 960
        return frame


class Client:
    """Collects what it receives: (frames of video, frames of sound)."""

    def __init__(self):
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.video, self.audio = [], []
        self.tasks = []
        self.pc.on("track", lambda track: self.tasks.append(asyncio.ensure_future(self._collect(track))))

    async def _collect(self, track):
        kept = self.video if track.kind == "video" else self.audio
        try:
            while True:
                kept.append(await track.recv())
        except MediaStreamError:
            return

    def prefer(self, codec):
        """H264 or VP8."""
        every = RTCRtpSender.getCapabilities("video").codecs
        wanted = [c for c in every if c.name == codec or c.name == "rtx"]
        for transceiver in self.pc.getTransceivers():
            if transceiver.kind == "video":
                transceiver.setCodecPreferences(wanted)

    async def offer(self):
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return self.pc.localDescription.sdp

    async def take(self, answer):
        await self.pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def close(self):
        await self.pc.close()
        for task in self.tasks:
            task.cancel()


def without_candidates(sdp):
    """The description before any candidate was found, and the candidates."""
    lines = sdp.splitlines()
    candidates = [line for line in lines if line.startswith("a=candidate:")]
    kept = [line for line in lines if not line.startswith(("a=candidate:", "a=end-of-candidates"))]
    return "\r\n".join(kept) + "\r\n", candidates


async def until(true, seconds=30.0):
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def session(hub, **options):
    message = Open(**{"prompt": "x", "width": 64, "height": 64, "fps": 30.0} | options)
    with ThreadPoolExecutor(2) as pool:
        live = Live(hub, pool, Metrics())
        live.configure(message)
        hub.open(message, live.notify)
        await live.ready.wait()
        yield live
        hub.close(live.id)
        await until(lambda: live.over)
        await asyncio.sleep(0.05)  # peers close


async def connected(live, client, *, trickle=False, receives=True, sends=True):
    peer = Peer(live, [], receives=receives, sends=sends)
    offer, candidates = await client.offer(), []
    if trickle:
        offer, candidates = without_candidates(offer)
        assert candidates
    await client.take(await peer.answer(offer))
    for line in candidates:
        await peer.add_candidate(line, None, 0)
    if trickle:
        await peer.add_candidate(None, None, None)
    return peer

"""Pictures and sound by WebRTC: H.264 or VP8 over UDP, by aiortc."""

import asyncio
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.codecs import h264, vpx
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcconfiguration import RTCBundlePolicy
from aiortc.sdp import SessionDescription, candidate_from_sdp

from . import stamp
from .feed import Decoded, Live, Shown, View, in_background

CLOCK = 90_000  # ticks a second of video in RTP
BITS = (0.04, 0.16, 0.6)  # per pixel and frame: the least, at the beginning, the most
FLOOR = (150_000, 500_000, 1_500_000)  # bits per second: likewise, however small the picture is
MEDIA_LINES = 8  # of a description


def suit_bitrate(width: int, height: int, fps: float) -> tuple[int, int, int]:
    """Let the encoders of this process spend what pictures of this size need: the least, at the beginning, the most, in
    bits per second. The caps of aiortc suit small pictures and are set for all connections at once, so that they only
    ever rise; the receiver's estimate of the line decides in between."""
    pixels = width * height * fps
    suited = tuple(round(max(floor, bits * pixels)) for floor, bits in zip(FLOOR, BITS, strict=True))
    modules: tuple[Any, ...] = (h264, vpx)
    for module in modules:
        module.DEFAULT_BITRATE = max(module.DEFAULT_BITRATE, suited[1])
        module.MAX_BITRATE = max(module.MAX_BITRATE, suited[2])
        module.MIN_BITRATE = min(module.MIN_BITRATE, suited[0])
    return suited[0], suited[1], suited[2]


def ice_servers(stun: Sequence[str] = (), turn: Sequence[str] = (), user: str = "", password: str = "") -> list[dict]:
    """Servers that help to find a way through, as browsers take them. None but those given: nobody else is asked."""
    return [{"urls": url} for url in stun] + [{"urls": url, "username": user, "credential": password} for url in turn]


class Peer:
    """One connection: that of a client who sends, who watches, or both.

    lost: called once if the connection fails or the other side closes it."""

    def __init__(
        self,
        live: Live,
        servers: Sequence[dict],
        *,
        receives: bool,
        sends: bool,
        lost: Callable[["Peer"], None] = lambda _: None,
    ):
        self.live, self.receives, self.sends, self.lost = live, receives, sends, lost
        self.pc = RTCPeerConnection(
            RTCConfiguration([RTCIceServer(**server) for server in servers], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        )
        self.closed = False
        self._views: list[View] = []
        self._tasks: list[asyncio.Task] = []
        self._forget = live.on_finish(lambda: in_background(self.close()))
        self.pc.on("track", self._take)
        self.pc.on("connectionstatechange", self._changed)

    async def answer(self, offer: str) -> str:
        """Their description -> ours, with our candidates. ValueError for one that cannot be used."""
        try:
            media = SessionDescription.parse(offer).media
            if not 0 < len(media) <= MEDIA_LINES:
                raise ValueError(f"expected 1 to {MEDIA_LINES} media lines, got {len(media)}")
            await self.pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            if self.sends:
                self._send([(line.rtp.muxId, line.direction) for line in media])
            answer = await self.pc.createAnswer()
            await self.pc.setLocalDescription(answer)
        except Exception as error:  # aiortc meets malformed descriptions with exceptions of every kind
            await self.close()
            raise ValueError(f"the WebRTC description was not understood: {error or type(error).__name__}") from error
        return self.pc.localDescription.sdp

    async def add_candidate(self, line: str | None, mid: str | None, index: int | None) -> None:
        """A way to reach them; None ends the list. ValueError for what is none."""
        if not line:
            await self.pc.addIceCandidate(None)
            return
        try:
            candidate = candidate_from_sdp(line.removeprefix("a=").removeprefix("candidate:"))
            candidate.sdpMid, candidate.sdpMLineIndex = mid, index
            if mid is None and index is None:
                candidate.sdpMLineIndex = 0
            await self.pc.addIceCandidate(candidate)
        except Exception as error:
            raise ValueError("the WebRTC candidate was not understood") from error

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._forget()
        for view in self._views:
            view.close()
        for task in self._tasks:
            task.cancel()
        await self.pc.close()

    def _send(self, lines: list[tuple[str, str | None]]) -> None:
        """Our picture and sound, into the first lines of the offer that take them."""
        tracks: dict[str, Callable[[], MediaStreamTrack]] = {"video": self._video, "audio": self.live.sound.track}
        wanted = {mid for mid, direction in lines if direction in ("recvonly", "sendrecv")}
        for transceiver in self.pc.getTransceivers():
            if transceiver.kind in tracks and transceiver.mid in wanted:
                transceiver.sender.replaceTrack(tracks.pop(transceiver.kind)())
                transceiver.direction = "sendrecv" if self.receives else "sendonly"

    def _video(self) -> "EditedTrack":
        assert self.live.feed is not None
        view = self.live.feed.view()
        self._views.append(view)
        return EditedTrack(self.live, view, self.receives and self.live.stamped)

    def _take(self, track: MediaStreamTrack) -> None:
        if self.receives:
            take = self._take_video if track.kind == "video" else self.live.sound.take
            self._tasks.append(asyncio.ensure_future(take(track)))

    async def _take_video(self, track: MediaStreamTrack) -> None:
        live = self.live
        try:
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.VideoFrame)
                assert frame.pts is not None
                assert frame.time_base is not None
                pts = frame.pts * Fraction(frame.time_base.numerator, frame.time_base.denominator)
                live.offer(partial(fit, frame, live.size, live.source_height * live.stamped), pts)
        except MediaStreamError:
            return

    def _changed(self) -> None:
        if self.pc.connectionState in ("failed", "closed") and not self.closed:
            in_background(self.close())
            self.lost(self)


class EditedTrack(MediaStreamTrack):
    """The edited picture for one viewer."""

    kind = "video"

    def __init__(self, live: Live, view: View, stamped: bool):
        super().__init__()
        self.live, self.view, self.stamped = live, view, stamped

    async def recv(self) -> av.VideoFrame:
        shown = await self.view.next() if self.readyState == "live" else None
        if shown is None:
            self.stop()
            raise MediaStreamError
        assert self.live.feed is not None
        fps = self.live.feed.fps
        return await self.live.loop.run_in_executor(self.live.pool, to_video, shown, fps, self.stamped)

    def stop(self) -> None:
        self.view.close()
        super().stop()


def to_video(shown: Shown, fps: float, stamped: bool) -> av.VideoFrame:
    """For the encoder, which takes even sizes."""
    height, width, _ = shown.frame.rgb.shape
    rgb = np.ascontiguousarray(shown.frame.rgb[: height & ~1, : width & ~1])
    frame = av.VideoFrame.from_ndarray(stamp.draw(rgb, shown.frame.stamp) if stamped else rgb, format="rgb24")
    frame.pts, frame.time_base = round(shown.tick / fps * CLOCK), Fraction(1, CLOCK)
    return frame


def fit(frame: av.VideoFrame, size: tuple[int, int], stamped_height: int = 0) -> Decoded:
    """A frame that came, as the session edits it: scaled, and cropped to its middle. With `stamped_height`, the rows of
    the picture as it was drawn, there is a stamp below."""
    width, height = size
    if stamped_height:
        rows = height + max(1, round(height * stamp.ROWS / stamped_height))
        rgb = _scaled(frame, width, rows)
        picture, value = stamp.cut(rgb, height)
        return np.ascontiguousarray(picture), value
    scale = max(width / frame.width, height / frame.height)
    rgb = _scaled(frame, max(width, round(frame.width * scale)), max(height, round(frame.height * scale)))
    top, left = (rgb.shape[0] - height) // 2, (rgb.shape[1] - width) // 2
    return np.ascontiguousarray(rgb[top : top + height, left : left + width]), None


def _scaled(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    try:
        return frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")
    except av.FFmpegError as error:
        raise ValueError(f"a frame could not be converted: {error}") from error

"""Pictures and sound by WebRTC: H.264 or VP8 over UDP, by aiortc."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcconfiguration import RTCBundlePolicy
from aiortc.sdp import SessionDescription, candidate_from_sdp

from . import stamp
from .background import in_background
from .bitrate import Bitrate, suit
from .feed import Decoded, Live, Shown, View
from .jitter import hurry

PATIENCE = 20.0  # seconds for a connection to come about
CLOCK = 90_000  # ticks a second of video in RTP
LARGER = 4  # times the session's picture: what a frame may be scaled to before it is cut
MEDIA_LINES = 8  # of a description


def ice_servers(stun: Sequence[str] = (), turn: Sequence[str] = (), user: str = "", password: str = "") -> list[dict]:
    """Servers that help to find a way through, as browsers take them. None but those given: nobody else is asked."""
    return [{"urls": url} for url in stun] + [{"urls": url, "username": user, "credential": password} for url in turn]


class Peer:
    """One connection: that of a client who sends, who watches, or both.

    lost: called once if the connection fails, does not come about, or is closed by the other side."""

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
        self._tasks.append(asyncio.ensure_future(self._wait()))
        return self.pc.localDescription.sdp

    async def add_candidate(self, line: str | None, mid: str | None, index: int | None) -> None:
        """A way to reach them; None ends the list. ValueError for what is none."""
        if not line:
            await self.pc.addIceCandidate(None)
            return
        try:
            candidate = candidate_from_sdp(line.removeprefix("a=").removeprefix("candidate:"))
        except (ValueError, AssertionError) as error:
            raise ValueError("the WebRTC candidate was not understood") from error
        candidate.sdpMid, candidate.sdpMLineIndex = mid, index
        if mid is None and index is None:
            candidate.sdpMLineIndex = 0
        with suppress(ValueError, OSError):  # one of no use, such as a name that leads nowhere, does no harm
            await self.pc.addIceCandidate(candidate)

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
                track = tracks.pop(transceiver.kind)()
                transceiver.sender.replaceTrack(track)
                if isinstance(track, EditedTrack):
                    suit(transceiver.sender, transceiver._codecs[0], Bitrate.of(*track.size, track.fps))
                transceiver.direction = "sendrecv" if self.receives else "sendonly"

    def _video(self) -> "EditedTrack":
        assert self.live.feed is not None
        view = self.live.feed.view()
        self._views.append(view)
        return EditedTrack(self.live, view, self.receives and self.live.stamped)

    def _take(self, track: MediaStreamTrack) -> None:
        if self.receives:
            for receiver in self.pc.getReceivers():
                if receiver.track is track and track.kind == "video":
                    hurry(receiver)
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
                if not live.stamped:
                    live.came(frame.width, frame.height)
                pts = frame.pts * Fraction(frame.time_base.numerator, frame.time_base.denominator)
                live.offer(partial(fit, frame, live.size, live.source_height * live.stamped), pts)
        except MediaStreamError:
            return

    async def _wait(self) -> None:
        """For who asked for a connection and then does not come; the library would wait for minutes."""
        await asyncio.sleep(PATIENCE)
        if self.pc.connectionState != "connected":
            self._lose()

    def _changed(self) -> None:
        if self.pc.connectionState in ("failed", "closed"):
            self._lose()

    def _lose(self) -> None:
        if not self.closed:
            in_background(self.close())
            self.lost(self)


class EditedTrack(MediaStreamTrack):
    """The edited picture for one viewer."""

    kind = "video"

    def __init__(self, live: Live, view: View, stamped: bool):
        super().__init__()
        assert live.feed is not None
        self.live, self.view, self.stamped, self.fps = live, view, stamped, live.feed.fps

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        width, height = self.live.size
        return width, height + stamp.ROWS * self.stamped

    async def recv(self) -> av.VideoFrame:
        shown = await self.view.next() if self.readyState == "live" else None
        if shown is None:
            self.stop()
            raise MediaStreamError
        return await self.live.loop.run_in_executor(self.live.pool, to_video, shown, self.stamped)

    def stop(self) -> None:
        self.view.close()
        super().stop()


def to_video(shown: Shown, stamped: bool) -> av.VideoFrame:
    """For the encoder, which takes even sizes."""
    height, width, _ = shown.frame.rgb.shape
    rgb = np.ascontiguousarray(shown.frame.rgb[: height & ~1, : width & ~1])
    frame = av.VideoFrame.from_ndarray(stamp.draw(rgb, shown.frame.stamp) if stamped else rgb, format="rgb24")
    frame.pts, frame.time_base = round(shown.time * CLOCK), Fraction(1, CLOCK)
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
    scaled = max(width, round(frame.width * scale)), max(height, round(frame.height * scale))
    if scaled[0] * scaled[1] > LARGER * width * height:  # a strip would become as large as its sender likes
        left, top, right, bottom = middle((frame.width, frame.height), size)
        strip = np.ascontiguousarray(frame.to_ndarray(format="rgb24")[top:bottom, left:right], np.uint8)
        return _scaled(av.VideoFrame.from_ndarray(strip, format="rgb24"), width, height), None
    rgb = _scaled(frame, *scaled)
    left, top, right, bottom = middle(scaled, size)
    return np.ascontiguousarray(rgb[top:bottom, left:right]), None


def middle(of: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the largest part of that shape, in a picture of width and height `of`."""
    scale = min(of[0] / shape[0], of[1] / shape[1])
    width, height = max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
    left, top = (of[0] - width) // 2, (of[1] - height) // 2
    return left, top, left + width, top + height


def _scaled(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    try:
        return frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")
    except av.FFmpegError as error:
        raise ValueError(f"a frame could not be converted: {error}") from error

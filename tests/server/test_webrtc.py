"""Pictures and sound by WebRTC, with a client in the same process; sound is as late as the picture."""

import asyncio
import time
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError

from sana_streaming.server import stamp, webrtc
from sana_streaming.server.audio import DelayLine, Sound
from sana_streaming.server.clocks import SourceClock
from sana_streaming.server.hub import LiveFrame
from sana_streaming.server.webrtc import Peer, fit, ice_servers

from .fakes import Clock, FakeHub, picture
from .peers import Camera, Client, Tone, connected, session, until

SIZE = (64, 64)


@pytest.mark.parametrize("codec", ["VP8", "H264"])
def test_there_and_back_with_a_stamp(codec):
    values = {}

    def draw(i):
        values[i] = 20_000 + i
        return stamp.draw(picture(size=(128, 128)), values[i])

    async def run():
        hub = FakeHub()
        async with session(hub, width=128, height=128, stamped=True) as live:
            client = Client()
            client.pc.addTrack(Camera(draw))
            client.prefer(codec)
            await connected(live, client, trickle=True)
            await until(lambda: len(client.video) > 15)
            await client.close()
            return [frame.to_ndarray(format="rgb24") for frame in client.video[5:]], client.video[5:]

    pictures, frames = asyncio.run(run())
    found = [stamp.cut(rgb, 64)[1] for rgb in pictures]
    assert {rgb.shape for rgb in pictures} == {(64 + stamp.ROWS, 64, 3)}
    assert sum(value in values.values() for value in found) >= 0.9 * len(found)
    assert [v for v in found if v] == sorted(v for v in found if v)
    wanted = 255 - picture(size=(128, 128)).mean(axis=(0, 1))
    assert abs(pictures[-1][:60].mean(axis=(0, 1)) - wanted).max() < 8
    assert all(a.pts < b.pts for a, b in pairwise(frames))


def test_sound_passes_and_viewers_have_no_stamp():
    async def run():
        hub = FakeHub()
        hub.lateness = 0.2
        async with session(hub, stamped=True) as live:
            client, viewer = Client(), Client()
            client.pc.addTrack(Camera(lambda i: stamp.draw(picture(), 77)))
            client.pc.addTrack(Tone())
            await connected(live, client)
            viewer.pc.addTransceiver("video", direction="recvonly")
            viewer.pc.addTransceiver("audio", direction="recvonly")
            await connected(live, viewer, receives=False)
            loud = lambda frames: [f for f in frames if np.abs(f.to_ndarray()).max() > 2000]  # noqa: E731
            await until(lambda: client.video and viewer.video and loud(client.audio) and loud(viewer.audio))
            assert (client.video[-1].height, viewer.video[-1].height) == (64 + stamp.ROWS, 64)
            await client.close()
            await viewer.close()

    asyncio.run(run())


def test_a_client_that_leaves_is_noticed():
    lost = []

    async def run():
        async with session(FakeHub()) as live:
            client = Client()
            client.pc.addTrack(Camera(lambda i: picture()))
            peer = Peer(live, [], receives=True, sends=True, lost=lost.append)
            await client.take(await peer.answer(await client.offer()))
            await until(lambda: client.video)
            await client.close()
            await until(lambda: lost == [peer])
            assert live.feed.views == set()
            assert not live.over

    asyncio.run(run())


@pytest.mark.parametrize("sdp", ["", "v=0", "v=0\r\nm=video", "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n", "\x00" * 50])
def test_malformed_descriptions(sdp):
    async def run():
        async with session(FakeHub()) as live:
            peer = Peer(live, [], receives=True, sends=True)
            with pytest.raises(ValueError, match="not understood"):
                await peer.answer(sdp)
            assert peer.closed

    asyncio.run(run())


def test_cropped_to_its_middle():
    rgb = np.zeros((100, 300, 3), np.uint8)
    rgb[:, 100:200] = 200
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    fitted, value = fit(frame, SIZE)
    assert fitted.shape == (64, 64, 3)
    assert value is None
    assert fitted[:, 4:-4].min() > 180
    assert fitted.flags.c_contiguous


@pytest.mark.parametrize("sent", [(2048, 16), (16, 2048), (4096, 2)])
def test_a_strip_is_cut_before_it_is_scaled(sent, monkeypatch):
    """Scaled as a whole it would take as much memory as its sender likes."""
    sizes, plain = [], webrtc._scaled
    monkeypatch.setattr(webrtc, "_scaled", lambda frame, *size: sizes.append(size) or plain(frame, *size))
    rgb = np.full((*sent[::-1], 3), 200, np.uint8)
    fitted, _ = fit(av.VideoFrame.from_ndarray(rgb, format="rgb24"), (640, 352))
    assert fitted.shape == (352, 640, 3)
    assert fitted.mean() == pytest.approx(200, abs=2)
    assert sizes == [(640, 352)]


@pytest.mark.parametrize("sent", [(320, 256), (160, 128)])  # as drawn, and as a browser scales it on a slow line
def test_a_scaled_stamp_is_read(sent):
    stamped = stamp.draw(picture(size=(320, 240)), 4660)
    frame = av.VideoFrame.from_ndarray(stamped, format="rgb24").reformat(*sent, format="yuv420p")
    fitted, value = fit(frame, (128, 96), 240)
    assert value == 4660
    assert fitted.shape == (96, 128, 3)


# Sound, with a clock that passes when told to


def ramp(count, begin):
    return np.repeat(np.arange(begin, begin + count, dtype=np.int64).astype(np.int16)[:, None], 2, axis=1)


@pytest.mark.parametrize("jitter", [0.0, 0.008])
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.4, 2.0])
def test_sound_is_as_late_as_the_picture(delay, jitter):
    """Within one frame at 60 a second, whatever the jitter of packets, and without a gap."""
    clock, line, rng = Clock(), DelayLine(1000), np.random.default_rng(0)
    heard = []
    for i in range(400):
        clock.now += 0.02
        line.push(ramp(20, 20 * i), clock.now + jitter * rng.uniform(-1, 1))  # sample n was taken at 100 + n / 1000
        heard.append((clock.now - 0.02, line.pull(20, clock.now - 0.02, delay)[:, 0]))
    late = [now - (100 + int(samples[0]) / 1000) for now, samples in heard[150:]]
    assert max(abs(value - delay) for value in late) < 1 / 60
    joined = np.concatenate([samples for _, samples in heard[150:]])
    assert (np.diff(joined) == 1).all()


class Receiver:
    """What aiortc's receiver of sound gives: each 20 ms four packets after their end, in values that are times."""

    def __init__(self, clock, count):
        self.clock, self.begin, self.count, self.i = clock, clock.now, count, 0
        self.each = lambda: None

    async def recv(self):
        if self.i == self.count:
            raise MediaStreamError
        self.clock.now = self.begin + 0.02 * (self.i + 1 + 4)
        self.each()
        samples = np.repeat(np.arange(960, dtype=np.int16) // 48 + 20 * self.i, 2)[None]  # milliseconds
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate, frame.time_base, frame.pts = 48_000, Fraction(1, 48_000), 960 * self.i
        self.i += 1
        return frame


def test_sound_arrives_as_late_as_pictures_do():
    """A picture arrives when it was taken. Sound of its time is shown with it."""
    clock = Clock()
    sound, receiver = Sound(lambda: 0.5, clock), Receiver(clock, 100)
    track, heard = sound.track(), []

    def listen():
        taken = track.line.pull(960, clock.now, 0.5)[0, 0] / 1000  # seconds after begin
        heard.append(clock.now - receiver.begin - taken)

    receiver.each = listen
    asyncio.run(sound.take(receiver))
    assert max(abs(value - 0.5) for value in heard[50:]) < 1 / 60


def test_sound_follows_a_delay_that_changes():
    clock, line = Clock(), DelayLine(1000)
    for i in range(300):
        clock.now += 0.02
        line.push(ramp(20, 20 * i), clock.now)
        delay = 0.1 if i < 150 else 0.5
        begin = clock.now - 0.02
        samples = line.pull(20, begin, delay)
        if i in (149, 150, 299):
            assert abs(begin - (100 + int(samples[0, 0]) / 1000) - delay) < 1 / 60


def test_sound_that_is_not_there_is_silence_and_memory_does_not_grow():
    line = DelayLine(1000)
    assert (line.pull(20, 5.0, 0.1) == 0).all()
    for i in range(10_000):
        line.push(ramp(20, 1), 100 + 0.02 * i)
    assert line.waiting < 25


def test_sound_is_as_late_as_frames_are_shown():
    """A frame is shown at the first tick after it is due: up to a period later, never more."""

    async def run():
        hub = FakeHub(fps=25)
        hub.lateness = 0.3
        async with session(hub) as live:
            assert live.lateness() == 0.3
            for late, told in ((0.33, 0.33), (0.2, 0.3), (5.0, 0.34)):
                for _ in range(100):
                    live._seen(LiveFrame(picture(), Fraction(0), 0.0, 1), late)
                assert live.lateness() == pytest.approx(told, abs=1e-3)

    asyncio.run(run())


# Times of sources


def test_a_source_that_comes_back_goes_on_in_time():
    clock = SourceClock()
    first = [clock(Fraction(90 + i, 30), 10 + i / 30) for i in range(3)]
    assert first == [0, Fraction(1, 30), Fraction(2, 30)]
    later = clock(Fraction(0), 15.0)
    assert float(later) == pytest.approx(5.0, abs=0.01)
    assert clock(Fraction(1, 30), 15 + 1 / 30) == later + Fraction(1, 30)
    leap = clock(Fraction(10**6), 15 + 2 / 30)
    assert float(leap - later) == pytest.approx(2 / 30, abs=0.01)


def test_times_only_move_forward():
    clock = SourceClock()
    times = [clock(Fraction(t), 1.0) for t in (5, 5, 4, 5, -100, 0)]
    assert times == sorted(set(times))


def test_a_viewer_sees_the_latest():
    async def run():
        hub = FakeHub(fps=50)
        async with session(hub) as live:
            view = live.feed.view()
            live.offer(lambda: (picture(), 5), Fraction(0))
            shown = await view.next()
            assert shown.frame.stamp == 5
            await asyncio.sleep(0.2)
            assert (await view.next()).time > shown.time + 3 / 50
            view.close()
            assert await view.next() is None

    asyncio.run(run())


def test_broken_pictures_are_counted_and_left_out():
    def broken():
        raise ValueError("no picture")

    async def run():
        hub = FakeHub()
        async with session(hub) as live:
            live.offer(broken, Fraction(0))
            live.offer(lambda: (picture(), None), Fraction(1, 30))
            await until(lambda: hub.pushed)
            assert "broken_frames_total 1.0" in live.metrics.text().decode()
            assert hub.pushed[0].captured <= time.monotonic()

    asyncio.run(run())


def test_servers_that_help_reach_the_connection():
    async def run():
        async with session(FakeHub()) as live:
            servers = ice_servers(["stun:a.example:1"], ["turn:b.example:2?transport=tcp"], "me", "secret")
            peer = Peer(live, servers, receives=True, sends=True)
            told = peer.pc._RTCPeerConnection__configuration.iceServers
            assert [(server.urls, server.username, server.credential) for server in told] == [
                ("stun:a.example:1", None, None),
                ("turn:b.example:2?transport=tcp", "me", "secret"),
            ]
            await peer.close()

    asyncio.run(run())


def test_a_client_that_asks_and_does_not_come_is_given_up(monkeypatch):
    monkeypatch.setattr(webrtc, "PATIENCE", 0.1)
    lost = []

    async def run():
        async with session(FakeHub()) as live:
            client = Client()
            client.pc.addTransceiver("video", direction="recvonly")
            peer = Peer(live, [], receives=False, sends=True, lost=lost.append)
            await peer.answer(await client.offer())
            assert live.feed.views
            await until(lambda: lost == [peer] and peer.closed)
            assert live.feed.views == set()
            await client.close()

    asyncio.run(run())

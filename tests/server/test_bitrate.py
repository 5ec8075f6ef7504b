"""Each connection spends what its own picture needs."""

import asyncio

import pytest
from aiortc import RTCRtpCodecParameters
from aiortc.codecs import get_encoder

from sana_streaming.server.bitrate import FLOOR, Bitrate, Suited

from .fakes import FakeHub, picture
from .peers import Camera, Client, connected, session, until


def test_a_larger_picture_needs_more():
    small, large = Bitrate.of(64, 64, 16), Bitrate.of(1280, 704, 24)
    assert (small.least, small.begin, small.most) == FLOOR
    assert large.least < large.begin < large.most
    assert large.begin > 3_000_000
    assert Bitrate.of(1280, 704, 48).most == 2 * large.most


@pytest.mark.parametrize("codec", ["H264", "VP8"])
def test_the_estimate_of_the_line_decides_within_caps(codec):
    bitrate = Bitrate.of(1280, 704, 24)
    encoder = Suited(get_encoder(RTCRtpCodecParameters(mimeType=f"video/{codec}", clockRate=90_000)), bitrate)
    assert encoder.target_bitrate == bitrate.begin
    for estimate, target in ((10, bitrate.least), (2_000_000, 2_000_000), (10**9, bitrate.most)):
        encoder.target_bitrate = estimate
        assert encoder.target_bitrate == target


@pytest.mark.parametrize("codec", ["H264", "VP8"])
def test_two_connections_of_one_server(codec):
    """The larger picture takes nothing from the smaller one, nor gives it."""

    async def run():
        async with session(FakeHub((640, 384), fps=60)) as large, session(FakeHub((64, 64), fps=15)) as small:
            clients, begun = [], []
            for live in (large, small):
                clients.append(Client())
                clients[-1].pc.addTrack(Camera(lambda i: picture()))
                clients[-1].prefer(codec)
                peer = await connected(live, clients[-1])
                encoder = next(s for s in peer.pc.getSenders() if s.kind == "video")._RTCRtpSender__encoder
                await until(lambda: clients[-1].video and encoder._encoder.codec)  # noqa: B023
                assert type(encoder._encoder).__name__.lower().startswith(codec.lower())
                begun.append(encoder._encoder.codec.bit_rate)
            for client in clients:
                await client.close()
            return begun

    assert asyncio.run(run()) == [Bitrate.of(640, 384, 60).begin, Bitrate.of(64, 64, 15).begin]

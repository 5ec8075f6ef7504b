"""The stamp goes through scaling and real encoders."""

from fractions import Fraction

import av
import numpy as np
import pytest

from sana_streaming.server import stamp
from sana_streaming.server.feed import Shown
from sana_streaming.server.hub import LiveFrame
from sana_streaming.server.websocket import from_jpeg, to_jpeg

from .fakes import picture

VALUES = [1, 2, 0x8000, 0xFFFF, 0xAAAA, 0x5555, 12345, 54321]


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("width", [64, 101, 256, 1280])
def test_layout(width):
    stamped = stamp.draw(noise(width, 32), 0b1000_0000_0000_0011)  # nibbles 8, 0, 0, 3: check 11
    assert stamped.shape == (48, width, 3)
    bits = [1, *[0] * 13, 1, 1, 1, 0, 1, 1]
    for i, bit in enumerate(bits):
        left, right = int(i * width / 20 + 0.5), int((i + 1) * width / 20 + 0.5)
        assert (stamped[32:, left:right] == 255 * bit).all()


@pytest.mark.parametrize("value", VALUES)
def test_reads_what_was_drawn_and_leaves_the_picture(value):
    rgb = noise(101, 30, value)
    cut, found = stamp.cut(stamp.draw(rgb, value), 30)
    assert found == value
    assert np.array_equal(cut, rgb)


def test_no_stamp_is_no_value():
    rgb = noise(64, 30)
    assert stamp.cut(stamp.draw(rgb, None), 30)[1] is None
    assert stamp.read(np.zeros((16, 64, 3), np.uint8)) is None
    assert stamp.read(np.zeros((16, 7, 3), np.uint8)) is None  # too narrow for blocks


def test_a_wrong_bit_is_seen():
    stamped = stamp.draw(noise(200, 30), 12345)
    stamped[30:, 50:60] = 255 - stamped[30:, 50:60]
    assert stamp.cut(stamped, 30)[1] is None


@pytest.mark.parametrize(("name", "rate"), [("libx264", 150_000), ("libvpx", 250_000)])
@pytest.mark.parametrize("size", [(64, 64), (256, 192)])
def test_survives_encoders(name, rate, size):
    width, height = size
    encoder = av.CodecContext.create(name, "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.bit_rate = width, height + stamp.ROWS, "yuv420p", rate
    encoder.framerate, encoder.time_base = 16, Fraction(1, 16)
    encoder.options = {"tune": "zerolatency"} if name == "libx264" else {"deadline": "realtime", "lag-in-frames": "0"}
    decoder = av.CodecContext.create({"libx264": "h264", "libvpx": "vp8"}[name], "r")
    found = []
    values = VALUES * 3
    for i, value in enumerate(values):
        frame = av.VideoFrame.from_ndarray(stamp.draw(noise(width, height, i), value), format="rgb24")
        frame.pts = i
        for packet in encoder.encode(frame):
            found += decoder.decode(packet)
    for packet in encoder.encode(None):
        found += decoder.decode(packet)
    found += decoder.decode(None)
    assert [stamp.cut(frame.to_ndarray(format="rgb24"), height)[1] for frame in found] == values


def test_survives_jpeg_and_scaling():
    rgb = picture(size=(320, 240))
    frame = LiveFrame(rgb, 0, 0.0, 1, stamp=4321)
    jpeg = to_jpeg(Shown(0.0, frame), stamped=True)
    decoded, value = from_jpeg(jpeg, (128, 96), 240)
    assert value == 4321
    assert decoded.shape == (96, 128, 3)
    assert abs(decoded.mean(axis=(0, 1)) - rgb.mean(axis=(0, 1))).max() < 2
    assert decoded[-1].max() < 255  # nothing of the stripe

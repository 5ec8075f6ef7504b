"""How many bits a second the encoder of a connection spends: as many as its picture needs.

aiortc has one encoder for each sender, but one set of caps for all, which suit small pictures. Here those caps are
opened wide, and each encoder is given its own; within them the receiver's estimate of the line decides.
"""

from dataclasses import dataclass
from typing import Any

from aiortc import RTCRtpSender
from aiortc.codecs import get_encoder, h264, vpx
from aiortc.codecs.base import Encoder

PER_PIXEL = (0.04, 0.16, 0.6)  # of each frame: the least, at the beginning, the most
FLOOR = (150_000, 500_000, 1_500_000)  # bits per second: likewise, however small the picture is
WIDEST = (10_000, 500_000_000)

MODULES: tuple[Any, ...] = (h264, vpx)
for module in MODULES:
    module.MIN_BITRATE, module.MAX_BITRATE = WIDEST


@dataclass(frozen=True)
class Bitrate:
    """Bits per second, in whole thousands, as encoders take them."""

    least: int
    begin: int
    most: int

    @classmethod
    def of(cls, width: int, height: int, fps: float) -> "Bitrate":
        """What suits pictures of that size."""
        needed = (max(f, bits * width * height * fps) for f, bits in zip(FLOOR, PER_PIXEL, strict=True))
        return cls(*(1000 * round(bits / 1000) for bits in needed))


class Suited(Encoder):
    """One of aiortc's encoders, with caps of its own."""

    def __init__(self, encoder: Any, bitrate: Bitrate):
        self._encoder, self.bitrate = encoder, bitrate
        self.target_bitrate = bitrate.begin

    def encode(self, frame: Any, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        return self._encoder.encode(frame, force_keyframe)

    def pack(self, packet: Any) -> tuple[list[bytes], int]:
        return self._encoder.pack(packet)

    @property
    def target_bitrate(self) -> int:
        return self._encoder.target_bitrate

    @target_bitrate.setter
    def target_bitrate(self, bitrate: int) -> None:
        self._encoder.target_bitrate = max(self.bitrate.least, min(bitrate, self.bitrate.most))


def suit(sender: RTCRtpSender, codec: Any, bitrate: Bitrate) -> None:
    """Before it begins to send."""
    # A sender makes an encoder for its first frame if it has none by then; there is no public way to give it one.
    sender._RTCRtpSender__encoder = Suited(get_encoder(codec), bitrate)  # type: ignore[attr-defined]

"""Video codecs: frames in [-1, 1] to latents and back, causal in time, with what they remember as a value.

Layout: frames [B, 3, F, H, W], latents [B, C, T, h, w].
"""

from typing import Any, Protocol

from torch import Tensor

from sana_streaming.codec.nano import NanoCodec
from sana_streaming.config import CodecConfig


class VideoCodec(Protocol):
    """What every codec offers. Encoding a clip at once and chunk by chunk gives the same latents; so does decoding."""

    config: CodecConfig

    def init_encoder(self, batch: int) -> Any:
        """The encoder's state before a stream's first chunk; works for any size of picture."""
        ...

    def init_decoder(self, batch: int) -> Any:
        """The decoder's state before a stream's first chunk; works for any size of picture."""
        ...

    def encode(self, frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        """frames [B, 3, F, H, W] in [-1, 1], of whole latents -> latents [B, C, T, h, w] and the state after them"""
        ...

    def decode(self, latents: Tensor, state: Any) -> tuple[Tensor, Any]:
        """latents [B, C, T, h, w] -> frames [B, 3, F, H, W] about [-1, 1], not clamped, and the state after them"""
        ...

    def frames_of(self, latents: int, first: bool) -> int:
        """How many frames a chunk of that many latents stands for; `first`: the chunk opens the stream."""
        ...


CODECS = {"nano": NanoCodec}


def build_codec(config: CodecConfig) -> VideoCodec:
    """A codec with fresh weights."""
    if config.kind not in CODECS:
        raise ValueError(f"codec kind: expected one of {sorted(CODECS)}, got {config.kind!r}")
    return CODECS[config.kind](config)

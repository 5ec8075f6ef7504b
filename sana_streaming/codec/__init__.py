"""Video codecs: frames in [-1, 1] to latents and back, causal in time, with what they remember as a value."""

from sana_streaming.codec.base import VideoCodec
from sana_streaming.codec.ltx2 import Ltx2Codec
from sana_streaming.codec.nano import NanoCodec
from sana_streaming.config import CodecConfig

__all__ = ["CODECS", "VideoCodec", "build_codec"]

CODECS = {"ltx2": Ltx2Codec, "nano": NanoCodec}


def build_codec(config: CodecConfig) -> VideoCodec:
    """A codec with fresh weights."""
    if config.kind not in CODECS:
        raise ValueError(f"codec kind: expected one of {sorted(CODECS)}, got {config.kind!r}")
    return CODECS[config.kind](config)

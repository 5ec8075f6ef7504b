"""What every codec offers.

Layout: frames [B, 3, F, H, W], latents [B, C, T, h, w].
"""

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from sana_streaming.config import CodecConfig


class VideoCodec(nn.Module):
    """Encoding a clip at once and chunk by chunk gives the same latents; so does decoding."""

    config: CodecConfig

    @abstractmethod
    def init_encoder(self, batch: int) -> Any:
        """The encoder's state before a stream's first chunk; works for any size of picture."""

    @abstractmethod
    def init_decoder(self, batch: int) -> Any:
        """The decoder's state before a stream's first chunk; works for any size of picture."""

    @abstractmethod
    def encode(self, frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        """frames [B, 3, F, H, W] in [-1, 1], whole latents of them -> latents [B, C, T, h, w] and the state after"""

    @abstractmethod
    def decode(self, latents: Tensor, state: Any) -> tuple[Tensor, Any]:
        """latents [B, C, T, h, w] -> frames [B, 3, F, H, W] about [-1, 1], not clamped, and the state after"""

    def flush(self, state: Any) -> Tensor | None:
        """Frames [B, 3, F, H, W] of a stream that has ended which `decode` still holds back; None if there are none."""
        return None

    @abstractmethod
    def frames_of(self, latents: int, first: bool) -> int:
        """How many frames a chunk of that many latents stands for; `first`: the chunk opens the stream."""

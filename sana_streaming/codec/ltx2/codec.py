"""The LTX-2 video codec: encoding, and decoding in either way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sana_streaming.codec.base import VideoCodec
from sana_streaming.codec.ltx2.layers import DOWN, UPS, CausalState, Decoder, Encoder
from sana_streaming.config import CodecConfig

STRIDE, FRAMES = 32, 8  # pixels per cell, frames per latent
WINDOW = 4  # latents that the decoder sees at a time in "chunk_tile"


@dataclass(frozen=True)
class TileState:
    """What the next window begins with, and what it is blended with. It does not grow."""

    latents: Tensor | None  # [B, C, up to 3, h, w]
    tail: Tensor | None  # [B, 3, 16, H, W]: frames of the window before that are not given out yet


class Ltx2Codec(VideoCodec):
    """Latents come in the weights' dtype, frames in float32.

    A stream is encoded in whole latents, cut anywhere: 1 + 8k frames first (`frames_of`), then 8k. A clip of another
    length is filled up by whoever cuts it, with its last frame, and as many frames are dropped from the result.
    """

    latents_mean: Tensor  # [C], float32 whatever the weights are
    latents_std: Tensor  # [C], likewise

    def __init__(self, config: CodecConfig):
        super().__init__()
        check(config)
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.register_buffer("latents_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latents_std", torch.ones(config.latent_channels))
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As usual; weights are laid out as the convolutions read them."""
        keys = super().load_state_dict(state_dict, strict=strict, assign=assign)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        return keys

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Ltx2Codec":
        """Moves and casts everything as usual, but the statistics of the latents stay float32."""
        mean, std = self.latents_mean, self.latents_std
        super()._apply(fn, recurse)
        if self.latents_mean.dtype != mean.dtype:
            self.latents_mean, self.latents_std = mean.to(self.latents_mean.device), std.to(self.latents_std.device)
        return self

    def init_encoder(self, batch: int) -> CausalState:
        return CausalState((None,) * len(self.encoder.layers))

    def init_decoder(self, batch: int) -> CausalState | TileState:
        return self._unremembered() if self.config.decode == "causal" else TileState(None, None)

    def frames_of(self, latents: int, first: bool) -> int:
        return FRAMES * latents - (FRAMES - 1 if first else 0)

    def encode(self, frames: Tensor, state: CausalState) -> tuple[Tensor, CausalState]:
        """frames [B, 3, F, H, W] in [-1, 1] -> latents [B, C, T, h, w], about unit variance

        F is 1 + 8k at first and 8k later; H and W are multiples of 32, at least 64.
        """
        if frames.ndim != 5 or frames.shape[1] != 3:
            raise ValueError(f"frames: expected [B, 3, F, H, W], got {list(frames.shape)}")
        first = state.layers[0] is None
        if frames.shape[2] % FRAMES != first or not frames.shape[2]:
            expected = "1 + a multiple of 8 of them at the start of a stream" if first else "a multiple of 8 of them"
            raise ValueError(f"frames: expected {expected}, got {frames.shape[2]}")
        if any(size % STRIDE or size < 2 * STRIDE for size in frames.shape[3:]):
            got = list(frames.shape[3:])
            raise ValueError(f"frames: expected height and width in multiples of {STRIDE}, at least 64, got {got}")
        x, state = self.encoder(frames.to(self.encoder.conv_in.conv.weight.dtype), state)
        mean, std = self._statistics()
        return ((x.float() - mean) / std).to(x.dtype), state

    def decode(self, latents: Tensor, state: Any) -> tuple[Tensor, Any]:
        """latents [B, C, T, h, w] -> frames [B, 3, F, H, W] about [-1, 1], not clamped, float32

        "causal": the frames of these latents. "chunk_tile": all that can be told by now, which is 16 frames less.
        """
        channels = self.config.latent_channels
        if latents.ndim != 5 or latents.shape[1] != channels or not latents.shape[2] or min(latents.shape[3:]) < 2:
            raise ValueError(
                f"latents: expected [B, {channels}, T, h, w], h and w at least 2, got {list(latents.shape)}"
            )
        mean, std = self._statistics()
        latents = (latents.float() * std + mean).to(self.decoder.conv_in.conv.weight.dtype)
        if isinstance(state, CausalState):
            return self.decoder(latents, state)
        tail = state.tail
        if state.latents is not None:
            latents = torch.cat([state.latents, latents], dim=2)
        height, width = (STRIDE * cells for cells in latents.shape[3:])
        done = [latents.new_empty(len(latents), 3, 0, height, width, dtype=torch.float32)]
        while latents.shape[2] >= WINDOW:
            frames, tail = self._tile(latents[:, :, :WINDOW], tail)
            done.append(frames)
            latents = latents[:, :, 1:]
        return torch.cat(done, dim=2), TileState(latents.clone(), tail)

    def flush(self, state: Any) -> Tensor | None:
        """The frames of a stream that has ended which `decode` still holds back: [B, 3, F, H, W], or None"""
        if isinstance(state, CausalState) or state.latents is None:
            return None
        frames, tail = self._tile(state.latents, state.tail)
        done = [frames]
        for start in range(1, state.latents.shape[2] - 1):
            frames, tail = self._tile(state.latents[:, :, start:], tail)
            done.append(frames)
        return torch.cat(done, dim=2)

    def _tile(self, latents: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
        """A window -> the frames of its second latent (and of its first, if it opens the stream), and the later ones

        What the window before knew of these frames fades out over their length.
        """
        frames, _ = self.decoder(latents, self._unremembered())
        if tail is None:
            ready = FRAMES + 1
        else:
            count, ready = tail.shape[2], FRAMES
            weight = torch.arange(count, device=frames.device)[:, None, None] / count
            frames = frames[:, :, 1:]  # it belongs to a latent that is given out
            blended = (1 - weight) * tail + weight * frames[:, :, :count]
            frames = torch.cat([blended, frames[:, :, count:]], dim=2)
        return frames[:, :, :ready], frames[:, :, ready:].clone()

    def _unremembered(self) -> CausalState:
        return CausalState((None,) * len(self.decoder.layers))

    def _statistics(self) -> tuple[Tensor, Tensor]:
        return self.latents_mean[:, None, None, None], self.latents_std[:, None, None, None]


def check(config: CodecConfig) -> None:
    """ValueError for a config that is not of this codec."""
    levels, decoder_levels = len(DOWN) + 1, UPS + 1
    fixed = {"frames_per_latent": FRAMES, "stride": STRIDE, "first_latent_frames": 1}
    for name, expected in fixed.items():
        if getattr(config, name) != expected:
            raise ValueError(f"ltx2 codec: expected {name}={expected}, got {getattr(config, name)}")
    lengths = {"widths": levels, "blocks": levels, "decoder_widths": decoder_levels, "decoder_blocks": decoder_levels}
    for name, length in lengths.items():
        if len(getattr(config, name)) != length:
            raise ValueError(f"ltx2 codec: expected {length} {name}, got {getattr(config, name)}")
    if any(2 * fine != coarse for fine, coarse in zip(config.decoder_widths, config.decoder_widths[1:], strict=False)):
        raise ValueError(f"ltx2 codec: expected decoder_widths that double, got {config.decoder_widths}")
    if config.decode not in ("causal", "chunk_tile"):
        raise ValueError(f"ltx2 codec: expected decode 'causal' or 'chunk_tile', got {config.decode!r}")
    if config.decoder_padding not in ("reflect", "zeros"):
        raise ValueError(f"ltx2 codec: expected decoder_padding 'reflect' or 'zeros', got {config.decoder_padding!r}")

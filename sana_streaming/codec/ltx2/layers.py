"""The layers of the LTX-2 codec. Tensors are [B, T, H, W, C], so that channels lie together.

A causal convolution remembers its last two input frames; nothing else is remembered. A stream begins as if its first
frame had been there before. Modules are named as in the published weights.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from sana_streaming.config import CodecConfig

PATCH = 4  # pixels along each side that enter as channels
DOWN = ((1, 2, 2), (2, 1, 1), (2, 2, 2), (2, 2, 2))  # time, height, width; between the encoder's resolutions
UPS = 3  # of (2, 2, 2) each, between the decoder's


@dataclass(frozen=True)
class CausalState:
    """Of each layer: [B, 2, H, W, C] per convolution, or None before the stream begins. It does not grow."""

    layers: tuple[Any, ...]


class Conv(nn.Module):
    """A convolution over 3 frames. If causal it sees two past ones, else one past and one future; ends are repeated."""

    def __init__(self, width: int, out: int, causal: bool = True, padding: str = "zeros"):
        super().__init__()
        self.conv = nn.Conv3d(width, out, 3)
        self.causal, self.reflect = causal, padding == "reflect"

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x [B, T, H, W, C] -> [B, T, H, W, D], and the past of the next call"""
        if self.causal:
            x = torch.cat([x[:, :1], x[:, :1], x] if past is None else [past, x], dim=1)
            memory = x[:, -2:].clone()  # a slice would keep the whole chunk alive
        else:
            x, memory = torch.cat([x[:, :1], x, x[:, -1:]], dim=1), None
        if self.reflect:
            x = torch.cat([x[:, :, 1:2], x, x[:, :, -2:-1]], dim=2)
            x = torch.cat([x[:, :, :, 1:2], x, x[:, :, :, -2:-1]], dim=3)
        border = (0, 0, 0) if self.reflect else (0, 1, 1)
        y = F.conv3d(x.permute(0, 4, 1, 2, 3), self.conv.weight, self.conv.bias, padding=border)
        return y.permute(0, 2, 3, 4, 1), memory


class ResBlock(nn.Module):
    def __init__(self, width: int, causal: bool = True, padding: str = "zeros"):
        super().__init__()
        self.conv1 = Conv(width, width, causal, padding)
        self.conv2 = Conv(width, width, causal, padding)

    def forward(self, x: Tensor, past: Any) -> tuple[Tensor, Any]:
        past1, past2 = past or (None, None)
        y, past1 = self.conv1(activate(x), past1)
        y, past2 = self.conv2(activate(y), past2)
        return x + y, (past1, past2)


class Down(nn.Module):
    """Fewer cells, more channels: a convolution beside the mean over groups of channels."""

    def __init__(self, width: int, out: int, stride: tuple[int, int, int]):
        super().__init__()
        self.conv = Conv(width, out // math.prod(stride))
        self.out, self.stride = out, dict(zip("fpq", stride, strict=True))

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Frames are taken in twos, the first one of a stream with itself."""
        if past is None and self.stride["f"] == 2:
            x = torch.cat([x[:, :1], x], dim=1)
        y, past = self.conv(x, past)
        x, y = (rearrange(a, "b (t f) (h p) (w q) c -> b t h w (c f p q)", **self.stride) for a in (x, y))
        return y + x.unflatten(-1, (self.out, -1)).mean(dim=-1), past


class Up(nn.Module):
    """Twice the frames, height and width, half the channels: a convolution beside the channels dealt out, repeated."""

    def __init__(self, width: int, causal: bool, padding: str):
        super().__init__()
        self.conv = Conv(width, 4 * width, causal, padding)

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The first frame of a stream, or of a window, becomes one."""
        begins = past is None
        y, past = self.conv(x, past)
        x, y = (rearrange(a, "b t h w (c f p q) -> b (t f) (h p) (w q) c", f=2, p=2, q=2) for a in (x, y))
        y = (y.unflatten(-1, (4, -1)) + x[..., None, :]).flatten(-2)
        return y[:, 1:] if begins else y, past


class Encoder(nn.Module):
    def __init__(self, config: CodecConfig):
        super().__init__()
        widths, blocks = config.widths, config.blocks
        self.conv_in = Conv(3 * PATCH**2, widths[0])
        self.down_blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "resnets": nn.ModuleList(ResBlock(width) for _ in range(count)),
                    "downsamplers": nn.ModuleList([Down(width, coarser, stride)]),
                }
            )
            for width, coarser, count, stride in zip(widths, widths[1:], blocks, DOWN, strict=False)
        )
        self.mid_block = nn.ModuleDict({"resnets": nn.ModuleList(ResBlock(widths[-1]) for _ in range(blocks[-1]))})
        self.conv_out = Conv(widths[-1], config.latent_channels + 1)

    @property
    def layers(self) -> list[nn.Module]:
        return [self.conv_in, *inside(self.down_blocks), *inside([self.mid_block]), self.conv_out]

    def forward(self, frames: Tensor, state: CausalState) -> tuple[Tensor, CausalState]:
        """frames [B, 3, F, H, W] -> the means of the latents [B, C, T, h, w], not yet scaled"""
        x = rearrange(frames, "b c t (h p) (w q) -> b t h w (c q p)", p=PATCH, q=PATCH)
        x, state = run(self.layers, x, state)
        return x[..., :-1].permute(0, 4, 1, 2, 3), state  # the last channel is a variance, which nothing reads


class Decoder(nn.Module):
    def __init__(self, config: CodecConfig):
        super().__init__()
        widths, blocks = config.decoder_widths[::-1], config.decoder_blocks[::-1]
        causal, padding = config.decode == "causal", config.decoder_padding

        def resnets(width: int, count: int) -> nn.ModuleList:
            return nn.ModuleList(ResBlock(width, causal, padding) for _ in range(count))

        self.conv_in = Conv(config.latent_channels, widths[0], causal, padding)
        self.mid_block = nn.ModuleDict({"resnets": resnets(widths[0], blocks[0])})
        self.up_blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "upsamplers": nn.ModuleList([Up(2 * width, causal, padding)]),
                    "resnets": resnets(width, count),
                }
            )
            for width, count in zip(widths[1:], blocks[1:], strict=True)
        )
        self.conv_out = Conv(widths[-1], 3 * PATCH**2, causal, padding)

    @property
    def layers(self) -> list[nn.Module]:
        return [self.conv_in, *inside([self.mid_block]), *inside(self.up_blocks), self.conv_out]

    def forward(self, latents: Tensor, state: CausalState) -> tuple[Tensor, CausalState]:
        """latents [B, C, T, h, w], no longer scaled -> frames [B, 3, F, H, W], float32"""
        x, state = run(self.layers, latents.permute(0, 2, 3, 4, 1), state)
        return rearrange(x.float(), "b t h w (c q p) -> b c t (h p) (w q)", p=PATCH, q=PATCH), state


def activate(x: Tensor) -> Tensor:
    """Every cell is divided by the root mean square of its channels, in float32."""
    return F.silu(F.rms_norm(x, x.shape[-1:], eps=1e-8))


def inside(blocks: Iterable[Any]) -> list[nn.Module]:
    """The layers of some blocks, in the order of computation."""
    return [layer for block in blocks for part in block.values() for layer in part]


def run(layers: list[nn.Module], x: Tensor, state: CausalState) -> tuple[Tensor, CausalState]:
    remembered = []
    for layer, past in zip(layers, state.layers, strict=True):
        x, past = layer(activate(x) if layer is layers[-1] else x, past)
        remembered.append(past)
    return x, CausalState(tuple(remembered))

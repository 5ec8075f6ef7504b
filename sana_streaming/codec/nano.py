"""The codec of the nano model: 4 frames become one latent, 16 pixels one cell, all by 2-D convolutions.

The 4 frames of a latent enter together as channels, so that no layer runs at the frame rate. Time is folded into the
batch; each block also reads a few channels of itself one latent earlier, and those are all that a stream remembers.

Shapes: B batch, F frames, T = F / 4 latents, H, W pixels, C channels; h, w cells at the layer's own resolution.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from sana_streaming.codec.base import VideoCodec
from sana_streaming.config import CodecConfig

PATCH = 4  # pixels along each side that enter as channels; the finest resolution of the convolutions
CORING = 0.007  # changes between the frames of a latent are shrunk by this, 0.9 levels of 255: below it lies no motion
JUMP = 0.063  # the step from latent to latent that is spread most, 8 levels of 255: beyond lies motion
BLOCKS = (2, 1, 1)  # at each resolution, fine to coarse


@dataclass(frozen=True)
class CodecState:
    """What each block read last, in order: [B, M, h, w] per block, or None before the first latent."""

    past: tuple[Tensor | None, ...]
    picture: Tensor | None = None  # [B, 3, H, W], the last frame; of a decoder that has begun


class Block(nn.Module):
    """Two 3x3 convolutions beside the residual road; the first one also sees some channels of the latent before."""

    def __init__(self, width: int):
        super().__init__()
        self.memory = width // 4
        self.scale = nn.Parameter(torch.ones(width))
        self.conv1 = nn.Conv2d(width + self.memory, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, past: Tensor | None, batch: int) -> tuple[Tensor, Tensor]:
        """x [B * T, C, h, w] and past [B, M, h, w] -> the same shapes.

        A stream begins as if its first latent had always been.
        """
        y = F.rms_norm(x.permute(0, 2, 3, 1), self.scale.shape, self.scale, eps=1e-5)  # over the channels of one cell
        y = F.silu(y).permute(0, 3, 1, 2)
        now = y[:, : self.memory].unflatten(0, (batch, -1))  # [B, T, M, h, w]
        before = torch.cat([now[:, :1] if past is None else past[:, None], now[:, :-1]], dim=1).flatten(0, 1)
        y = self.conv2(F.silu(self.conv1(torch.cat([y, before], dim=1))))
        return x + y, now[:, -1].clone(memory_format=torch.channels_last)  # a slice would keep the whole chunk alive


class Encoder(nn.Module):
    def __init__(self, config: CodecConfig):
        super().__init__()
        self.patch = nn.Conv2d(3 * config.frames_per_latent * PATCH**2, config.widths[0], 1)
        levels: list[nn.Module] = []
        for width, coarser, count in zip(config.widths, (*config.widths[1:], None), BLOCKS, strict=True):
            levels += [Block(width) for _ in range(count)]
            if coarser is not None:
                levels.append(nn.Conv2d(width, coarser, 2, stride=2))
        self.layers = nn.ModuleList(levels)
        self.out = nn.Conv2d(config.widths[-1], config.latent_channels, 1)
        self.frames_per_latent = config.frames_per_latent

    def forward(self, frames: Tensor, state: CodecState) -> tuple[Tensor, CodecState]:
        """frames [B, 3, F, H, W] -> features [B, C, T, h, w], not yet scaled"""
        batch = frames.shape[0]
        split = "b c (t f) (h p) (w q) -> (b t) h w (f c p q)"
        x = rearrange(frames, split, f=self.frames_per_latent, p=PATCH, q=PATCH)
        x, state = _run(self.layers, self.patch(x.permute(0, 3, 1, 2)), state, batch)
        return rearrange(self.out(x), "(b t) c h w -> b c t h w", b=batch), state


class Upsample(nn.Module):
    """Twice the height and width."""

    def __init__(self, width: int, finer: int):
        super().__init__()
        self.conv = nn.Conv2d(width, 4 * finer, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = rearrange(self.conv(x).permute(0, 2, 3, 1), "n h w (p q c) -> n (h p) (w q) c", p=2, q=2)
        return x.permute(0, 3, 1, 2)


class Decoder(nn.Module):
    """Ends in one picture that the frames of a latent share and what each adds to it, so that a still stays still.
    Small steps from latent to latent are spread over the frames."""

    def __init__(self, config: CodecConfig):
        super().__init__()
        self.entry = nn.Conv2d(config.latent_channels, config.widths[-1], 3, padding=1)
        levels: list[nn.Module] = []
        for width, finer, count in zip(config.widths[::-1], (*config.widths[-2::-1], None), BLOCKS[::-1], strict=True):
            levels += [Block(width) for _ in range(count)]
            if finer is not None:
                levels.append(Upsample(width, finer))
        self.layers = nn.ModuleList(levels)
        self.out = nn.Conv2d(config.widths[0], (1 + config.frames_per_latent) * 3 * PATCH**2, 3, padding=1)

    def forward(self, latents: Tensor, state: CodecState) -> tuple[Tensor, CodecState]:
        """latents [B, C, T, h, w] -> frames [B, 3, F, H, W], float32"""
        batch = latents.shape[0]
        x = rearrange(latents, "b c t h w -> (b t) h w c").permute(0, 3, 1, 2)
        x, after = _run(self.layers, self.entry(x), state, batch)
        x = self.out(x).permute(0, 2, 3, 1).float()  # float32: rounding here would be seen as flicker
        x = rearrange(x, "(b t) h w (f c p q) -> b c t f (h p) (w q)", b=batch, c=3, p=PATCH, q=PATCH)
        shared, own = x[:, :, :, :1], x[:, :, :, 1:]
        common = own.mean(dim=3, keepdim=True)
        frames = shared + common + F.softshrink(own - common, CORING)
        return spread_jumps(frames, state.picture).flatten(2, 3), replace(after, picture=frames[:, :, -1, -1].clone())


def spread_jumps(frames: Tensor, before: Tensor | None) -> Tensor:
    """frames [B, 3, T, F, H, W] of T latents and the one before them [B, 3, H, W] -> the frames, without small jumps.

    Each latent has an error of its own, so that a still picture would change a little with every one. A deblocking
    filter along time: the step to a latent's first frame, where it is small, is taken in equal parts, one a frame.
    """
    last = frames[:, :, :, -1]
    first = frames[:, :, :1, 0] if before is None else before[:, :, None]
    step = frames[:, :, :, 0] - torch.cat([first, last[:, :, :-1]], dim=2)
    step = step * torch.exp(-((step / JUMP) ** 2))
    count = frames.shape[3]
    due = torch.arange(count - 1, -1, -1, device=frames.device) / count  # what is left to go at each frame
    return frames - due[:, None, None] * step[:, :, :, None]


def _run(layers: nn.ModuleList, x: Tensor, state: CodecState, batch: int) -> tuple[Tensor, CodecState]:
    remembered, past = [], iter(state.past)
    for layer in layers:
        if isinstance(layer, Block):
            x, memory = layer(x, next(past), batch)
            remembered.append(memory)
        else:
            x = layer(x)
    return x, CodecState(tuple(remembered))


class NanoCodec(VideoCodec):
    """Latents come in the weights' dtype, frames in float32.

    Between encoder and decoder lie features; latents are those at mean 0 and variance 1 per channel, by statistics that
    are measured after training.
    """

    latents_mean: Tensor  # [C], float32 whatever the weights are
    latents_std: Tensor  # [C], likewise

    def __init__(self, config: CodecConfig):
        super().__init__()
        if config.stride != PATCH * 2 ** (len(config.widths) - 1) or len(config.widths) != len(BLOCKS):
            raise ValueError(
                f"nano codec: expected {len(BLOCKS)} widths and stride {PATCH * 2 ** (len(BLOCKS) - 1)}, "
                f"got widths={config.widths}, stride={config.stride}"
            )
        if config.first_latent_frames != config.frames_per_latent:
            raise ValueError(
                f"nano codec: expected first_latent_frames = frames_per_latent = {config.frames_per_latent}, "
                f"got {config.first_latent_frames}"
            )
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.register_buffer("latents_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latents_std", torch.ones(config.latent_channels))
        self._init_weights()

    @torch.no_grad()
    def _init_weights(self) -> None:
        """Signals keep their variance; blocks add a third of it at first; a fresh decoder gives faint stills."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.normal_(0, module.weight[0].numel() ** -0.5)
                module.bias.zero_()  # type: ignore[union-attr]
        for module in self.modules():
            if isinstance(module, Block):
                module.conv1.weight.mul_(2**0.5)  # SiLU about halves the variance
                module.conv2.weight.mul_(0.3 * 2**0.5)
        self.decoder.out.weight.mul_(0.3)
        self.decoder.out.weight[3 * PATCH**2 :].zero_()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "NanoCodec":
        """Moves and casts everything as usual, but the statistics of the latents stay float32."""
        mean, std = self.latents_mean, self.latents_std
        super()._apply(fn, recurse)
        if self.latents_mean.dtype != mean.dtype:
            self.latents_mean, self.latents_std = mean.to(self.latents_mean.device), std.to(self.latents_std.device)
        return self

    def init_encoder(self, batch: int) -> CodecState:
        return CodecState((None,) * sum(BLOCKS))

    def init_decoder(self, batch: int) -> CodecState:
        return CodecState((None,) * sum(BLOCKS))

    def frames_of(self, latents: int, first: bool) -> int:
        return latents * self.config.frames_per_latent

    def encode(self, frames: Tensor, state: CodecState) -> tuple[Tensor, CodecState]:
        """frames [B, 3, F, H, W] in [-1, 1] -> latents [B, C, T, h, w], about unit variance

        F must be a multiple of 4, H and W of 16.
        """
        stride, group = self.config.stride, self.config.frames_per_latent
        if frames.ndim != 5 or frames.shape[1] != 3:
            raise ValueError(f"frames: expected [B, 3, F, H, W], got {list(frames.shape)}")
        if frames.shape[2] % group or not frames.shape[2]:
            raise ValueError(f"frames: expected a multiple of {group} of them, got {frames.shape[2]}")
        if frames.shape[3] % stride or frames.shape[4] % stride:
            raise ValueError(
                f"frames: expected height and width in multiples of {stride}, got {list(frames.shape[3:])}"
            )
        x, state = self.encoder(frames.to(self.encoder.out.weight.dtype), state)
        mean, std = self._statistics()
        return ((x.float() - mean) / std).to(x.dtype), state

    def decode(self, latents: Tensor, state: CodecState) -> tuple[Tensor, CodecState]:
        """latents [B, C, T, h, w] -> frames [B, 3, F, H, W] about [-1, 1], not clamped, float32"""
        if latents.ndim != 5 or latents.shape[1] != self.config.latent_channels or not latents.shape[2]:
            expected = f"[B, {self.config.latent_channels}, T, h, w]"
            raise ValueError(f"latents: expected {expected}, got {list(latents.shape)}")
        mean, std = self._statistics()
        return self.decoder((latents.float() * std + mean).to(self.decoder.entry.weight.dtype), state)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        return self.latents_mean[:, None, None, None], self.latents_std[:, None, None, None]

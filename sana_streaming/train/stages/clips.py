"""What the transformer learns from: rendered pairs as latents, and how much each of their numbers counts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from sana_streaming.codec import VideoCodec
from sana_streaming.data.bank import Bank
from sana_streaming.data.batch import Batch, render_batch
from sana_streaming.data.edits import EDITS
from sana_streaming.data.prompts import Prompts
from sana_streaming.state import stack

HIGHEST_WEIGHT = 6.0  # of a cell, against a mean of 1
HIDING = 0.5  # share of the clips that some words of the instruction are hidden from
AROUND = tuple((x, y) for y in (-1, 0, 1) for x in (-1, 0, 1) if (x, y) != (0, 0))  # right, down
PROBES = 4  # random pictures for the metric of pixels


@dataclass(frozen=True)
class Clips:
    """A rendered batch, as latents."""

    source: Tensor  # [B, C, T, h, w], float32
    targets: Tensor  # [B, K, C, T, h, w], float32: the truth, and others that are as good; the truth again if none are
    weight: Tensor  # [B, T, h, w], mean 1 in every clip
    tokens: Tensor  # [B, L, E], of the instructions
    mask: Tensor  # bool [B, L]
    weather: Tensor  # bool [B]: what is true depends on the edited past, not on the source alone

    @property
    def target(self) -> Tensor:
        """The truth [B, C, T, h, w]"""
        return self.targets[:, 0]

    def window(self, start: int, end: int) -> "Clips":
        """Some of the latent frames."""
        source, targets = self.source[:, :, start:end], self.targets[:, :, :, start:end]
        return replace(self, source=source, targets=targets, weight=self.weight[:, start:end])


class ClipSource:
    """Renders pairs and takes them to latents, a part of a batch at a time.

    text_tokens: length of all prompts. outside: weight of what the instruction leaves alone, against 1 + this for what
    it changes. kept: weight of the foreground where the background changes, against 1 for the rest. text_noise: of the
    size of the instructions' token states, added to them, so that words which are near to one that is known mean much
    the same. text_drop: share of the token states that are hidden, never the first one, where any are. leeway: how far
    aside, as a share of the short side, what is new may be where its place is not told exactly, eight ways; 0:
    nowhere. at_once: pixels of all frames that are rendered together. emphasis: how many times as often as by their
    shares edits are drawn."""

    def __init__(
        self,
        codec: VideoCodec,
        bank: Bank,
        prompts: Prompts,
        text_tokens: int,
        outside: float,
        kept: float,
        text_noise: float,
        text_drop: float,
        leeway: float,
        at_once: int,
        emphasis: Mapping[str, float],
    ):
        self.codec, self.bank, self.prompts = codec, bank, prompts
        self.text_tokens, self.outside, self.kept = text_tokens, outside, kept
        self.text_noise, self.text_drop, self.leeway = text_noise, text_drop, leeway
        self.at_once, self.emphasis = at_once, emphasis

    @torch.no_grad()
    def render(self, height: int, width: int, clips: int, latents: int, generator: Generator) -> Clips:
        frames = latents * self.codec.config.frames_per_latent
        parts = min(clips, math.ceil(height * width * clips * frames / self.at_once))
        sizes = [len(part) for part in torch.arange(clips).tensor_split(parts)]
        return stack([self._part(height, width, size, frames, generator) for size in sizes])

    def _part(self, height: int, width: int, clips: int, frames: int, generator: Generator) -> Clips:
        batch = render_batch(self.bank, clips, frames, height, width, generator, emphasis=self.emphasis)
        source, target = encoded(self.codec, batch.source, batch.target)
        tokens, mask = self._instructions(batch.phrases, generator)
        weather = torch.tensor([EDITS[name].kind == "weather" for name in batch.edits])
        weather = weather.to(source.device, non_blocking=True)
        return Clips(source, self._targets(batch, target), self._weight(batch), tokens, mask, weather)

    def _targets(self, batch: Batch, target: Tensor) -> Tensor:
        """The truth [B, C, T, h, w] -> it and those with what is new a little aside [B, K, C, T, h, w]"""
        ways = AROUND if self.leeway else ()
        targets = target[:, None].repeat(1, 1 + len(ways), 1, 1, 1, 1)
        if batch.moved is not None:
            step = self.leeway * min(batch.target.shape[-2:])
            movable = torch.tensor(batch.movable).to(target.device, non_blocking=True)
            for k, (right, down) in enumerate(ways, start=1):
                targets[movable, k] = encoded(self.codec, batch.moved(step * right, step * down))[0]
        return targets

    def _instructions(self, phrases: Sequence[str], generator: Generator) -> tuple[Tensor, Tensor]:
        """Token states with noise [B, L, E] and the mask of those that are read, bool [B, L]."""
        tokens, mask = self.prompts(phrases, self.text_tokens)
        size = tokens.square().mean(dim=-1, keepdim=True).sqrt()  # 0 past the end
        tokens = tokens + self.text_noise * size * torch.randn(tokens.shape, generator=generator, device=tokens.device)
        hides, drawn = (torch.rand(n, generator=generator, device=mask.device) for n in ((len(mask), 1), mask.shape))
        hidden = (hides < HIDING) & (drawn < self.text_drop)
        hidden[:, 0] = False  # it stands for the whole instruction
        return tokens, mask & ~hidden

    def _weight(self, batch: Batch) -> Tensor:
        """How much each latent cell counts [B, T, h, w]: cells of the edited region and their neighbours more, but not
        where the background changes, for all that is doubtful would be taken for background: there what is kept does.
        """
        config = self.codec.config
        region = F.max_pool3d(
            batch.region.transpose(1, 2).float(), (config.frames_per_latent, config.stride, config.stride)
        )
        weight = F.max_pool3d(region, (1, 3, 3), stride=1, padding=(0, 1, 1))[:, 0] + self.outside
        behind = torch.tensor([EDITS[name].kind == "background" for name in batch.edits])
        behind = behind.to(weight.device, non_blocking=True)[:, None, None, None]
        weight = torch.where(behind, 1 + (self.kept - 1) * (1 - region[:, 0]), weight)
        return (weight / weight.mean(dim=(1, 2, 3), keepdim=True)).clamp_max(HIGHEST_WEIGHT)


def encoded(codec: VideoCodec, *videos: Tensor) -> Sequence[Tensor]:
    """Clips [B, F, 3, H, W] in [0, 1] -> latents of each, float32"""
    frames = torch.cat(videos).transpose(1, 2) * 2 - 1
    return codec.encode(frames, codec.init_encoder(len(frames)))[0].float().chunk(len(videos))


@torch.no_grad()
def pixel_metric(codec: VideoCodec, latents: Tensor, share: float, generator: Generator) -> Tensor:
    """A square root [C, C] of the metric of pixels: a step d of one latent cell changes the decoded picture by about
    |d @ root|, up to a factor that makes the mean over directions 1. `share` of it is that, the rest the plain norm.

    Estimated around latents [B, C, T, h, w] from products of random pictures with the decoder's Jacobian."""
    channels = latents.shape[1]
    metric = torch.zeros(channels, channels, device=latents.device)
    for _ in range(PROBES):
        noisy = latents + 0.1 * torch.randn(latents.shape, generator=generator, device=latents.device)
        with torch.enable_grad():
            noisy.requires_grad_()
            frames, _ = codec.decode(noisy, codec.init_decoder(len(noisy)))
            probe = torch.randn(frames.shape, generator=generator, device=latents.device)
            (change,) = torch.autograd.grad((frames * probe).sum(), noisy)
        rows = change.transpose(0, 1).flatten(1)
        metric += rows @ rows.T
    metric = metric.double().cpu()  # on the CPU the root is the same in all processes
    metric /= metric.trace() / channels
    mixed = share * metric + (1 - share) * torch.eye(channels, dtype=metric.dtype)
    return torch.linalg.cholesky(mixed).float().to(latents.device)

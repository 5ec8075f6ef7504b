"""Train the nano codec on scenes and on edited scenes, since the latents must hold both.

While it trains, the features between encoder and decoder are kept near unit variance and carry a little noise, so that
near latents mean near pictures: a diffusion model lands beside the exact ones.

Shapes: clips [B, F, 3, H, W] in [0, 1] as the data comes, frames [B, 3, F, H, W] in [-1, 1] as the codec wants them.
"""

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sana_streaming.codec.nano import NanoCodec
from sana_streaming.config import nano
from sana_streaming.data.bank import Bank, load_bank
from sana_streaming.data.batch import render_batch
from sana_streaming.data.scenes import photo_clips, video_clip
from sana_streaming.metrics import psnr
from sana_streaming.train.images import grid
from sana_streaming.train.principal import start_from_principal_components


@dataclass(frozen=True)
class CodecStageConfig:
    batch: int = 32  # clips of the first size; of other sizes as many as have the same number of pixels
    frames: int = 16
    sizes: tuple[tuple[int, ...], ...] = ((256, 256), (192, 320), (320, 192), (128, 128), (384, 384))  # height, width
    first_size_share: float = 0.85
    pool: int = 3  # batches that are rendered at once
    uses: int = 2  # how often a rendered clip is trained on, mirrored and reversed in time
    stills: float = 0.1  # share of clips that are stopped at their first frame, besides the scenes' own stills
    noise: float = 0.1  # most noise on the features, whose deviation is about 1; drawn per clip between 0 and this
    mse: float = 4.0  # weights of the parts of the loss; L1 has 1
    motion: float = 0.5  # L1 of the error's change from frame to frame
    edges: float = 0.25  # L1 of the error's change from pixel to pixel
    spread: float = 0.02  # features whose mean square is not 1, or that lie beyond 4
    film_frames: int | None = None  # of the pack's film, None: all
    held_out: int = 24  # clips of each kind to validate on
    compile: bool = True  # the first size only


class CodecStage:
    config_type = CodecStageConfig

    def __init__(self, config: CodecStageConfig, pack: Path, device: torch.device, seed: int):
        self.config, self.device, self.seed = config, device, seed
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.bank = load_bank(pack, "train", device, film_frames=config.film_frames)
        self.rendered: Tensor = torch.empty(0)
        self.order: list[list[int]] = []
        self.fast_losses = torch.compile(self._losses, dynamic=False) if config.compile else self._losses
        generator = torch.Generator(device).manual_seed(seed + 1)
        height, width = config.sizes[0]
        held_out = load_bank(pack, "val", device, film_frames=config.film_frames)
        self.sets = held_out_sets(held_out, config.held_out, config.frames, height, width, generator)
        self.measured = [self._clips(config.held_out, height, width, generator) for _ in range(2)]
        codec = NanoCodec(nano().codec).to(device)
        examples = to_frames(torch.cat(self.measured))
        start_from_principal_components(codec, examples, torch.Generator().manual_seed(seed))
        self.codec = codec.to(self.dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules = {"codec": self.codec}

    def backward(self, step: int, generator: torch.Generator) -> dict[str, Tensor | float]:
        rng = random.Random(f"{self.seed} {step}")
        if not self.order:
            self._render(rng, generator)
        clips = self.rendered[self.order.pop()].float()
        clips = clips.flip(-1) if rng.random() < 0.5 else clips
        clips = clips.flip(1) if rng.random() < 0.5 else clips
        still = torch.rand(len(clips), 1, 1, 1, 1, generator=generator, device=self.device) < self.config.stills
        frames = to_frames(torch.where(still, clips[:, :1], clips))
        fast = tuple(frames.shape[3:]) == tuple(self.config.sizes[0])
        parts = (self.fast_losses if fast else self._losses)(frames, self._noise(frames, generator))
        c = self.config
        l1, mse, motion, edges, spread = parts
        loss = l1 + c.mse * mse + c.motion * motion + c.edges * edges + c.spread * spread
        loss.backward()
        names = ("loss", "l1", "mse", "motion", "edges", "spread")
        told: dict[str, Tensor | float] = {n: p.detach() for n, p in zip(names, (loss, *parts), strict=True)}
        return told | {"clips": float(len(frames))}

    def _noise(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Noise for the features of frames, of a strength that differs from clip to clip -> [B, C, T, h, w]"""
        batch, _, count, height, width = frames.shape
        c = self.codec.config
        shape = (batch, c.latent_channels, count // c.frames_per_latent, height // c.stride, width // c.stride)
        strength = torch.rand(batch, 1, 1, 1, 1, generator=generator, device=self.device) * self.config.noise
        return torch.randn(shape, generator=generator, device=self.device) * strength

    def _losses(self, frames: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        codec = self.codec
        features, _ = codec.encoder(frames.to(self.dtype), codec.init_encoder(len(frames)))
        features = features.float()
        decoded, _ = codec.decoder((features + noise).to(self.dtype), codec.init_decoder(len(frames)))
        error = decoded - frames
        motion = (error[:, :, 1:] - error[:, :, :-1]).abs().mean()
        edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
        power = features.square().mean(dim=(0, 2, 3, 4))
        spread = (power - 1).square().mean() + F.relu(features.abs() - 4).square().mean()
        return error.abs().mean(), error.square().mean(), motion, edges, spread

    def _render(self, rng: random.Random, generator: torch.Generator) -> None:
        """Fill the pool with clips of one size, and plan the batches that they are used in."""
        c = self.config
        others = c.sizes[1:] if rng.random() >= c.first_size_share else ()
        height, width = rng.choice(others) if others else c.sizes[0]
        batch = max(1, round(c.batch * c.sizes[0][0] * c.sizes[0][1] / (height * width)))
        self.rendered = torch.cat([self._clips(batch, height, width, generator).half() for _ in range(c.pool)])
        self.order = []
        for _ in range(c.uses):
            indices = list(range(batch * c.pool))
            rng.shuffle(indices)
            self.order += [indices[i : i + batch] for i in range(0, len(indices), batch)]

    def _clips(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Clips to train on: scenes, and the same scenes edited."""
        pairs = render_batch(self.bank, -(-count // 2), self.config.frames, height, width, generator)
        return torch.cat([pairs.source, pairs.target])[:count]

    def measure(self) -> None:
        """The latents' statistics under the weights as they are."""
        codec = self.codec
        frames = [to_frames(part) for clips in self.measured for part in clips.split(8)]
        features = [codec.encoder(f.to(self.dtype), codec.init_encoder(len(f)))[0].float() for f in frames]
        std, mean = torch.std_mean(torch.cat(features), dim=(0, 2, 3, 4))
        codec.latents_mean.copy_(mean)
        codec.latents_std.copy_(std.clamp_min(1e-3))

    def validate(self) -> tuple[dict[str, float], Tensor | None]:
        metrics, rows = {}, []
        for name, clips in self.sets.items():
            decoded, latents = self._reconstruct(clips)
            if name == "still":
                metrics["still flicker x255"] = 255 * (decoded[:, 1:] - decoded[:, :-1]).abs().mean().item()
            metrics[f"{name} PSNR dB"] = float(psnr(255 * decoded, 255 * clips).mean())
            metrics[f"{name} latents std"] = latents.std().item()
            metrics[f"{name} latents max"] = latents.abs().max().item()
            shown = range(0, clips.shape[1], max(1, clips.shape[1] // 4))
            for i in range(min(2, len(clips))):
                rows += [[clips[i, t] for t in shown], [decoded[i, t] for t in shown]]
        return metrics, grid(rows)

    def _reconstruct(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """clips -> the same through the codec, clamped, and their latents"""
        codec, decoded, latents = self.codec, [], []
        for part in clips.split(8):
            z, _ = codec.encode(to_frames(part), codec.init_encoder(len(part)))
            decoded.append(codec.decode(z, codec.init_decoder(len(part)))[0].transpose(1, 2))
            latents.append(z.float())
        return ((torch.cat(decoded) + 1) / 2).clamp(0, 1), torch.cat(latents)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore: the pool of clips is rendered anew."""


def to_frames(clips: Tensor) -> Tensor:
    """clips [B, F, 3, H, W] in [0, 1] -> frames [B, 3, F, H, W] in [-1, 1]"""
    return clips.transpose(1, 2) * 2 - 1


def held_out_sets(
    bank: Bank, count: int, frames: int, height: int, width: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """What the codec is judged on: moving photos, real clips where the pack has them, edited scenes, and stills."""
    rng = torch.Generator().manual_seed(generator.initial_seed())
    photos = photo_clips(bank, frames, height, width, torch.zeros(count, dtype=torch.bool), rng)
    sets = {"photo": photos}
    if bank.clips:
        clips = replace(bank, film=())
        sets["video"] = torch.stack([video_clip(clips, frames, height, width, rng) for _ in range(count)])
    sets["edited"] = render_batch(bank, count, frames, height, width, generator).target
    sets["still"] = photos[:, :1].expand(-1, frames, -1, -1, -1)
    return sets

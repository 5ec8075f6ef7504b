"""Flow matching on rendered pairs, chunk by chunk, with a past that is trained and not only used.

A clip is cut into chunks. Each chunk is denoised from a random noise level and reads the state that the chunks before
it left; gradients flow through those commits. What is committed is, for some clips, the clean edit, for the others the
model's own estimate, so that the model meets its own mistakes. After the first chunk the clock of each clip may jump
ahead, so that short clips show every distance to the sink and to old memories that a long stream can have.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from sana_streaming import config as presets
from sana_streaming.codec import VideoCodec, build_codec
from sana_streaming.data.bank import load_bank
from sana_streaming.data.edits import EDITS
from sana_streaming.data.pairs import render_batch
from sana_streaming.diffusion.flow import interpolate, sampling
from sana_streaming.model.dit import DiT, DiTState, TextContext
from sana_streaming.state import map_state
from sana_streaming.stream.editor import edit_clip, to_uint8
from sana_streaming.train.loop import load_export, load_weights
from sana_streaming.train.stages.codec import psnr


@dataclass(frozen=True)
class FlowConfig:
    codec: str  # folder of the codec's export
    clips: int = 64  # of 256x256; other sizes take as many as have the same number of pixels
    latents: int = 4  # per clip
    sizes: tuple[tuple[int, ...], ...] = ((256, 256), (256, 448), (448, 256))
    size_shares: tuple[float, ...] = (0.7, 0.2, 0.1)
    uses: int = 2  # how often rendered clips are trained on, each time with other chunks and noise
    longest_chunk: int = 3
    text_tokens: int = 24  # every instruction of the pack is shorter
    pure_noise: float = 0.15  # share of clips that start from noise alone, where a chunk's sampling begins
    own_past: float = 0.5  # share of clips whose past is the model's own estimate
    longest_gap: int = 512  # latent frames that the clock may jump
    compile: bool = True  # at the first size; other sizes run as they are
    validation_clips: int = 2  # per edit
    film_frames: int | None = None
    preset: str = "nano"


class FlowStage:
    config_type = FlowConfig

    def __init__(self, config: FlowConfig, pack: Path, device: torch.device, seed: int):
        self.config, self.device = config, device
        self.model = presets.PRESETS[config.preset]()
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.codec: VideoCodec = self._load_codec(Path(config.codec), dtype)
        self.dit = DiT(self.model.dit).to(device, dtype)
        self.modules: dict[str, nn.Module] = {"dit": self.dit}
        if config.compile:
            self._compile()
        self.bank = load_bank(pack, "train", device, film_frames=config.film_frames)
        self.held_out = load_bank(pack, "val", device, film_frames=config.film_frames)
        self.plans = torch.Generator().manual_seed(seed)  # what decides shapes is drawn on the CPU
        self.pairs: tuple[Tensor, Tensor, Sequence[str]] | None = None

    def loss(self, step: int, generator: Generator) -> tuple[Tensor, dict[str, Tensor | float]]:
        config = self.config
        if step % config.uses == 0 or self.pairs is None:
            self.pairs = self._render(generator)
        source, target, phrases = self.pairs
        clips = len(source)
        assert self.bank.prompts is not None
        text = self._of_one_length(self.dit.encode_text(*self.bank.prompts(phrases)))
        state = self._first_state(source)
        own = self._chance(config.own_past, clips, generator)
        errors = []
        bounds = self._plan()
        for start, end in pairwise(bounds):
            data, beside = target[:, :, start:end], source[:, :, start:end]
            sigma = self._levels(clips, generator)
            noise = torch.randn(data.shape, generator=generator, device=self.device)
            level = sigma[:, None, None, None, None]
            noisy = interpolate(data, noise, level)
            velocity, _ = self.dit(noisy, sigma, state, source=beside, text=text)
            errors.append((velocity - (noise - data)).square().mean(dim=(1, 3, 4)))  # [B, T]
            if end == bounds[-1]:
                break
            past = torch.where(own, (noisy - level * velocity).detach(), data)
            _, state = self.dit(past, 0.0, state, source=beside, text=text)
            state = map_state(Tensor.contiguous, state)  # the layout that the blocks were compiled for
            if start == 0:
                gap = torch.randint(config.longest_gap, (clips,), generator=generator, device=self.device)
                gap = torch.where(self._chance(0.5, clips, generator).flatten(), gap, 0)
                state = replace(state, position=state.position + gap)
        error = torch.cat(errors, dim=1)
        return error.mean(), {"first": error[:, 0].mean().detach(), "last": error[:, -1].mean().detach()}

    def measure(self) -> None:
        """Nothing here depends on the weights."""

    @torch.no_grad()
    def validate(self) -> tuple[dict[str, float], Tensor | None]:
        """PSNR to the true edit on held-out material and phrasings, chunk by chunk as in use, and a picture with a
        column for each edit: source, truth, edited."""
        generator = torch.Generator(self.device).manual_seed(1)
        height, width = self.config.sizes[0]
        frames = 3 * self.model.sampler.chunk * self.model.codec.frames_per_latent
        scores: dict[str, list[float]] = {"mean 2 steps": [], "mean 4 steps": [], "mean unedited": []}
        columns = []
        for name, edit in EDITS.items():
            clips = self.config.validation_clips
            batch = render_batch(self.held_out, clips, frames, height, width, generator, edits=[name], held_out=True)
            source, truth = (to_uint8(video.transpose(1, 2) * 2 - 1) for video in (batch.source, batch.target))
            videos = {"unedited": source} | {f"{n} steps": self._edit(source, batch.phrases, n) for n in (2, 4)}
            for kind, video in videos.items():
                value = psnr(video / 255, truth / 255)
                scores[f"{name} {kind}"] = [value]
                if not edit.particles:  # those have more than one true result
                    scores[f"mean {kind}"].append(value)
            columns.append(torch.cat([video[0, -1] for video in (source, truth, videos["4 steps"])]))
        return {name: sum(values) / len(values) for name, values in scores.items()}, torch.cat(columns, dim=1).cpu()

    def _edit(self, source: Tensor, phrases: Sequence[str], steps: int) -> Tensor:
        """RGB uint8 [B, F, H, W, 3] -> the same, edited as a session would."""
        sampler = self.model.sampler
        assert self.held_out.prompts is not None
        text = self.dit.encode_text(*self.held_out.prompts(phrases))
        noise = torch.Generator().manual_seed(0)
        return edit_clip(self.codec, self.dit, source, text, noise, sampling(sampler, steps), sampler.chunk)

    def state_dict(self) -> dict[str, Any]:
        return {"plans": self.plans.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.plans.set_state(state["plans"])

    @torch.no_grad()
    def _render(self, generator: Generator) -> tuple[Tensor, Tensor, Sequence[str]]:
        """Source and target latents [B, C, T, h, w], float32, and an instruction for each clip."""
        shares = torch.tensor(self.config.size_shares)
        height, width = self.config.sizes[int(torch.multinomial(shares, 1, generator=self.plans))]
        clips = self._clips(height, width)
        frames = self.config.latents * self.model.codec.frames_per_latent
        batch = render_batch(self.bank, clips, frames, height, width, generator)
        both = torch.cat([batch.source, batch.target]).transpose(1, 2) * 2 - 1
        latents, _ = self.codec.encode(both, self.codec.init_encoder(2 * clips))
        source, target = latents.float().chunk(2)
        return source, target, batch.phrases

    def _plan(self) -> list[int]:
        """Where the chunks of a clip begin and end: chunks of one length, now and then of mixed ones."""
        latents, longest = self.config.latents, self.config.longest_chunk
        length = 1 + int(torch.randint(longest, (1,), generator=self.plans))
        mixed = bool(torch.rand(1, generator=self.plans) < 0.3)
        bounds = [0]
        while bounds[-1] < latents:
            step = 1 + int(torch.randint(longest, (1,), generator=self.plans)) if mixed else length
            bounds.append(min(latents, bounds[-1] + step))
        return bounds

    def _levels(self, clips: int, generator: Generator) -> Tensor:
        """Noise levels [B]: logit-normal, shifted towards noise; some exactly 1."""
        u = torch.randn(clips, generator=generator, device=self.device).sigmoid()
        shift = self.model.sampler.shift
        sigma = shift * u / (1 + (shift - 1) * u)
        return torch.where(self._chance(self.config.pure_noise, clips, generator).flatten(), 1.0, sigma)

    def _chance(self, share: float, clips: int, generator: Generator) -> Tensor:
        """True for about that share of the clips, [B, 1, 1, 1, 1]."""
        return torch.rand(clips, 1, 1, 1, 1, generator=generator, device=self.device) < share

    def _clips(self, height: int, width: int) -> int:
        return max(1, round(self.config.clips * 256 * 256 / (height * width)))

    def _compile(self) -> None:
        """Compile the gated-delta blocks for every chunk length at the first size. What comes in other shapes runs
        uncompiled, for compiling takes as long as a hundred steps; so do the softmax blocks, whose keys grow."""
        torch._dynamo.config.recompile_limit = 64
        for index, block in enumerate(self.dit.blocks):
            if index not in self.model.dit.softmax_blocks:
                block.compile()
        height, width = self.config.sizes[0]
        clips, stride = self._clips(height, width), self.model.codec.stride
        tokens = torch.zeros(clips, 2, self.model.text.dim, device=self.device)
        mask = torch.ones(clips, 2, device=self.device)
        for length in range(1, self.config.longest_chunk + 1):
            text = self._of_one_length(self.dit.encode_text(tokens, mask))
            latents = torch.zeros(
                clips, self.model.dit.latent_channels, length, height // stride, width // stride, device=self.device
            )
            state = self._first_state(latents)
            sigma = torch.ones(clips, device=self.device)
            velocity, state = self.dit(latents, sigma, state, source=latents, text=text)
            velocity.sum().backward()
        self.dit.zero_grad()
        torch.compiler.set_stance("eager_on_recompile")

    def _of_one_length(self, text: TextContext) -> TextContext:
        """Padded with tokens that have no weight, so that a compiled block meets one length."""
        batch, _, length, _ = text.keys[0].shape
        room = self.config.text_tokens - length
        kept = text.keys[0].new_ones(batch, 1, 1, length, dtype=torch.bool) if text.mask is None else text.mask
        keys, values = (tuple(F.pad(x, (0, 0, 0, room)) for x in part) for part in (text.keys, text.values))
        return TextContext(keys, values, F.pad(kept, (0, room)))

    def _first_state(self, latents: Tensor) -> DiTState:
        """It takes gradients as all later states do, so that a compiled block meets one kind of input."""
        state = self.dit.init_state(len(latents), (latents.shape[-2], latents.shape[-1]))
        return map_state(lambda x: x.requires_grad_() if x.is_floating_point() else x, state)

    def _load_codec(self, folder: Path, dtype: torch.dtype) -> VideoCodec:
        codec = build_codec(self.model.codec)
        load_weights({"codec": codec}, load_export(folder))
        return codec.to(self.device, dtype).eval().requires_grad_(False)

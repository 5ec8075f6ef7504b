"""Editors small enough for thousands of chunks: random transformers, with a codec that only averages or a real one."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sana_streaming.codec import VideoCodec, build_codec
from sana_streaming.config import CodecConfig, DiTConfig, ModelConfig, SamplerConfig, TextConfig
from sana_streaming.model.dit import DiT
from sana_streaming.stream.editor import Editor

SIZE = (4, 6)
CONFIG = ModelConfig(
    name="tiny",
    dit=DiTConfig(
        latent_channels=3, dim=24, depth=2, heads=2, text_dim=5, ffn_dim=16, softmax_ratio=0.5, max_position=64
    ),
    codec=CodecConfig("average", 3, frames_per_latent=2, stride=2, first_latent_frames=1),
    text=TextConfig("minilm", dim=5, max_tokens=8),
    sampler=SamplerConfig(first_chunk=2, chunk=1, steps=2, shift=3.0),
    prompt_policy="recache",
)
SMALL = ModelConfig(  # the real thing all through
    name="small",
    dit=DiTConfig(latent_channels=4, dim=24, depth=2, heads=2, text_dim=5, ffn_dim=16, softmax_ratio=0.5),
    codec=CodecConfig("nano", 4, frames_per_latent=4, stride=16, first_latent_frames=4, widths=(8, 8, 8)),
    text=CONFIG.text,
    sampler=replace(CONFIG.sampler, first_chunk=1),
)


@dataclass(frozen=True)
class CodecState:
    last: Tensor | None


class AverageCodec(VideoCodec):
    """A latent is the mean of two frames at half size, but the first, which is one frame. Each end of the codec mixes
    in what it saw last, so that its state matters."""

    def __init__(self, config: CodecConfig):
        super().__init__()
        self.config = config

    def init_encoder(self, batch: int) -> Any:
        return CodecState(None)

    def init_decoder(self, batch: int) -> Any:
        return CodecState(None)

    def frames_of(self, latents: int, first: bool) -> int:
        return 2 * latents - first

    def encode(self, frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        if state.last is None:
            frames = torch.cat([frames[:, :, :1], frames], dim=2)
        return self._mixed(F.avg_pool3d(frames, 2), state)

    def decode(self, latents: Tensor, state: Any) -> tuple[Tensor, Any]:
        mixed, after = self._mixed(latents, state)
        frames = mixed.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
        return frames[:, :, 1 if state.last is None else 0 :], after

    def _mixed(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        last = x[:, :, :1] if state.last is None else state.last
        return 0.9 * x + 0.1 * torch.cat([last, x[:, :, :-1]], dim=2), CodecState(x[:, :, -1:].clone())


def encode_text(prompt: str) -> Tensor:
    """Other words, other states."""
    if not prompt.strip():
        raise ValueError("expected an instruction, got an empty prompt")
    return torch.randn(len(prompt), 5, generator=torch.Generator().manual_seed(sum(map(ord, prompt))))


def tiny_editor(first_chunk: int = 2, chunk: int = 1, **dit_changes: Any) -> Editor:
    sampler = replace(CONFIG.sampler, first_chunk=first_chunk, chunk=chunk)
    return random_editor(replace(CONFIG, dit=replace(CONFIG.dit, **dit_changes), sampler=sampler), AverageCodec)


def random_editor(config: ModelConfig, build: Callable[[CodecConfig], VideoCodec] = build_codec) -> Editor:
    torch.manual_seed(0)
    dit, codec = DiT(config.dit), build(config.codec)
    with torch.no_grad():
        for parameter in [*dit.parameters(), *codec.parameters()]:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Editor(config, dit.eval().requires_grad_(False), codec.eval().requires_grad_(False), encode_text)


def picture(frames: int) -> Tensor:
    return torch.randint(0, 256, (frames, *SIZE, 3), dtype=torch.uint8)

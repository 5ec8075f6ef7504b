"""The road of a chunk through the model, and all that is remembered of a stream on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sana_streaming.codec import VideoCodec
from sana_streaming.config import CodecConfig, DiTConfig
from sana_streaming.diffusion.flow import Denoise, Sampling, guided
from sana_streaming.diffusion.sampler import sample_chunk
from sana_streaming.model.dit import DiT, DiTState, TextContext
from sana_streaming.model.rebase import keep_in_range

from .crossfade import Fade, Sample, sample_faded


@dataclass(frozen=True)
class LastChunk:
    """What it takes to remember the last chunk once more, under another prompt; of twice the batch with guidance."""

    source: Tensor  # latents [B, C, T, h, w]
    latents: Tensor  # the edited ones
    past: DiTState  # what the chunk read; most of its tensors are those of the state after it


@dataclass(frozen=True)
class EditState:
    """All that is remembered of one stream (or of a batch of streams). With guidance the transformer's part has two
    rows for each stream, the negative prompt's first."""

    encoder: Any  # of the codec
    denoiser: DiTState
    decoder: Any  # of the codec
    noise: Tensor | None = None  # [B, C, 1, h, w]: what every latent frame begins from, where a model repeats it
    last: LastChunk | None = None  # None before the first chunk
    fade: Fade | None = None  # while a new sink comes in


def init_state(codec: VideoCodec, dit: DiT, batch: int, height: int, width: int, guidance: float = 1.0) -> EditState:
    """The beginning of `batch` streams of frames of that size."""
    stride = codec.config.stride
    grid = (height // stride, width // stride)
    denoiser = dit.init_state(batch * halves(guidance), grid)
    return EditState(codec.init_encoder(batch), denoiser, codec.init_decoder(batch))


def edit_chunk(
    codec: VideoCodec,
    dit: DiT,
    frames: Tensor,
    text: TextContext,
    state: EditState,
    generator: torch.Generator | Sequence[torch.Generator],
    sampling: Sampling,
    guidance: float = 1.0,
    sample: Sample = sample_chunk,
) -> tuple[Tensor, EditState]:
    """RGB uint8 [B, F, H, W, 3], the prompt, the past, a CPU generator (or one for each stream) and how to sample
    -> edited frames of the same shape, and the state after them. Carries no `no_grad`: the caller decides.

    A codec that looks ahead gives fewer frames at first, and the rest when it is flushed. With guidance above 1 text
    and state are those of `Editor.prompt` with a negative prompt and of `init_state` with guidance."""
    source, encoder = codec.encode(to_signed(frames), state.encoder)
    noise, kept = draw_noise(source, state.noise, generator, sampling)
    denoise = conditioned(dit, source, text, guidance)
    if state.fade is None:
        (latents, denoiser), fade = sample(denoise, noise, sampling.levels, state.denoiser), None
    else:
        latents, denoiser, fade = sample_faded(sample, denoise, noise, sampling.levels, state.denoiser, state.fade)
    edited, decoder = codec.decode(latents, state.decoder)
    last = LastChunk(rows(source, guidance), rows(latents, guidance), state.denoiser)
    return to_uint8(edited), EditState(encoder, denoiser, decoder, kept, last, fade)


def conditioned(dit: DiT, source: Tensor, text: TextContext, guidance: float) -> Denoise[DiTState]:
    """The transformer as samplers call it. In its state the two rows of a stream are neighbours, so that streams join
    and part as all others do; `guided` has all negative rows first."""
    both = partial(dit, source=rows(source, guidance), text=text)
    if guidance == 1:
        return both

    def denoise(x: Tensor, sigma: float, state: DiTState) -> tuple[Tensor, DiTState]:
        velocity, after = both(rows(x[: len(source)], guidance), sigma, state)
        return torch.cat([velocity[0::2], velocity[1::2]]), after

    return guided(denoise, guidance)


def halves(guidance: float) -> int:
    """Rows of a stream in the transformer's batch: with guidance it runs under the negative prompt, too."""
    return 1 if guidance == 1 else 2


def rows(x: Tensor, guidance: float) -> Tensor:
    """What belongs to a stream, for each of its rows."""
    return x if guidance == 1 else x.repeat_interleave(2, dim=0)


def draw_noise(
    source: Tensor,
    kept: Tensor | None,
    generator: torch.Generator | Sequence[torch.Generator],
    sampling: Sampling,
) -> tuple[Tensor, Tensor | None]:
    """What sampling begins from, in the shape of the source latents [B, C, T, h, w], and what to keep of it."""
    if not sampling.repeat_noise:
        return sampling.temperature * gaussian(source.shape, generator).to(source.device), None
    if kept is None:
        one_frame = (*source.shape[:2], 1, *source.shape[3:])
        kept = sampling.temperature * gaussian(one_frame, generator).to(source.device)
    return kept.expand(source.shape), kept


def gaussian(shape: Sequence[int], generator: torch.Generator | Sequence[torch.Generator]) -> Tensor:
    """Noise of a shape [B, ...], from one generator or from one for each of the B streams."""
    if isinstance(generator, torch.Generator):
        return torch.randn(shape, generator=generator)
    if len(generator) != shape[0]:
        raise ValueError(f"expected one generator for each of {shape[0]} streams, got {len(generator)}")
    return torch.cat([torch.randn(1, *shape[1:], generator=g) for g in generator])


def in_range(state: EditState, frames: int, config: DiTConfig) -> EditState:
    """The state for a chunk of `frames` latent frames, at positions that the transformer knows."""
    fade = state.fade and replace(state.fade, former=keep_in_range(state.fade.former, frames, config))
    return replace(state, denoiser=keep_in_range(state.denoiser, frames, config), fade=fade)


def begin_fade(dit: DiT, state: EditState, past: DiTState, text: TextContext, guidance: float) -> Fade:
    """The state after a chunk that became the sink, and what it would have read if it had not: that goes on as well."""
    assert state.last is not None
    _, former = dit(state.last.latents, 0.0, past, source=state.last.source, text=text)
    return Fade(former, torch.zeros_like(past.position[:: halves(guidance)]))


def edit_stream(
    codec: VideoCodec,
    dit: DiT,
    pieces: Iterable[Tensor],
    text: TextContext,
    generator: torch.Generator | Sequence[torch.Generator],
    sampling: Sampling,
    guidance: float = 1.0,
    sample: Sample = sample_chunk,
) -> Iterator[Tensor]:
    """New streams side by side, as sessions run theirs: the frames of one chunk after the other, RGB uint8
    [B, F, H, W, 3] -> edited ones as they come, and last those that the codec still held back."""
    state = None
    for frames in pieces:
        latents = latents_of(codec.config, frames.shape[1], first=state is None)
        state = state or init_state(codec, dit, len(frames), frames.shape[2], frames.shape[3], guidance)
        state = in_range(state, latents, dit.config)
        edited, state = edit_chunk(codec, dit, frames, text, state, generator, sampling, guidance, sample)
        yield edited
    rest = None if state is None else codec.flush(state.decoder)
    if rest is not None:
        yield to_uint8(rest)


def latents_of(config: CodecConfig, frames: int, first: bool) -> int:
    """The latent frames that so many frames become; `first`: they open the stream."""
    opening = config.first_latent_frames if first else 0
    return -(-(frames - opening) // config.frames_per_latent) + first


def edit_clip(
    codec: VideoCodec,
    dit: DiT,
    frames: Tensor,
    text: TextContext,
    generator: torch.Generator,
    sampling: Sampling,
    chunk: int,
    guidance: float = 1.0,
    sample: Sample = sample_chunk,
) -> Tensor:
    """Whole clips, RGB uint8 [B, F, H, W, 3], as new streams in chunks of `chunk` latent frames -> edited, same shape.

    F must be what a number of whole latents stands for.
    """
    edges = [0]
    while edges[-1] < frames.shape[1]:
        edges.append(edges[-1] + codec.frames_of(chunk, first=len(edges) == 1))
    pieces = (frames[:, start:end] for start, end in pairwise(edges))
    return torch.cat(list(edit_stream(codec, dit, pieces, text, generator, sampling, guidance, sample)), dim=1)


def to_signed(frames: Tensor) -> Tensor:
    """RGB uint8 [B, F, H, W, 3] -> [B, 3, F, H, W] in [-1, 1], float32"""
    return (frames.float() / 127.5 - 1).permute(0, 4, 1, 2, 3)


def to_uint8(frames: Tensor) -> Tensor:
    """[B, 3, F, H, W], about [-1, 1] -> RGB uint8 [B, F, H, W, 3]"""
    return ((frames.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()

"""How near a model comes to the true edit: held-out photos and real clips, held-out phrasings, chunk by chunk.

The whole-frame edits are filters, so that every source has one true result. Reported beside it: the unedited source,
which a model must beat, and the truth sent through the codec, which no model can beat by much.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sana_streaming.codec import VideoCodec
from sana_streaming.config import ModelConfig
from sana_streaming.data.bank import Bank, Prompts
from sana_streaming.data.edits import EDITS
from sana_streaming.data.scenes import render_sources
from sana_streaming.diffusion.flow import sampling
from sana_streaming.model.dit import DiT
from sana_streaming.stream.editor import edit_clip, to_signed, to_uint8


@dataclass(frozen=True)
class Score:
    """Means over clips, in decibels of PSNR to the true edit, 8-bit RGB."""

    edit: str
    material: str  # photos: camera moves over held-out photos, with cut-outs; clips: held-out real video
    steps: int
    edited: float
    unedited: float
    codec: float  # of the truth after encoding and decoding


@dataclass(frozen=True)
class Sample:
    """One frame of each kind, RGB uint8 [H, W, 3], from the end of a clip."""

    edit: str
    source: Tensor
    truth: Tensor
    edited: Tensor


def held_out_sources(bank: Bank, size: int, frames: int, photos: int, seed: int) -> dict[str, list[Tensor]]:
    """By material, batches of source clips, RGB uint8 [B, F, H, W, 3]; real clips keep their aspect."""
    generator = torch.Generator(bank.device).manual_seed(seed)
    rendered = render_sources(bank, photos, frames, size, size, generator)
    clips = [at_size(clip[:frames], size)[None] for clip in bank.clips if len(clip) >= frames]
    return {"photos": [frames_of(rendered)], "clips": clips}


def measure(
    config: ModelConfig,
    dit: DiT,
    codec: VideoCodec,
    prompts: Prompts,
    sources: dict[str, list[Tensor]],
    steps: Sequence[int],
    names: Sequence[str] = tuple(EDITS),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Score], list[Sample]]:
    """Every edit on every material with every number of steps; a sample for each edit and batch of sources."""
    scores, samples = [], []
    for done, name in enumerate(names):
        on_progress(done, len(names))
        for material, batches in sources.items():
            results: dict[int, list[tuple[float, float, float]]] = {n: [] for n in steps}
            for i, source in enumerate(batches):
                truth, edited = true_edit(name, source), source
                through_codec = reconstruct(codec, truth)
                phrases = [EDITS[name].held_out[(i + j) % len(EDITS[name].held_out)] for j in range(len(source))]
                text = dit.encode_text(*prompts(phrases))
                for n in steps:
                    noise = torch.Generator().manual_seed(0)
                    edited = edit_clip(
                        codec, dit, source, text, noise, sampling(config.sampler, n), config.sampler.chunk
                    )
                    values = (psnr(video, truth) for video in (edited, source, through_codec))
                    results[n] += list(zip(*(v.tolist() for v in values), strict=True))
                samples.append(Sample(name, *(video[0, -1].cpu() for video in (source, truth, edited))))
            for n, rows in results.items():
                means = (sum(column) / len(rows) for column in zip(*rows, strict=True))
                scores.append(Score(name, material, n, *means))
    return scores, samples


def true_edit(name: str, source: Tensor) -> Tensor:
    """RGB uint8 [B, F, H, W, 3] -> the same"""
    video = source.permute(0, 1, 4, 2, 3).float() / 255
    return frames_of(EDITS[name].apply(video, torch.Generator().manual_seed(0)))


def reconstruct(codec: VideoCodec, video: Tensor) -> Tensor:
    """RGB uint8 [B, F, H, W, 3] through the codec"""
    latents, _ = codec.encode(to_signed(video), codec.init_encoder(len(video)))
    return to_uint8(codec.decode(latents, codec.init_decoder(len(video)))[0])


def psnr(video: Tensor, truth: Tensor) -> Tensor:
    """Decibels for each clip [B] of two uint8 videos [B, ...]; at most 68, the error of rounding."""
    error = (video.float() - truth.float()).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(255**2 / error.clamp_min(1e-2))


def frames_of(video: Tensor) -> Tensor:
    """[B, F, 3, H, W] in [0, 1] -> RGB uint8 [B, F, H, W, 3]"""
    return to_uint8(video.transpose(1, 2) * 2 - 1)


def at_size(clip: Tensor, short: int, multiple: int = 16) -> Tensor:
    """uint8 [F, 3, H, W] -> RGB uint8 [F, H', W', 3] with that short side, cut to a multiple on the long one."""
    height, width = clip.shape[-2:]
    scale = short / min(height, width)
    size = (max(short, round(height * scale)), max(short, round(width * scale)))
    video = F.interpolate(clip.float(), size=size, mode="bilinear", antialias=True)
    height, width = (side // multiple * multiple for side in size)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    cut = video[:, :, top : top + height, left : left + width]
    return cut.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

"""Whether a long stream grows better or worse: clips played to and fro for hundreds of chunks.

The same frames come again and again, so that chunks are compared with those of the same content only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Generator, Tensor

from sana_streaming.data.bank import Bank
from sana_streaming.data.edits import EDITS
from sana_streaming.data.prompts import Prompts
from sana_streaming.data.scenes import photo_clips
from sana_streaming.eval.cases import real_clips
from sana_streaming.eval.edits import bounds, frames_of, stream, true_edit
from sana_streaming.metrics import psnr
from sana_streaming.stream.editor import Editor

KEPT, CHANGED = ("unchanged",), ("sepia", "night", "watercolor")
DRAWS = 1000  # of the bootstrap


@dataclass(frozen=True)
class Drift:
    """Decibels per 100 chunks, with an interval that holds 95 % of bootstrap estimates."""

    slope: float
    low: float
    high: float


@dataclass(frozen=True)
class LongStream:
    """PSNR to the truth of every chunk of one stream."""

    edit: str
    material: str
    steps: int
    period: int  # chunks after which the same frames come again
    decibels: tuple[float, ...]


def long_sources(bank: Bank, size: int, frames: int, seed: int) -> dict[str, Tensor]:
    """A camera move over a held-out photo and a held-out clip, RGB uint8 [1, F, size, size, 3]"""
    rng = Generator().manual_seed(seed)
    found = {"rendered": frames_of(photo_clips(bank, frames, size, size, torch.zeros(1, dtype=torch.bool), rng))}
    for clips in real_clips(bank, size, frames, 1):
        height, width = clips.shape[2:4]
        top, left = (height - size) // 2, (width - size) // 2
        found["clips"] = clips[:1, :, top : top + size, left : left + size]
    return found


def long_streams(
    editor: Editor,
    prompts: Prompts,
    sources: dict[str, Tensor],
    chunks: int,
    steps: int,
    on_chunk: Callable[[], None] = lambda: None,
) -> list[LongStream]:
    """Every source under every edit, all in one batch. ValueError if no frame would be seen twice from one side."""
    names = [name for name in (*KEPT, *CHANGED) for _ in sources]
    source = torch.cat([*sources.values()] * len((*KEPT, *CHANGED)))
    truth = torch.cat([true_edit(name, source[i : i + 1]) for i, name in enumerate(names)])
    text = editor.dit.encode_text(*prompts([EDITS[name].held_out[0] for name in names]))
    order = to_and_fro(source.shape[1], chunk_frames(editor, chunks))
    edges = list(pairwise(bounds(editor, len(order))))
    period = max(1, 2 * source.shape[1] // (edges[-1][1] - edges[-1][0]))
    if chunks < 2 * period:
        raise ValueError(f"chunks: expected at least {2 * period}, two rounds of the clip to and fro, got {chunks}")
    edited = stream(editor, (source[:, order[start:end]] for start, end in edges), text, steps, range(len(names)))
    decibels = []
    for (start, end), video in zip(edges, edited, strict=True):
        decibels.append(psnr(video, truth[:, order[start:end]]))
        on_chunk()
    values = torch.stack(decibels, dim=1).tolist()
    materials = list(sources) * len((*KEPT, *CHANGED))
    rows = zip(names, materials, values, strict=True)
    return [LongStream(name, material, steps, period, tuple(row)) for name, material, row in rows]


def chunk_frames(editor: Editor, chunks: int) -> int:
    """How many frames a stream of that many chunks has."""
    sampler, codec = editor.config.sampler, editor.codec
    return codec.frames_of(sampler.first_chunk, first=True) + (chunks - 1) * codec.frames_of(sampler.chunk, first=False)


def to_and_fro(length: int, frames: int) -> list[int]:
    """Numbers of the frames of a clip that is played forwards and backwards, each of its ends twice."""
    places = (t % (2 * length) for t in range(frames))
    return [min(t, 2 * length - 1 - t) for t in places]


def drift(streams: Sequence[LongStream], seed: int = 0) -> Drift:
    """Theil-Sen over all pairs of chunks that show the same frames; the bootstrap draws contents, not chunks."""
    slopes = np.concatenate([slopes_of(s.decibels, s.period) for s in streams])  # [contents, pairs]
    rng = np.random.default_rng(seed)
    drawn = [np.median(slopes[rng.integers(len(slopes), size=len(slopes))]) for _ in range(DRAWS)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Drift(float(np.median(slopes)), float(low), float(high))


def slopes_of(values: Sequence[float], period: int) -> np.ndarray:
    """Change per 100 chunks between each two visits of the same content [period, pairs]"""
    visits = len(values) // period
    table = np.asarray(values[: visits * period], dtype=np.float64).reshape(visits, period).T
    first, second = np.triu_indices(visits, 1)
    return 100 * (table[:, second] - table[:, first]) / ((second - first) * period)

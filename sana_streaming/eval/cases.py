"""What a model is judged on: clips, instructions and true results, all of them held out, always the same for a seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor

from sana_streaming.data.bank import Bank
from sana_streaming.data.edits import EDITS
from sana_streaming.data.phrasings import degree_phrasings
from sana_streaming.data.scenes import render_sources
from sana_streaming.data.wordings import WORDINGS
from sana_streaming.eval.edits import at_size, frames_of, true_edit

AT_ONCE = {"object": 8, "background": 8}  # clips of one call
AT_ONCE_OF_TWO = 2  # of two edits in one: each call draws other ones
PARTICLES = ("snow", "rain")


@dataclass(frozen=True)
class Case:
    """Clips of one edit and one size, and what a perfect model would make of them."""

    edit: str
    material: str  # rendered or clips (real ones)
    degree: str  # slightly, heavily or ""
    source: Tensor  # RGB uint8 [n, F, H, W, 3]
    truth: Tensor  # RGB uint8 [n, F, H, W, 3]
    region: Tensor  # [n, F, H, W] in [0, 1]: where the instruction asks for a change
    phrases: tuple[str, ...]
    subjects: tuple[str, ...]
    seeds: tuple[int, ...]  # of the noise of each clip: its own, whatever is edited beside it

    def __len__(self) -> int:
        return len(self.source)

    def split(self, clips: int) -> Iterator["Case"]:
        """The same in cases of at most that many clips."""
        for start in range(0, len(self), clips):
            part = slice(start, start + clips)
            yield replace(
                self,
                source=self.source[part],
                truth=self.truth[part],
                region=self.region[part],
                phrases=self.phrases[part],
                subjects=self.subjects[part],
                seeds=self.seeds[part],
            )


@dataclass(frozen=True)
class Amount:
    """How much there is to judge."""

    frames: int = 48  # of each clip
    rendered: int = 6  # clips under whole-frame edits
    real: int = 6
    scenes: int = 24  # clips of each edit of objects or backgrounds


def cases(bank: Bank, size: int, amount: Amount, names: Sequence[str], seed: int = 0) -> Iterator[Case]:
    """Rendered lazily; those of one size of picture follow each other."""
    whole = [name for name in names if EDITS[name].apply is not None]
    if whole and amount.rendered:
        rng = Generator().manual_seed(seed)
        rendered = frames_of(render_sources(bank, amount.rendered, amount.frames, size, size, rng))
        yield from whole_frame_cases(whole, "rendered", rendered, degrees=True)
    for name in names:
        if name not in whole:
            yield from scene_cases(bank, name, size, amount, seed)
    for source in real_clips(bank, size, amount.frames, amount.real):
        yield from whole_frame_cases(whole, "clips", source, degrees=False)


def whole_frame_cases(names: Sequence[str], material: str, source: Tensor, degrees: bool) -> Iterator[Case]:
    """Every look and weather on the same clips; with degrees: in every degree that it has."""
    for name in names:
        for degree in ("", *(EDITS[name].choices if degrees else ())):
            held_out = degree_phrasings(WORDINGS[name], degree)[1] if degree else EDITS[name].held_out
            phrases = tuple(held_out[i % len(held_out)] for i in range(len(source)))
            region = torch.ones(1, 1, 1, 1, device=source.device).expand(source.shape[:4])
            truth = true_edit(name, source, *filter(None, [degree]))
            seeds = tuple(range(len(source)))
            yield Case(name, material, degree, source, truth, region, phrases, (degree,) * len(source), seeds)


def scene_cases(bank: Bank, name: str, size: int, amount: Amount, seed: int) -> Iterator[Case]:
    """Edits whose result needs the scene: its objects and what is behind them."""
    rng = Generator().manual_seed(1000 * (seed + 1) + list(EDITS).index(name))
    at_once = AT_ONCE.get(EDITS[name].kind, AT_ONCE_OF_TWO)
    for start in range(0, amount.scenes, at_once):
        clips = min(at_once, amount.scenes - start)
        pairs = EDITS[name].render(bank, clips, amount.frames, size, size, rng, held_out=True)
        region = pairs.region[:, :, 0].half()
        source, truth = frames_of(pairs.source), frames_of(pairs.target)
        seeds = tuple(range(start, start + clips))
        yield Case(name, "rendered", "", source, truth, region, pairs.phrases, pairs.subjects, seeds)


def real_clips(bank: Bank, size: int, frames: int, count: int) -> list[Tensor]:
    """Shots of held-out real video that are long enough, in batches of one shape, RGB uint8 [B, F, H, W, 3]. They keep
    their aspect; shots are taken evenly from all."""
    fitting = [clip for clip in bank.clips if len(clip) >= frames]
    chosen = [fitting[i * len(fitting) // count] for i in range(count)] if len(fitting) > count else fitting
    by_shape: dict[Any, list[Tensor]] = {}
    for clip in chosen:
        ready = at_size(clip[:frames], size)
        by_shape.setdefault(ready.shape, []).append(ready)
    return [torch.stack(clips) for clips in by_shape.values()]


def batches(found: Iterator[Case], pixels: int) -> Iterator[list[Case]]:
    """Cases of one size of picture, together at most about that many pixels of one frame of each clip."""
    group: list[Case] = []
    for case in split(found, pixels):
        height, width = case.source.shape[2:4]
        full = sum(map(len, group)) + len(case) > max(1, pixels // (height * width))
        if group and (full or group[0].source.shape[1:] != case.source.shape[1:]):
            yield group
            group = []
        group.append(case)
    if group:
        yield group


def split(found: Iterator[Case], pixels: int) -> Iterator[Case]:
    """Cases of more clips than fit become several."""
    for case in found:
        step = max(1, pixels // (case.source.shape[2] * case.source.shape[3]))
        yield from case.split(step)

"""Batches of training pairs: a few edits at a time, each for a group of clips."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from sana_streaming.data.bank import Bank
from sana_streaming.data.edits import EDITS
from sana_streaming.data.motion import fork

GROUPS = 8  # of a batch; an edit renders all of its clips at once


@dataclass(frozen=True)
class Batch:
    source: Tensor  # [B, F, 3, H, W] in [0, 1]
    target: Tensor  # [B, F, 3, H, W] in [0, 1]
    region: Tensor  # [B, F, 1, H, W] in [0, 1]: where the instruction asks for a change
    edits: tuple[str, ...]  # B names
    phrases: tuple[str, ...]  # B instructions
    reverses: tuple[str, ...]  # B instructions that ask for the source, given the target
    subjects: tuple[str, ...]  # B names of what is asked for, or ""
    movable: tuple[int, ...] = ()  # those of the B clips where what is new may as well be a little aside
    moved: Callable[[float, float], Tensor] | None = None  # their targets then, see `Pairs.moved`


def render_batch(
    bank: Bank,
    batch: int,
    frames: int,
    height: int,
    width: int,
    generator: Generator,
    edits: Sequence[str] | None = None,
    held_out: bool = False,
    emphasis: Mapping[str, float] | None = None,
) -> Batch:
    """Pairs on the bank's device, of edits drawn by their shares, or of the given `edits` alike; `emphasis` times as
    often where it names an edit; `held_out`: for judging, see `Edit.render`."""
    names, emphasis = tuple(EDITS) if edits is None else tuple(edits), emphasis or {}
    if unknown := [name for name in (*names, *emphasis) if name not in EDITS]:
        raise ValueError(f"edits: expected names among {sorted(EDITS)}, got {unknown}")
    rng = fork(generator)
    shares = [(EDITS[name].share if edits is None else 1.0) * emphasis.get(name, 1.0) for name in names]
    groups = torch.arange(batch).tensor_split(min(GROUPS, batch, len(names)))
    clips: dict[str, int] = {}
    for i, group in zip(_draw(shares, len(groups), rng), groups, strict=True):
        clips[names[i]] = clips.get(names[i], 0) + len(group)
    pairs = [EDITS[name].render(bank, count, frames, height, width, rng, held_out) for name, count in clips.items()]
    told = [each.moved for each in pairs for _ in each.phrases]

    def moved(right: float, down: float) -> Tensor:
        return torch.cat([each.moved(right, down) for each in pairs if each.moved is not None])

    return Batch(
        source=torch.cat([each.source for each in pairs]),
        target=torch.cat([each.target for each in pairs]),
        region=torch.cat([each.region for each in pairs]),
        edits=tuple(name for name, count in clips.items() for _ in range(count)),
        phrases=tuple(phrase for each in pairs for phrase in each.phrases),
        reverses=tuple(phrase for each in pairs for phrase in each.reverses),
        subjects=tuple(subject for each in pairs for subject in each.subjects),
        movable=tuple(i for i, each in enumerate(told) if each is not None),
        moved=moved if any(told) else None,
    )


def _draw(shares: Sequence[float], count: int, rng: Generator) -> list[int]:
    """Indices in proportion to the shares, as different from each other as the shares allow: points at equal distances
    on a line of the shares in random order."""
    order = torch.randperm(len(shares), generator=rng)
    ends = torch.tensor(shares, dtype=torch.float64)[order].cumsum(0)
    points = (torch.arange(count) + torch.rand((), generator=rng, dtype=torch.float64)) / count * ends[-1]
    return order[torch.searchsorted(ends, points, right=True).clamp_max(len(shares) - 1)].tolist()

"""Training pairs: a batch of source clips, each with its true edit and an instruction that asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from sana_streaming.data.bank import Bank
from sana_streaming.data.edits import EDITS
from sana_streaming.data.motion import fork, integers
from sana_streaming.data.scenes import render_sources

EDITS_PER_BATCH = 8  # an edit is applied to all of its clips at once
WEIGHTS = {"unchanged": 0.5}  # how often an edit is drawn, against 1 for the others


@dataclass(frozen=True)
class Batch:
    source: Tensor  # [B, F, 3, H, W] in [0, 1]
    target: Tensor  # [B, F, 3, H, W] in [0, 1]
    edits: tuple[str, ...]  # B names
    phrases: tuple[str, ...]  # B training phrasings, as the pack's prompts have them


def render_batch(
    bank: Bank,
    batch: int,
    frames: int,
    height: int,
    width: int,
    generator: Generator,
    edits: Sequence[str] | None = None,
    held_out: bool = False,
) -> Batch:
    """Sources and targets on the bank's device. `edits` limits the choice; `held_out` asks in phrasings for judging."""
    names = tuple(EDITS) if edits is None else tuple(edits)
    if unknown := [name for name in names if name not in EDITS]:
        raise ValueError(f"edits: expected names among {sorted(EDITS)}, got {unknown}")
    source = render_sources(bank, batch, frames, height, width, generator)
    rng = fork(generator)
    weights = torch.tensor([WEIGHTS.get(name, 1.0) for name in names])
    drawn = torch.multinomial(weights, min(EDITS_PER_BATCH, batch, len(names)), generator=rng).tolist()
    groups = source.tensor_split(len(drawn))
    chosen = [names[i] for i, clips in zip(drawn, groups, strict=True) for _ in clips]
    target = torch.cat([EDITS[names[i]].apply(clips, rng) for i, clips in zip(drawn, groups, strict=True)])
    phrasings = [EDITS[name].held_out if held_out else EDITS[name].phrasings for name in chosen]
    phrases = tuple(options[int(integers(rng, len(options)))] for options in phrasings)
    return Batch(source, target, tuple(chosen), phrases)

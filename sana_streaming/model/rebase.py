"""Streams without end: positions go down again before they leave the range that a model was made for.

Attention reads distances in time, never positions. So what is remembered may move as a whole: `rebase` turns all keys,
cached ones and those inside the gated-delta memories, back by one angle, and nothing else changes. It is exact.

It cannot be all, for it keeps the distance to the sink, which grows as long as a stream runs. `near_sink` turns the
sink's keys forward, so that the sink comes nearer. It is not exact: the sink looks younger than it is.

`keep_in_range` does both between two chunks, and only as far as they are needed. As long as a stream fits below
`max_position` nothing happens. Then every chunk moves down just so far that it ends there: the sink, once it has
arrived at position 0, stays, and is from then on always equally far away. No chunk sees anything jump.

What gated-delta memories hold of the past has no single age. They forget by their decay, and no bound is laid on them.
"""

from dataclasses import replace

import torch
from torch import Tensor

from sana_streaming.config import DiTConfig
from sana_streaming.model.dit import DiTState
from sana_streaming.model.rope import time_shift
from sana_streaming.model.softmax_attention import SoftmaxState


def rebase(state: DiTState, by: Tensor, config: DiTConfig) -> DiTState:
    """All positions go down by `by`, int64 [B]. Exact: what follows is the same."""
    return _moved(state, by, by, config)


def near_sink(state: DiTState, by: Tensor, config: DiTConfig) -> DiTState:
    """The sink comes nearer by `by`, int64 [B], all else stays. Not exact: what follows is something else."""
    return _moved(state, torch.zeros_like(by), -by, config)


def keep_in_range(state: DiTState, frames: int, config: DiTConfig) -> DiTState:
    """The state for a chunk of `frames` latent frames: no query at `max_position` or above, no sink below 0.

    The same as `near_sink` by what the sink lacks, then `rebase`, but that a sink which stays is not turned to and fro:
    keys in bfloat16 would wear off. Waits for the device, so it has its place between chunks.
    """
    by = (state.position + frames - config.max_position).clamp(min=0).minimum(state.position)
    if not by.any():
        return state
    return _moved(state, by, by if state.sink is None else by.minimum(state.sink), config)


def anchor(state: DiTState) -> DiTState:
    """The next chunk becomes the sink."""
    blocks = (
        replace(block, attention=block.attention.without_sink()) if isinstance(block.attention, SoftmaxState) else block
        for block in state.blocks
    )
    return DiTState(state.position, None, tuple(blocks))


def _moved(state: DiTState, by: Tensor, sink_by: Tensor, config: DiTConfig) -> DiTState:
    """Everything `by` latent frames lower, the sink `sink_by`."""
    shift, sink_shift = (time_shift(-frames, config.head_dim, config.rope_theta) for frames in (by, sink_by))
    blocks = (replace(block, attention=block.attention.moved(shift, sink_shift)) for block in state.blocks)
    sink = None if state.sink is None else state.sink - sink_by
    return DiTState(state.position - by, sink, tuple(blocks))

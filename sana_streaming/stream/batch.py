"""Streams that share a pass: their states join by `state.stack` and part by `state.select`, their prompts join here.

    state, text = stack([a.state, b.state]), stack_texts([a.text, b.text])
    edited, state = edit_chunk(codec, dit, frames, text, state, [a.generator, b.generator], sampling, guidance)
    one = select(state, [1], streams=2)

They are of one size, length of chunks, number of chunks since their beginning (once the window is full any will do),
guidance and steps. What does not fit is refused.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sana_streaming.model.dit import TextContext


def stack_texts(texts: Sequence[TextContext]) -> TextContext:
    """The prompts of several streams, in the order of their states; shorter ones are padded, and masked there."""
    longest = max(text.keys[0].shape[2] for text in texts)
    keys = (torch.cat([padded(k, longest) for k in block]) for block in zip(*(t.keys for t in texts), strict=True))
    values = (torch.cat([padded(v, longest) for v in block]) for block in zip(*(t.values for t in texts), strict=True))
    mask = torch.cat([F.pad(mask_of(text), (0, longest - text.keys[0].shape[2])) for text in texts])
    return TextContext(tuple(keys), tuple(values), None if bool(mask.all()) else mask)


def padded(x: Tensor, length: int) -> Tensor:
    """[B, N, L, K] -> [B, N, length, K]"""
    return F.pad(x, (0, 0, 0, length - x.shape[2]))


def mask_of(text: TextContext) -> Tensor:
    """bool [B, 1, 1, L], also where there is none."""
    keys = text.keys[0]
    return keys.new_ones(len(keys), 1, 1, keys.shape[2], dtype=torch.bool) if text.mask is None else text.mask

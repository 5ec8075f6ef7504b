"""Streams that share a pass. Their states join by `state.stack` and part by `state.part`, their prompts join here.

    edited = step_together([a, b], [frames_of_a, frames_of_b])

Each stream gets what it would get alone, but for the rounding of sums that a batch adds up in another order: a stream
that must be the same bit for bit, such as one whose log will be replayed, goes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from sana_streaming.model.dit import TextContext
from sana_streaming.state import form, part, stack

from .road import edit_chunk

if TYPE_CHECKING:
    from .session import Session


def kind(session: Session) -> Hashable:
    """Streams of one editor whose kinds are equal can share the pass of their next chunk, if it has the same height and
    width. None: this one goes alone.

    They have as many frames in the chunk, the same sampling and guidance, and remember as much: in their first chunks
    they must be of one age, and once the windows of attention are full any will do. Who is asked to change what it
    remembers goes alone until that is done."""
    change, state = session.change, session.state
    if session.on_cut != "ignore" or session.anchoring is not None or session.resetting is not None:
        return None
    if (change is not None and change.policy != "keep") or (state is not None and state.fade is not None):
        return None
    remembered = None if state is None else form(replace(state, last=None))
    return session.chunk_frames, session.sampling, session.guidance, remembered


def step_together(sessions: Sequence[Session], frames: Sequence[Tensor]) -> list[Tensor | Exception]:
    """`Session.step` for streams of one kind, in one pass -> for each what its own `step` gives, or would raise. Who
    fails does not hurt the others, and is as it was before: nothing is given up before it was tried alone."""
    steps = [partial(session.step, chunk) for session, chunk in zip(sessions, frames, strict=True)]
    edited: list[Tensor | None] = [None] * len(steps)
    if len(steps) > 1:
        with suppress(Exception):  # such as too little memory for all at once
            edited = _in_one_pass(sessions, frames)
    return [_outcome(step) if shown is None else shown for step, shown in zip(steps, edited, strict=True)]


def _in_one_pass(sessions: Sequence[Session], frames: Sequence[Tensor]) -> list[Tensor | None]:
    """None for those that failed. If anything is raised, no session was changed."""
    first = sessions[0]
    with torch.inference_mode():
        ready = [session.prepare(chunk) for session, chunk in zip(sessions, frames, strict=True)]
        past = [replace(one.state, last=None) for one in ready]  # a chunk does not read it
        joined = stack(past)
        edited, after = edit_chunk(
            first.editor.codec,
            first.editor.dit,
            torch.cat([one.frames for one in ready]),
            stack_texts([one.text for one in ready]),
            joined,
            [one.generator for one in ready],
            first.sampling,
            first.guidance,
        )
        states = part(after, joined, past)
        ends = [
            partial(session.finish, one, shown[None], state)
            for session, one, shown, state in zip(sessions, ready, edited, states, strict=True)
        ]
        return [shown if isinstance(shown, Tensor) else None for shown in map(_outcome, ends)]


def _outcome(step: Callable[[], Tensor]) -> Tensor | Exception:
    """What it gives or raises, without what the failure would keep in memory."""
    try:
        return step()
    except Exception as failure:
        failure.__traceback__ = failure.__cause__ = failure.__context__ = None
        return failure


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

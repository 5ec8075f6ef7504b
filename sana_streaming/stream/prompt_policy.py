"""What becomes of a stream's memory when its prompt changes.

A policy takes the transformer, the state after the last chunk and the new prompt, and gives the state that the first
chunk under that prompt reads. The codec's part of the state, the pictures themselves, always goes on. What changes the
memory also ends a fade to a new sink: the picture changes anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sana_streaming.model.dit import DiT, TextContext

if TYPE_CHECKING:
    from .road import EditState

Policy = Callable[[DiT, "EditState", TextContext], "EditState"]


def keep(dit: DiT, state: EditState, text: TextContext) -> EditState:
    """The past stays as it was edited."""
    return state


def recache(dit: DiT, state: EditState, text: TextContext) -> EditState:
    """The last chunk is remembered again, as if it had been edited under the new prompt. One more pass, once."""
    last = state.last
    if last is None:
        return state
    _, denoiser = dit(last.latents, 0.0, last.past, source=last.source, text=text)
    return replace(state, denoiser=denoiser, fade=None)


def reset(dit: DiT, state: EditState, text: TextContext) -> EditState:
    """The transformer forgets everything: a hard cut."""
    last = state.last
    if last is None:
        return state
    batch, _, _, *grid = last.source.shape
    return replace(state, denoiser=dit.init_state(batch, (grid[0], grid[1])), last=None, fade=None)


POLICIES: dict[str, Policy] = {"keep": keep, "recache": recache, "reset": reset}


@dataclass(eq=False)
class Receipt:
    """What a session answers to a request that it accepted, and fills in when it has carried it out."""

    applied: int | None = None  # number of the first chunk it holds for, from 0; None: not yet, or overtaken by another


@dataclass(frozen=True)
class PromptRequest:
    """A prompt that waits for the next chunk."""

    text: TextContext
    policy: str
    receipt: Receipt

"""Chunks that fail: the reason in one line, and a session that is as it was."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sana_streaming.model.dit import DiT
from sana_streaming.state import tensors
from sana_streaming.stream.editor import Editor
from sana_streaming.stream.session import Session

from .tiny import SMALL, encode_text, random_editor


class Trouble(torch.nn.Module):
    """A transformer that goes wrong when told to."""

    def __init__(self, dit: DiT):
        super().__init__()
        self.dit, self.config, self.spoil = dit, dit.config, lambda x: x

    def forward(self, *args: Any, **options: Any) -> Any:
        velocity, state = self.dit(*args, **options)
        return self.spoil(velocity), state

    def init_state(self, *args: Any) -> Any:
        return self.dit.init_state(*args)

    def encode_text(self, *args: Any) -> Any:
        return self.dit.encode_text(*args)


def nan(velocity: Tensor) -> Tensor:
    return torch.full_like(velocity, torch.nan)


def full(velocity: Tensor) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nAnd a page of advice.")


def troubled() -> tuple[Session, Trouble]:
    editor = random_editor(SMALL)
    trouble = Trouble(editor.dit)
    broken = Editor(SMALL, trouble, editor.codec, encode_text)  # type: ignore[arg-type]
    return broken.session("a", guidance=3.0, negative_prompt="b"), trouble


@pytest.mark.parametrize(
    ("spoil", "error", "line"),
    [
        (nan, FloatingPointError, "chunk 1: expected finite latents, got NaN or infinity"),
        (full, MemoryError, "chunk 1: out of memory: small at 64x32 in float32 needs about 1 MB; try a smaller size"),
    ],
    ids=["nan", "memory"],
)
def test_a_chunk_that_fails_is_told_and_changes_nothing(
    spoil: Callable[[Tensor], Tensor], error: type[Exception], line: str
) -> None:
    session, trouble = troubled()
    frames = torch.randint(0, 256, (3, 4, 32, 64, 3), dtype=torch.uint8)
    session.step(frames[0])
    kept, fork = [t.clone() for t in tensors(session.state)], session.fork()
    trouble.spoil = spoil  # type: ignore[assignment]
    with pytest.raises(error) as told:
        session.step(frames[1])
    assert str(told.value).startswith(line)
    assert "\n" not in str(told.value)
    trouble.spoil = lambda x: x  # type: ignore[assignment]
    assert session.chunks == 1
    assert all(torch.equal(a, b) for a, b in zip(tensors(session.state), kept, strict=True))
    assert torch.equal(session.step(frames[1]), fork.step(frames[1]))


def test_memory_told_knows_guidance() -> None:
    session, trouble = troubled()
    trouble.spoil = full  # type: ignore[assignment]
    with pytest.raises(MemoryError, match="or no guidance or"):
        session.step(torch.zeros(4, 32, 64, 3, dtype=torch.uint8))

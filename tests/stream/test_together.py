"""Sessions whose next chunks go through the model in one pass: each gets what it would get alone."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sana_streaming.state import map_state, nbytes, tensors
from sana_streaming.stream import batch
from sana_streaming.stream.batch import kind, step_together
from sana_streaming.stream.editor import Editor
from sana_streaming.stream.road import EditState, edit_chunk
from sana_streaming.stream.session import Session

from .tiny import picture, tiny_editor

PROMPTS = ("a", "a longer prompt", "bb")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(7)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many streams went through each pass of several."""
    counts: list[int] = []

    def counted(*args: Any, **options: Any) -> tuple[Tensor, EditState]:
        counts.append(len(args[2]))
        return edit_chunk(*args, **options)

    monkeypatch.setattr(batch, "edit_chunk", counted)
    return counts


def streams(editor: Editor, *chunks: int, **options: Any) -> list[Session]:
    """With other prompts and seeds, and of so many chunks."""
    made = [editor.session(PROMPTS[i], seed=i, **options) for i in range(len(chunks))]
    for session, count in zip(made, chunks, strict=True):
        for _ in range(count):
            session.step(picture(session.chunk_frames))
    return made


def step(sessions: list[Session], frames: list[Tensor]) -> list[Tensor]:
    edited = step_together(sessions, frames)
    for shown in edited:
        assert isinstance(shown, Tensor), shown
    return edited  # type: ignore[return-value]


def near(a: EditState | None, b: EditState | None) -> bool:
    pairs = list(zip(tensors(a), tensors(b), strict=True))
    return all(x.shape == y.shape and torch.allclose(x.double(), y.double(), atol=1e-4, rtol=1e-4) for x, y in pairs)


def check(sessions: list[Session], alone: list[Session], edited: list[Tensor], frames: list[Tensor]) -> None:
    """Sessions that were stepped are what their forks become alone."""
    for session, fork, shown, chunk in zip(sessions, alone, edited, frames, strict=True):
        expected = fork.step(chunk)
        assert shown.shape == expected.shape
        assert (shown.int() - expected.int()).abs().max() <= 1
        assert near(session.state, fork.state)
        assert torch.equal(session.generator.get_state(), fork.generator.get_state())
        assert (session.chunks, session.size) == (fork.chunks, fork.size)


@pytest.mark.parametrize("repeat", [False, True], ids=["fresh noise", "repeated noise"])
@pytest.mark.parametrize("options", [{}, {"guidance": 2.5, "negative_prompt": "dull"}], ids=["plain", "guided"])
def test_streams_come_and_go(options: dict[str, Any], repeat: bool, passes: list[int]) -> None:
    """One joins in the middle, at another age, and one leaves; past the end of the range of positions."""
    editor = tiny_editor(max_position=11)
    editor.config = replace(editor.config, sampler=replace(editor.config.sampler, repeat_noise=repeat))
    sessions = streams(editor, 0, 0, 7, **options)
    alone = [session.fork() for session in sessions]
    for number, taking_part in enumerate([(0, 1)] * 5 + [(0, 1, 2)] * 3 + [(1, 2)] * 2):
        own, forks = [sessions[i] for i in taking_part], [alone[i] for i in taking_part]
        assert len({kind(session) for session in own}) == 1, number
        frames = [picture(session.chunk_frames) for session in own]
        check(own, forks, step(own, frames), frames)
    assert passes == [2] * 5 + [3] * 3 + [2] * 2
    frames = [picture(2) for _ in sessions]
    check(sessions, alone, [session.step(chunk) for session, chunk in zip(sessions, frames, strict=True)], frames)


def test_prompts_of_one_length_and_a_batch_of_one_are_the_same_bit_for_bit() -> None:
    (session,) = streams(tiny_editor(), 3)
    fork, frames = session.fork(), picture(2)
    assert torch.equal(step([session], [frames])[0], fork.step(frames))
    assert all(torch.equal(a, b) for a, b in zip(tensors(session.state), tensors(fork.state), strict=True))


def test_a_new_prompt_that_keeps_the_past_takes_effect_in_a_shared_pass(passes: list[int]) -> None:
    sessions = streams(tiny_editor(), 6, 6)
    alone = [session.fork() for session in sessions]
    receipt = sessions[1].set_prompt("something else", "keep")
    alone[1].set_prompt("something else", "keep")
    assert kind(sessions[0]) == kind(sessions[1])
    frames = [picture(2), picture(2)]
    check(sessions, alone, step(sessions, frames), frames)
    assert receipt.applied == 6
    assert sessions[1].change is None
    assert passes == [2]


def test_what_goes_alone() -> None:
    editor = tiny_editor(first_chunk=1)
    usual = kind(streams(editor, 8)[0])
    assert usual is not None

    def of(change: Callable[[Session], Any], **options: Any) -> Any:
        (session,) = streams(editor, 8, **options)
        change(session)
        return kind(session)

    def fades(session: Session) -> None:
        session.anchor()
        session.step(picture(2))
        assert session.state is not None
        assert session.state.fade is not None
        assert session.anchoring is None

    assert of(lambda s: None) == usual
    assert of(lambda s: s.set_prompt("b", "keep")) == usual
    for asks in (
        lambda s: s.anchor(),
        lambda s: s.reset(),
        lambda s: s.set_prompt("b", "recache"),
        lambda s: s.set_prompt("b", "reset"),
        fades,
    ):
        assert of(asks) is None
    assert of(lambda s: None, cuts="reset") is None
    assert of(lambda s: None, steps=3) not in (usual, None)
    assert of(lambda s: None, guidance=2.0, negative_prompt="dull") not in (usual, None)
    assert of(lambda s: None, chunk=2) not in (usual, None)
    assert kind(streams(editor, 1)[0]) not in (usual, None)
    assert kind(streams(editor, 0)[0]) not in (usual, None)


def test_what_does_not_fit_is_edited_one_by_one(passes: list[int]) -> None:
    sessions = streams(tiny_editor(), 1, 6)
    alone = [session.fork() for session in sessions]
    frames = [picture(2), picture(2)]
    check(sessions, alone, step(sessions, frames), frames)
    assert passes == []


def test_a_stream_that_fails_does_not_hurt_those_beside_it(passes: list[int]) -> None:
    sessions = streams(tiny_editor(), 6, 6, 6)
    sessions[1].state = map_state(
        lambda x: torch.full_like(x, torch.nan) if x.is_floating_point() else x, sessions[1].state
    )
    alone = [session.fork() for session in sessions]
    frames = [picture(2) for _ in sessions]
    edited = step_together(sessions, frames)
    assert passes == [3]
    assert isinstance(edited[1], FloatingPointError)
    assert "chunk 6: expected finite latents" in str(edited[1])
    assert edited[1].__traceback__ is None
    assert sessions[1].chunks == 6
    assert sessions[1].state is alone[1].state
    check(sessions[::2], alone[::2], edited[::2], frames[::2])  # type: ignore[arg-type]


def test_wrong_frames_are_told_to_the_one_that_brought_them() -> None:
    sessions = streams(tiny_editor(), 6, 6)
    alone = [session.fork() for session in sessions]
    frames = [picture(3), picture(2)]
    edited = step_together(sessions, frames)
    assert isinstance(edited[0], ValueError)
    assert "expected 2 RGB frames" in str(edited[0])
    check(sessions[1:], alone[1:], edited[1:], frames[1:])  # type: ignore[arg-type]


@pytest.mark.parametrize("failure", [torch.OutOfMemoryError("no room"), MemoryError("no room"), RuntimeError("broken")])
def test_too_little_memory_for_all_at_once_is_enough_for_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fails(*args: Any, **options: Any) -> Any:
        for generator in args[5]:
            torch.randn(9, generator=generator)  # it failed after the noise was drawn
        raise failure

    monkeypatch.setattr(batch, "edit_chunk", fails)
    sessions = streams(tiny_editor(), 6, 6)
    alone = [session.fork() for session in sessions]
    frames = [picture(2), picture(2)]
    check(sessions, alone, step(sessions, frames), frames)


def test_too_little_memory_for_one_alone_is_its_failure_only(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = streams(tiny_editor(), 6, 6)
    alone = [session.fork() for session in sessions]
    monkeypatch.setattr(sessions[0], "finish", raises(torch.OutOfMemoryError("no room")))
    frames = [picture(2), picture(2)]
    edited = step_together(sessions, frames)
    assert isinstance(edited[0], MemoryError)
    assert "chunk 6: out of memory" in str(edited[0])
    check(sessions[1:], alone[1:], edited[1:], frames[1:])  # type: ignore[arg-type]


def raises(failure: Exception) -> Callable[..., Any]:
    def step(*args: Any) -> Any:
        raise failure

    return step


def test_what_is_remembered_takes_no_more_room_than_alone() -> None:
    """Nothing is a view of the whole batch, and what stays as it was is not copied."""
    sessions = streams(tiny_editor(), 6, 6)
    alone = [session.fork() for session in sessions]
    for _ in range(3):
        frames = [picture(2), picture(2)]
        step(sessions, frames)
        for fork, chunk in zip(alone, frames, strict=True):
            fork.step(chunk)
    for session, fork in zip(sessions, alone, strict=True):
        assert nbytes(session.state) == nbytes(fork.state)
        for x in tensors(session.state):
            assert x.untyped_storage().nbytes() <= x.numel() * x.element_size()

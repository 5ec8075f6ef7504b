"""A session runs without end: in constant memory, in the range of positions that the model knows, and finite."""

import gc

import pytest
import torch

from sana_streaming.state import nbytes, select, stack, tensors
from sana_streaming.stream.session import Session

from .tiny import picture, tiny_editor


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


def run(session: Session, chunks: int) -> None:
    for _ in range(chunks):
        session.step(picture(session.chunk_frames))


def test_5000_chunks() -> None:
    session = tiny_editor(depth=2).session("a", steps=1)
    frames, sizes = [picture(2) for _ in range(7)], set()
    run(session, 10)
    for i in range(4990):
        edited = session.step(frames[i % 7])
        sizes.add((nbytes(session.state), len(list(tensors(session.state)))))
        if i % 500 == 0:
            assert all(torch.isfinite(t).all() for t in tensors(session.state))
    assert session.chunks == 5000
    assert len(sizes) == 1
    assert all(t.untyped_storage().nbytes() == t.numel() * t.element_size() for t in tensors(session.state))
    assert all(torch.isfinite(t).all() for t in tensors(session.state))
    assert edited.float().std() > 0
    assert session.state is not None
    assert session.state.denoiser.position.tolist() == [64]
    assert session.state.denoiser.sink is not None
    assert session.state.denoiser.sink.tolist() == [0]


def test_nothing_outside_the_state_grows() -> None:
    session, counts = tiny_editor(max_position=16).session("a", steps=1), []
    for _ in range(3):
        run(session, 40)
        gc.collect()
        counts.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize(("first_chunk", "chunk"), [(2, 1), (5, 3)], ids=str)
def test_crossing_the_range_changes_nothing_but_the_sink(first_chunk: int, chunk: int) -> None:
    """Without a sink there is nothing that is not exact."""
    near, far = (
        tiny_editor(first_chunk, chunk, sink=False, max_position=n).session("a", steps=1) for n in (20, 100_000)
    )
    for _ in range(30):
        frames = picture(near.chunk_frames)
        near.step(frames), far.step(frames)
        assert near.state is not None
        assert far.state is not None
        assert error(near.state.last.latents, far.state.last.latents) < 1e-5
    assert near.state.denoiser.position.item() == 20
    assert near.state.denoiser.sink is None
    assert far.state.denoiser.position.item() == first_chunk + 29 * chunk


def test_a_chunk_longer_than_the_range_still_runs() -> None:
    session = tiny_editor(first_chunk=6, chunk=6, max_position=4).session("a", steps=1)
    run(session, 4)
    assert session.state is not None
    assert session.state.denoiser.position.tolist() == [6]
    assert all(torch.isfinite(t).all() for t in tensors(session.state))


def test_the_anchor_is_a_chunk_of_choice() -> None:
    session = tiny_editor(max_position=16).session("a", steps=1)
    run(session, 30)
    receipt = session.anchor()
    assert receipt.applied is None
    assert session.state.denoiser.sink.tolist() == [0]
    run(session, 1)
    assert receipt.applied == 30
    assert session.state.denoiser.sink.tolist() == [15]
    run(session, 5)
    assert session.state.denoiser.sink.tolist() == [10]
    size = nbytes(session.state)
    run(session, 20)
    assert session.state.denoiser.sink.tolist() == [0]
    assert nbytes(session.state) == size


def test_without_a_request_the_first_chunk_stays_the_sink() -> None:
    session = tiny_editor().session("a", steps=1)
    run(session, 1)
    first = session.state.denoiser.blocks[1].attention.sink
    run(session, 5)
    assert session.state.denoiser.blocks[1].attention.sink is first


def test_a_stream_that_leaves_a_batch_takes_only_its_own_memory() -> None:
    states = []
    for seed in range(3):
        session = tiny_editor().session("a", seed=seed)
        run(session, 6)
        states.append(session.state)
    left = select(stack(states), slice(1, 2))
    assert all(t.untyped_storage().nbytes() == t.numel() * t.element_size() for t in tensors(left))
    assert all(torch.equal(a, b) for a, b in zip(tensors(left), tensors(states[1]), strict=True))

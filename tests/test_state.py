from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from sana_streaming.state import detach, form, map_state, nbytes, part, select, stack, tensors


@dataclass(frozen=True)
class Memory:
    kv: Tensor
    last: Tensor | None


@dataclass(frozen=True)
class Whole:
    position: Tensor
    blocks: tuple[Memory, ...]


def make(batch: int = 1, begun: bool = True, blocks: int = 3) -> Whole:
    memories = [Memory(torch.randn(batch, 2, 5, 7), torch.randn(batch, 3) if begun else None) for _ in range(blocks)]
    return Whole(torch.arange(batch), tuple(memories))


def same(a, b) -> bool:
    pairs = list(zip(tensors(a), tensors(b), strict=True))
    return all(torch.equal(x, y) for x, y in pairs) and type(a) is type(b)


def test_map_touches_every_tensor_and_keeps_the_structure():
    state = make()
    doubled = map_state(lambda x: 2 * x, state)
    assert isinstance(doubled, Whole)
    assert all(torch.equal(y, 2 * x) for x, y in zip(tensors(state), tensors(doubled), strict=True))


def test_map_leaves_what_has_not_begun():
    assert map_state(lambda x: x + 1, make(begun=False)).blocks[0].last is None


def test_map_takes_several_states():
    a, b = make(), make()
    total = map_state(torch.add, a, b)
    assert torch.equal(total.blocks[1].kv, a.blocks[1].kv + b.blocks[1].kv)


def test_map_does_not_write():
    state = make()
    before = [x.clone() for x in tensors(state)]
    map_state(lambda x: x * 0, state)
    assert all(torch.equal(x, y) for x, y in zip(before, tensors(state), strict=True))


def test_tensors_come_in_order():
    state = make(blocks=2)
    expected = [state.position, *(x for m in state.blocks for x in (m.kv, m.last))]
    assert [id(x) for x in tensors(state)] == [id(x) for x in expected]


def test_select_undoes_stack():
    streams = [make() for _ in range(3)]
    joined = stack(streams)
    assert joined.blocks[0].kv.shape == (3, 2, 5, 7)
    for i, stream in enumerate(streams):
        assert same(select(joined, [i]), stream)


def test_streams_of_different_width_join():
    a, b = make(batch=2), make(batch=1)
    assert same(select(stack([a, b]), slice(0, 2)), a)


@pytest.mark.parametrize("index", [[2, 0], torch.tensor([2, 0]), torch.tensor([True, False, True])], ids=str)
def test_select_takes_any_index(index):
    state = make(batch=3)
    got = select(state, index).position.tolist()
    assert sorted(got) == [0, 2]


def make_rows(streams: int, rows: int) -> Whole:
    """Positions for each stream, memories with several rows for each."""
    return replace(make(streams * rows), position=torch.arange(streams))


@pytest.mark.parametrize("index", [[1], [2, 0], slice(1, 3), torch.tensor([False, True, True])], ids=str)
def test_streams_of_several_rows_part_as_wholes(index):
    state = make_rows(streams=3, rows=2)
    got = select(state, index, streams=3)
    assert torch.equal(got.position, state.position[index])
    by_stream = state.blocks[1].kv.reshape(3, 2, *state.blocks[1].kv.shape[1:])[index]
    assert torch.equal(got.blocks[1].kv, by_stream.flatten(0, 1))
    assert all(x.untyped_storage().nbytes() == x.numel() * x.element_size() for x in tensors(got))


def test_streams_of_several_rows_join_their_like():
    a, b = make_rows(streams=1, rows=2), make_rows(streams=3, rows=2)
    assert same(select(stack([a, b]), slice(1, 4), streams=4), b)
    with pytest.raises(ValueError, match="rows per stream"):
        stack([a, make()])
    with pytest.raises(ValueError, match="each of 4 streams, got 3"):
        select(b, [0], streams=4)


def test_part_gives_each_stream_what_became_of_its_own():
    streams = [make_rows(1, 2), make_rows(1, 2), make_rows(1, 2)]
    joined = stack(streams)
    after = replace(joined, blocks=(joined.blocks[0], *(map_state(lambda x: 2 * x, m) for m in joined.blocks[1:])))
    for before, parted in zip(streams, part(after, joined, streams), strict=True):
        assert parted.position is before.position  # as it was: no copy
        assert parted.blocks[0].kv is before.blocks[0].kv
        assert torch.equal(parted.blocks[1].kv, 2 * before.blocks[1].kv)
        assert all(x.untyped_storage().nbytes() == x.numel() * x.element_size() for x in tensors(parted))


def test_states_of_one_form_can_be_joined():
    usual = form(make())
    assert form(make(batch=3)) == form(map_state(lambda x: x + 1, make())) == usual
    wider = replace(make(), position=torch.zeros(1, 2))
    for other in (make(begun=False), make(blocks=2), wider, map_state(lambda x: x.double(), make())):
        assert form(other) != usual
    assert len({usual, form(make())}) == 1


def test_stack_of_a_begun_and_a_new_stream_is_refused():
    for states in ([make(), make(begun=False)], [make(begun=False), make()]):
        with pytest.raises(ValueError, match="differ in structure"):
            stack(states)


def test_stack_of_different_depths_is_refused():
    with pytest.raises(ValueError, match=r"tuples of \[3, 2\]"):
        stack([make(blocks=3), make(blocks=2)])


def test_stack_of_different_shapes_is_refused():
    a = make()
    b = replace(a, position=torch.zeros(1, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"differ in shape: \[\[\], \[1\]\]"):
        stack([a, b])


def test_foreign_values_are_refused():
    with pytest.raises(TypeError, match="got list"):
        map_state(lambda x: x, (torch.zeros(1), [1]))


def test_detach_keeps_values_and_cuts_the_graph():
    state = map_state(lambda x: x.float().requires_grad_() * 1, make())
    cut = detach(state)
    assert same(cut, state)
    assert all(x.requires_grad for x in tensors(state))
    assert not any(x.requires_grad for x in tensors(cut))


def test_nbytes_counts_every_tensor_once():
    assert nbytes(make(batch=2, blocks=3)) == 2 * 8 + 3 * 4 * (2 * 70 + 2 * 3)
    assert nbytes(make(batch=2, blocks=3, begun=False)) == 2 * 8 + 3 * 4 * 2 * 70
    assert nbytes(None) == 0

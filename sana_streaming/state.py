"""What is remembered, handled as a value: map over it, join streams in a batch, part them, measure it.

State is built of tensors, None, tuples and frozen dataclasses, nothing else. Every tensor has the batch as its first
axis, one row or a fixed number of neighbouring rows for each stream, so that many streams can share a pass: `stack`
joins states, `select` takes some out, `part` takes all apart. Nothing here writes in place.
"""

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

S = TypeVar("S")


def map_state(fn: Callable[..., Any], state: S, *others: S) -> S:
    """Apply fn to every tensor of `state` (and to its counterparts in `others`, which must have the same structure)."""
    if any(type(other) is not type(state) for other in others):
        kinds = [type(s).__name__ for s in (state, *others)]
        raise ValueError(
            f"states differ in structure: {kinds}; streams join where all have begun, and none alone gets a new sink"
        )
    if isinstance(state, Tensor):
        return fn(state, *others)
    if state is None:
        return state
    if isinstance(state, tuple):
        if any(len(other) != len(state) for other in others):  # type: ignore[arg-type]
            raise ValueError(f"states differ in structure: tuples of {[len(s) for s in (state, *others)]}")  # type: ignore[arg-type]
        return tuple(map_state(fn, *items) for items in zip(state, *others, strict=True))  # type: ignore[return-value]
    if dataclasses.is_dataclass(state):
        names = [f.name for f in dataclasses.fields(state)]
        return dataclasses.replace(  # type: ignore[type-var]
            state, **{n: map_state(fn, getattr(state, n), *(getattr(o, n) for o in others)) for n in names}
        )
    raise TypeError(f"state holds tensors, None, tuples and frozen dataclasses, got {type(state).__name__}")


def tensors(state: Any) -> Iterator[Tensor]:
    """Every tensor of a state, in order."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, tuple):
        for item in state:
            yield from tensors(item)
    elif dataclasses.is_dataclass(state):
        for f in dataclasses.fields(state):
            yield from tensors(getattr(state, f.name))


def form(state: Any) -> Hashable:
    """Structure, shapes and types, but for the batch: states of one form, and as many rows a stream, can be joined."""
    if isinstance(state, Tensor):
        return state.shape[1:], state.dtype
    if isinstance(state, tuple):
        return tuple(form(item) for item in state)
    if dataclasses.is_dataclass(state):
        return type(state), *(form(getattr(state, f.name)) for f in dataclasses.fields(state))
    return state


def stack(states: Sequence[S]) -> S:
    """Join states along the batch. They must be at the same stage: equal structure and shapes but for the batch.
    ValueError says what differs."""
    joined = map_state(_joined, *states)
    shares = {tuple(len(x) / len(xs[0]) for x in xs) for xs in zip(*map(tensors, states), strict=True)}
    if len(shares) > 1:
        raise ValueError("states differ in rows per stream: streams with guidance cannot join streams without")
    return joined


def _joined(*xs: Tensor) -> Tensor:
    if any(x.shape[1:] != xs[0].shape[1:] for x in xs):
        shapes = [list(x.shape[1:]) for x in xs]
        raise ValueError(f"states differ in shape: {shapes}; streams join at one size and chunk length, and one age")
    return torch.cat(xs)


def select(state: S, index: slice | Tensor | Sequence[int], streams: int | None = None) -> S:
    """The state of some streams of a batch; a copy, for a view would keep the other streams in memory.
    streams: how many the batch has, where some of its tensors hold several rows for each (streams with guidance)."""
    picked = index if isinstance(index, slice | Tensor) else torch.tensor(index)

    def pick(x: Tensor) -> Tensor:
        if streams is None:
            return x[picked].clone() if isinstance(picked, slice) else x[picked]
        if len(x) % streams:
            raise ValueError(f"expected rows for each of {streams} streams, got {len(x)}")
        rows = x.unflatten(0, (streams, -1))[picked].flatten(0, 1)
        return rows.clone() if isinstance(picked, slice) else rows

    return map_state(pick, state)


def part(state: S, joined: Any, states: Sequence[Any]) -> list[S]:
    """The state of each stream of a batch, which is what became of `joined`, the stack of `states`. What went through
    as it was is not copied again: each stream has it from its own state before."""
    own = {id(x): each for x, *each in zip(tensors(joined), *map(tensors, states), strict=True)}

    def rows(x: Tensor, i: int) -> Tensor:
        return own[id(x)][i] if id(x) in own else x.unflatten(0, (len(states), -1))[i].clone()

    return [map_state(partial(rows, i=i), state) for i in range(len(states))]


def detach(state: S) -> S:
    """The same values, cut off from the graph that computed them."""
    return map_state(lambda x: x.detach(), state)


def nbytes(state: Any) -> int:
    """Bytes that the tensors of a state hold; a tensor that stands in several places counts once."""
    distinct = {id(x): x for x in tensors(state)}
    return sum(x.numel() * x.element_size() for x in distinct.values())

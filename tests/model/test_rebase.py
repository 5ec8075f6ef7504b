"""Streams without end: what is remembered moves to lower positions, and nobody notices but the sink."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sana_streaming.config import DiTConfig
from sana_streaming.model.block import BlockState
from sana_streaming.model.dit import DiT, DiTState, TextContext
from sana_streaming.model.embed import modulate
from sana_streaming.model.ffn import FeedForwardState
from sana_streaming.model.gated_delta import GatedDeltaState
from sana_streaming.model.rebase import anchor, keep_in_range, near_sink, rebase
from sana_streaming.model.rope import rotary, rotate, time_shift
from sana_streaming.model.softmax_attention import SoftmaxState
from sana_streaming.state import map_state, nbytes, select, tensors

from . import test_golden as published

CONFIG = DiTConfig(
    latent_channels=3, dim=36, depth=4, heads=2, text_dim=7, ffn_dim=20, softmax_ratio=0.5, window=4, max_position=20
)
GRID = (3, 5)
BATCH = 2
CHUNK = 2
EXACT = 1e-5  # relative L2, float32


@pytest.fixture
def dit() -> DiT:
    """No weight at a special value; a memory that forgets fast enough to be seen, slowly enough to matter."""
    module = DiT(CONFIG)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
            if name.endswith("dt_bias"):
                parameter.fill_(-3.0)
    return module.eval().requires_grad_(False)


@pytest.fixture
def text(dit: DiT) -> TextContext:
    return dit.encode_text(torch.randn(BATCH, 6, CONFIG.text_dim))


def video(chunks: int) -> list[Tensor]:
    return [torch.randn(BATCH, CONFIG.latent_channels, CHUNK, *GRID) for _ in range(chunks)]


def step(dit: DiT, x: Tensor, state: DiTState, text: TextContext, sigma: float = 0.0) -> tuple[Tensor, DiTState]:
    return dit(x, sigma, state, source=0.5 * x.flip(1), text=text)


def streamed(dit: DiT, chunks: list[Tensor], text: TextContext, state: DiTState | None = None) -> DiTState:
    state = state or dit.init_state(BATCH, GRID)
    for x in chunks:
        _, state = step(dit, x, state, text)
    return state


def error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected.double()).norm() / expected.double().norm())


def difference(a: DiTState, b: DiTState) -> float:
    """The largest relative distance between two tensors of the same place."""
    pairs = [(x, y) for x, y in zip(tensors(a), tensors(b), strict=True) if y.is_floating_point()]
    return max(error(x, y) for x, y in pairs)


def softmax_states(state: DiTState) -> list[SoftmaxState]:
    return [b.attention for b in state.blocks if isinstance(b.attention, SoftmaxState)]


@pytest.mark.parametrize("by", [[3, 3], [-7, 100], [0, 5000]], ids=str)
def test_a_shift_gives_the_keys_of_other_positions(by: list[int]) -> None:
    k = torch.randn(BATCH, 2, CHUNK * 15, CONFIG.head_dim)
    here, there = (
        rotary(p, (CHUNK, *GRID), CONFIG.head_dim, 1e4) for p in (torch.tensor([9, 9]), torch.tensor(by) + 9)
    )
    moved = rotate(rotate(k, here), time_shift(torch.tensor(by), CONFIG.head_dim, 1e4))
    assert error(moved, rotate(k, there)) < 1e-6


def test_a_stream_that_was_rebased_gives_the_same(dit: DiT, text: TextContext) -> None:
    """By other amounts for each stream of the batch, and again and again."""
    chunks, plain = video(12), dit.init_state(BATCH, GRID)
    moving = plain
    for i, x in enumerate(chunks):
        by = torch.tensor([i, 400 - 90 * i])
        before = moving.position
        moving = rebase(moving, by, CONFIG)
        assert torch.equal(moving.position, before - by)
        expected, plain = step(dit, x, plain, text, sigma=0.6)
        got, moving = step(dit, x, moving, text, sigma=0.6)
        assert error(got, expected) < EXACT
    back = rebase(moving, moving.position - plain.position, CONFIG)
    assert difference(back, plain) < EXACT
    assert torch.equal(back.sink, plain.sink)


def test_a_late_stream_moves_to_the_beginning(dit: DiT, text: TextContext) -> None:
    """Hours of latents: the angles themselves are still exact."""
    start, chunks, far = dit.init_state(BATCH, GRID), video(4), torch.full((BATCH,), 3_000_000)
    late = streamed(dit, chunks[:3], text, replace(start, position=start.position + far))
    early = streamed(dit, chunks[:3], text)
    assert difference(rebase(late, far, CONFIG), early) < EXACT


part, part_dit = published.part, published.part_dit  # fixtures


def test_published_numbers_after_rebasing(part_dit: DiT, part: dict[str, Tensor]) -> None:
    """The second chunk of the published stream, moved from latent frame 5 to another place with all that it reads."""
    config, grid = published.CONFIG, published.GRID
    moved, to = torch.tensor([-5 + 300]), torch.tensor([300])
    shift = time_shift(moved, config.head_dim, config.rope_theta)
    turn = rotary(to, (3, *grid), config.head_dim, config.rope_theta)
    block, modulation = part_dit.blocks[0], part["call5.t_block"].unflatten(-1, (1, 6, -1))
    keys, values = block.cross_attention.keys_values(part["call5.y"][:, 0][:, part["mask"][0].bool()])
    past = published.gated_delta_state(part, "cache.block0").moved(shift, shift)
    state = BlockState(past, FeedForwardState(published.last_frame(part, "cache.block0")))
    out, _ = block(published.on_grid(part["call5.x_embed"]), modulation, turn, keys, values, None, state)
    assert error(out, published.on_grid(part["call5.block0.out"])) < EXACT

    block = part_dit.blocks[3]
    down, scale, *_ = (block.scale_shift_table + modulation)[:, :, None, None].unbind(-2)
    x = modulate(published.on_grid(part["call5.block2.out"]), down, scale, config.norm_eps)
    out, _ = block.attention(x, turn, published.softmax_state(part, "cache.block3").moved(shift, shift))
    assert error(out, published.on_grid(part["call5.block3.attn"])) < EXACT


def test_what_knows_no_position_is_not_copied(dit: DiT, text: TextContext) -> None:
    state = streamed(dit, video(4), text)
    moved = rebase(state, torch.tensor([3, 3]), CONFIG)
    assert nbytes(moved) == nbytes(state)
    for a, b in zip(state.blocks, moved.blocks, strict=True):
        assert a.ffn is b.ffn
        if isinstance(a.attention, GatedDeltaState):
            assert a.attention.normalizer is b.attention.normalizer
            assert not torch.equal(a.attention.memory, b.attention.memory)
        else:
            assert all(x.values is y.values for x, y in zip(a.attention.recent, b.attention.recent, strict=True))
    assert all(t.untyped_storage().nbytes() == nbytes(t) and t.is_contiguous() for t in tensors(moved))


def test_a_memory_does_not_wear_off() -> None:
    """Turned thousands of times by the same angle, as at the end of the range: like once by the whole."""
    state = GatedDeltaState(torch.randn(1, 2, CONFIG.head_dim, 18), torch.randn(1, 2, CONFIG.head_dim))
    little, whole = (time_shift(torch.tensor([n]), CONFIG.head_dim, 1e4) for n in (-3, -9000))
    moved = state
    for _ in range(3000):
        moved = moved.moved(little, little)
    assert error(moved.memory, state.moved(whole, whole).memory) < EXACT


def test_a_nearer_sink_is_that_of_a_later_stream_and_all_else_stays(dit: DiT, text: TextContext) -> None:
    state, by = streamed(dit, video(3), text), torch.tensor([1, 3])
    near = near_sink(state, by, CONFIG)
    assert torch.equal(near.position - near.sink, state.position - state.sink - by)
    for a, b in zip(state.blocks, near.blocks, strict=True):
        if isinstance(a.attention, SoftmaxState):
            assert all(torch.equal(x.keys, y.keys) for x, y in zip(a.attention.recent, b.attention.recent, strict=True))
            assert torch.equal(a.attention.sink.values, b.attention.sink.values)
            turn = time_shift(by, CONFIG.head_dim, CONFIG.rope_theta)
            assert error(b.attention.sink.keys, rotate(a.attention.sink.keys, turn)) < 1e-6
        else:
            assert torch.equal(a.attention.memory, b.attention.memory)
    x = video(1)[0]
    assert error(step(dit, x, near, text)[0], step(dit, x, state, text)[0]) > EXACT


def test_nothing_happens_within_the_range(dit: DiT, text: TextContext) -> None:
    state = streamed(dit, video(9), text)
    assert keep_in_range(state, CHUNK, CONFIG) is state
    assert keep_in_range(state, CHUNK + 1, CONFIG) is not state


def test_positions_and_the_distance_to_the_sink_stay_in_the_range(dit: DiT, text: TextContext) -> None:
    state = dit.init_state(BATCH, GRID)
    state = replace(state, position=torch.tensor([0, 5]))
    for i, x in enumerate(video(30)):
        state = keep_in_range(state, CHUNK, CONFIG)
        assert (state.position + CHUNK <= CONFIG.max_position).all()
        assert state.sink is None or (state.sink >= 0).all()
        _, state = step(dit, x, state, text)
        if i >= 12:
            assert state.position.tolist() == [20, 20]
            assert state.sink.tolist() == [0, 0]


def test_keeping_in_range_is_a_nearer_sink_and_a_rebase(dit: DiT, text: TextContext) -> None:
    """The sink of one stream is still above 0 and moves along, that of the other has arrived."""
    start = dit.init_state(BATCH, GRID)
    state = streamed(dit, video(10), text, replace(start, position=torch.tensor([0, 1])))
    by = torch.tensor([2, 3])
    lacking = by - state.sink
    assert lacking.tolist() == [2, 2]
    kept = keep_in_range(state, CHUNK, CONFIG)
    assert difference(kept, rebase(near_sink(state, lacking, CONFIG), by, CONFIG)) < EXACT
    assert kept.position.tolist() == [18, 18]
    assert kept.sink.tolist() == [0, 0]


def test_it_is_exact_while_the_sink_can_move_along(dit: DiT, text: TextContext) -> None:
    """A stream that began late, or was anchored late, crosses the end of the range unchanged."""
    start = dit.init_state(BATCH, GRID)
    plain = moving = replace(start, position=torch.tensor([14, 16]))
    moves = 0
    for x in video(7):
        kept = keep_in_range(moving, CHUNK, CONFIG)
        moves += kept is not moving
        expected, plain = step(dit, x, plain, text)
        got, moving = step(dit, x, kept, text)
        assert error(got, expected) < EXACT
    assert moves == 5
    assert plain.position.tolist() == [28, 30]


def test_the_sink_in_bfloat16_does_not_wear_off(dit: DiT, text: TextContext) -> None:
    state = map_state(lambda t: t.bfloat16() if t.is_floating_point() else t, streamed(dit, video(10), text))
    moved = state
    for _ in range(50):
        moved = replace(moved, position=moved.position + CHUNK)
        moved = keep_in_range(moved, CHUNK, CONFIG)
    for a, b in zip(softmax_states(state), softmax_states(moved), strict=True):
        assert torch.equal(a.sink.keys, b.sink.keys)
        assert not torch.equal(a.recent[-1].keys, b.recent[-1].keys)


def test_streams_of_a_batch_move_alone(dit: DiT, text: TextContext) -> None:
    start = dit.init_state(BATCH, GRID)
    state = streamed(dit, video(5), text, replace(start, position=torch.tensor([0, 40])))
    both = keep_in_range(state, CHUNK, CONFIG)
    assert both.position.tolist() == [10, 18]
    for i in range(BATCH):
        one = slice(i, i + 1)
        assert difference(keep_in_range(select(state, one), CHUNK, CONFIG), select(both, one)) == 0


def test_the_next_chunk_becomes_the_sink(dit: DiT, text: TextContext) -> None:
    """It still sees the former sink, so that nothing jumps; those after it do not."""
    state = streamed(dit, video(6), text)
    x, y = video(2)
    anchored = anchor(state)
    assert anchored.sink is None
    expected, plain = step(dit, x, state, text)
    got, after = step(dit, x, anchored, text)
    assert error(got, expected) < EXACT
    assert torch.equal(after.sink, state.position)
    for old, new, unanchored in zip(*map(softmax_states, (state, after, plain)), strict=True):
        assert error(new.sink.keys, unanchored.recent[-1].keys) < EXACT
        assert [c.keys.data_ptr() for c in new.recent] == [c.keys.data_ptr() for c in old.recent]
    assert error(step(dit, y, after, text)[0], step(dit, y, plain, text)[0]) > EXACT
    full = streamed(dit, video(2), text, after)
    assert nbytes(full) == nbytes(streamed(dit, video(2), text, plain))


def test_an_early_anchor_keeps_what_the_window_has_room_for(dit: DiT, text: TextContext) -> None:
    x = video(1)[0]
    state = streamed(dit, video(1), text)
    _, after = step(dit, x, anchor(state), text)
    assert [len(s.recent) for s in softmax_states(after)] == [1, 1]
    assert all(a.recent[0].keys is b.sink.keys for a, b in zip(*map(softmax_states, (after, state)), strict=True))
    assert anchor(dit.init_state(BATCH, GRID)).sink is None

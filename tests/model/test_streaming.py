"""The five invariants, for every layer that remembers and for the whole transformer."""

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sana_streaming.config import DiTConfig
from sana_streaming.model.block import MIXERS
from sana_streaming.model.dit import DiT, TextContext
from sana_streaming.model.ffn import FeedForward
from sana_streaming.model.gated_delta import GatedDeltaAttention
from sana_streaming.model.rope import rotary, rotate
from sana_streaming.model.softmax_attention import SoftmaxAttention
from sana_streaming.state import map_state, nbytes, select, stack, tensors

CONFIG = DiTConfig(latent_channels=3, dim=36, depth=4, heads=2, text_dim=7, ffn_dim=20, window=4)
GRID = (3, 5)
BOUNDS = (0, 3, 4, 7, 8, 10)  # chunks of several lengths; the window drops some of them
BATCH = 2


@dataclass(frozen=True)
class Layer:
    """A layer that remembers, and how it is called on latent frames start to end."""

    module: nn.Module
    takes_rotary: bool

    def __call__(self, x: Tensor, start: int, state: Any) -> tuple[Tensor, Any]:
        if not self.takes_rotary:
            return self.module(x, state)
        return self.module(x, turn(start, x.shape[1], x.shape[0]), state)

    def init(self, batch: int = BATCH) -> Any:
        return self.module.init_state(batch, GRID)


def turn(start: int, frames: int, batch: int = BATCH) -> Any:
    return rotary(torch.full((batch,), start), (frames, *GRID), CONFIG.head_dim, CONFIG.rope_theta)


def randomised(module: nn.Module) -> nn.Module:
    """No weight at a special value, so that no path is silent."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
            if name.endswith("dt_bias"):
                parameter.fill_(0.5)  # forgets fast enough to be seen
    return module.eval().requires_grad_(False)


LAYERS = [*MIXERS, "ffn"]


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> Layer:
    if request.param == "ffn":
        return Layer(randomised(FeedForward(CONFIG)), takes_rotary=False)
    return Layer(randomised(MIXERS[request.param](CONFIG)), takes_rotary=True)


@pytest.fixture
def dit() -> DiT:
    module = randomised(DiT(CONFIG))
    assert isinstance(module, DiT)
    return module


def prompt(dit: DiT, batch: int = BATCH) -> TextContext:
    return dit.encode_text(torch.randn(batch, 6, CONFIG.text_dim), torch.ones(batch, 6))


def video(batch: int = BATCH, channels: int = CONFIG.dim) -> Tensor:
    return torch.randn(batch, BOUNDS[-1], *GRID, channels)


def streamed(layer: Layer, x: Tensor) -> tuple[Tensor, list[Any]]:
    """Chunk by chunk: all outputs, and the state after each chunk."""
    state, outputs, states = layer.init(len(x)), [], []
    for start, end in pairwise(BOUNDS):
        y, state = layer(x[:, start:end], start, state)
        outputs.append(y)
        states.append(state)
    return torch.cat(outputs, dim=1), states


# Offline: one dense pass over the whole clip, under the explicit rule of what each chunk may see.


def chunk_of_frame() -> Tensor:
    lengths = torch.tensor([end - start for start, end in pairwise(BOUNDS)])
    return torch.arange(len(lengths)).repeat_interleave(lengths)


def offline_gated_delta(mixer: GatedDeltaAttention, x: Tensor) -> Tensor:
    """Token by token: what a frame reads is unrolled over all frames before it and over the later ones of its chunk."""
    frames, tokens = x.shape[1], GRID[0] * GRID[1]
    q, k, v, gate = mixer.project(x)
    q, k = q.relu(), k.relu() * (CONFIG.head_dim * tokens) ** -0.5
    whole = turn(0, frames, len(x))
    q_rot, k_rot = (rotate(t, whole).unflatten(2, (frames, tokens)) for t in (q, k))
    q, k, v = (t.unflatten(2, (frames, tokens)) for t in (q, k, v))
    beta, decay = mixer.gates(x)
    chunk, identity = chunk_of_frame(), torch.eye(CONFIG.head_dim)

    def moved(keys: Tensor, written: Tensor, order: list[int]) -> Tensor:
        """Walk over the frames in that order, token sums written out one by one."""
        memory = torch.zeros(*keys.shape[:2], keys.shape[-1], written.shape[-1])
        for f in order:
            erase = sum(
                beta[:, :, f, s, None, None] * keys[:, :, f, s, :, None] * keys[:, :, f, s, None] for s in range(tokens)
            )
            write = sum(
                beta[:, :, f, s, None, None] * keys[:, :, f, s, :, None] * written[:, :, f, s, None]
                for s in range(tokens)
            )
            memory = decay[:, :, f, None, None] * ((identity - erase) @ memory) + write
        return memory

    outputs = []
    ones = torch.ones_like(v[..., :1])
    for f in range(frames):
        past = list(range(f + 1))
        later = [g for g in reversed(range(f + 1, frames)) if chunk[g] == chunk[f]]
        memory = moved(k_rot, v, past) + (moved(k_rot, v, later) if later else 0)
        normalizer = moved(k, ones, past) + (moved(k, ones, later) if later else 0)
        outputs.append(q_rot[:, :, f] @ memory / (q[:, :, f] @ normalizer + 1e-8))
    return mixer.merge(torch.cat(outputs, dim=2), gate)


def offline_softmax(mixer: SoftmaxAttention, x: Tensor) -> Tensor:
    """One attention over the whole clip: sink, the recent whole chunks that fit into the window, and the own chunk."""
    q, k, v, gate = mixer.project(x)
    whole, chunk = turn(0, x.shape[1], len(x)), chunk_of_frame()
    lengths = [end - start for start, end in pairwise(BOUNDS)]
    visible = torch.zeros(len(chunk), len(chunk), dtype=torch.bool)
    for f, own in enumerate(chunk.tolist()):
        seen, room = {0, own}, CONFIG.window or 0
        for c in reversed(range(1, own)):
            if lengths[c] > room:
                break
            room -= lengths[c]
            seen.add(c)
        visible[f] = torch.tensor([c in seen for c in chunk.tolist()])
    tokens = GRID[0] * GRID[1]
    mask = visible.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)
    return mixer.merge(F.scaled_dot_product_attention(rotate(q, whole), rotate(k, whole), v, attn_mask=mask), gate)


def offline_ffn(ffn: FeedForward, x: Tensor) -> Tensor:
    """The temporal convolution as a convolution; to the right of each chunk it sees zero."""
    hidden = F.silu(ffn.up(x)).permute(0, 1, 4, 2, 3).flatten(0, 1)
    value, gate = ffn.depthwise(hidden).unflatten(0, x.shape[:2]).permute(0, 1, 3, 4, 2).chunk(2, dim=-1)
    u = ffn.down(value * F.silu(gate))
    before, own, after = ffn.temporal.weight.chunk(3, dim=1)
    padded = F.pad(u, (0, 0, 0, 0, 0, 0, 1, 1))
    ends = torch.tensor([end - 1 for end in BOUNDS[1:]])
    right = padded[:, 2:].clone()
    right[:, ends] = 0
    return u + padded[:, :-2] @ before.T + u @ own.T + right @ after.T


OFFLINE = {GatedDeltaAttention: offline_gated_delta, SoftmaxAttention: offline_softmax, FeedForward: offline_ffn}


def test_every_mixer_is_covered() -> None:
    assert set(MIXERS.values()) | {FeedForward} == set(OFFLINE)


def test_streaming_equals_offline(layer: Layer) -> None:
    x = video()
    torch.testing.assert_close(
        streamed(layer, x)[0], OFFLINE[type(layer.module)](layer.module, x), atol=2e-5, rtol=1e-4
    )  # type: ignore[operator]


def test_future_never_changes_past(layer: Layer) -> None:
    x = video()
    other = x.clone()
    other[:, BOUNDS[2] :] = torch.randn_like(other[:, BOUNDS[2] :])
    a, b = streamed(layer, x)[0], streamed(layer, other)[0]
    assert torch.equal(a[:, : BOUNDS[2]], b[:, : BOUNDS[2]])
    assert not torch.equal(a[:, BOUNDS[2] :], b[:, BOUNDS[2] :])


def test_the_past_is_read(layer: Layer) -> None:
    x = video()
    other = x.clone()
    other[:, BOUNDS[1] - 1] += 1
    assert not torch.equal(streamed(layer, x)[0][:, BOUNDS[1] :], streamed(layer, other)[0][:, BOUNDS[1] :])


def test_preview_leaves_state_untouched(layer: Layer) -> None:
    x = video()
    _, state = layer(x[:, :3], 0, layer.init())
    before = map_state(torch.clone, state)
    first, _ = layer(x[:, 3:5], 3, state)
    second, _ = layer(x[:, 3:5], 3, state)
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(tensors(before), tensors(state), strict=True))


def test_state_does_not_grow(layer: Layer) -> None:
    x, state, sizes = video()[:, :2], layer.init(), []
    for i in range(12):
        _, state = layer(x, 2 * i, state)
        sizes.append(nbytes(state))
    assert len(set(sizes[3:])) == 1


def test_state_owns_its_memory(layer: Layer) -> None:
    """A view would keep alive what it looks into."""
    _, state = layer(video()[:, :3], 0, layer.init())
    assert all(t.untyped_storage().nbytes() == nbytes(t) for t in tensors(state))


def test_batched_streams_are_separate(layer: Layer) -> None:
    x = video()
    together, states = streamed(layer, x)
    alone = [streamed(layer, x[i : i + 1]) for i in range(BATCH)]
    torch.testing.assert_close(together, torch.cat([y for y, _ in alone]), atol=1e-5, rtol=1e-5)
    joined = stack([s[-1] for _, s in alone])
    for a, b in zip(tensors(joined), tensors(states[-1]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def run(dit: DiT, x: Tensor, source: Tensor, text: TextContext, sigma: float = 0.4) -> Tensor:
    state, outputs = dit.init_state(len(x), GRID), []
    for start, end in pairwise(BOUNDS):
        velocity, state = dit(x[:, :, start:end], sigma, state, source=source[:, :, start:end], text=text)
        outputs.append(velocity)
    return torch.cat(outputs, dim=2)


def latents(batch: int = BATCH) -> Tensor:
    return torch.randn(batch, CONFIG.latent_channels, BOUNDS[-1], *GRID)


def test_transformer_streaming_equals_offline(dit: DiT, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole: every layer swapped for its dense form, then one pass over the clip as a single chunk."""
    x, source, text = latents(), latents(), prompt(dit)
    expected = run(dit, x, source, text)

    def dense(self: nn.Module, h: Tensor, *rest: Any) -> tuple[Tensor, Any]:
        return OFFLINE[type(self)](self, h), rest[-1]  # type: ignore[operator]

    for kind in OFFLINE:
        monkeypatch.setattr(kind, "forward", dense)
    got, _ = dit(x, 0.4, dit.init_state(BATCH, GRID), source=source, text=text)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-3)


def test_transformer_future_never_changes_past(dit: DiT) -> None:
    x, source, text = latents(), latents(), prompt(dit)
    other, other_source = x.clone(), source.clone()
    other[:, :, BOUNDS[3] :] += 1
    other_source[:, :, BOUNDS[3] :] -= 1
    a, b = run(dit, x, source, text), run(dit, other, other_source, text)
    assert torch.equal(a[:, :, : BOUNDS[3]], b[:, :, : BOUNDS[3]])


def test_transformer_preview_leaves_state_untouched(dit: DiT) -> None:
    x, source, text = latents(), latents(), prompt(dit)
    _, state = dit(x[:, :, :3], 0.0, dit.init_state(BATCH, GRID), source=source[:, :, :3], text=text)
    before = map_state(torch.clone, state)
    for sigma in (1.0, 0.5):
        dit(x[:, :, 3:5], sigma, state, source=source[:, :, 3:5], text=text)
    assert all(torch.equal(a, b) for a, b in zip(tensors(before), tensors(state), strict=True))


def test_moving_the_clock_of_a_fresh_stream_changes_nothing(dit: DiT) -> None:
    """Positions are relative for everything that has been seen since."""
    x, source, text = latents(), latents(), prompt(dit)
    start = dit.init_state(BATCH, GRID)
    denoise = partial(dit, x, 0.7, source=source, text=text)
    a, _ = denoise(start)
    b, _ = denoise(replace(start, position=start.position + 100_000))
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_streams_at_different_positions_share_a_pass(dit: DiT) -> None:
    x, source, text = latents(), latents(), prompt(dit)
    _, state = dit(x, 0.0, dit.init_state(BATCH, GRID), source=source, text=text)
    late = replace(state, position=state.position + torch.tensor([0, 50]))
    both, _ = dit(x[:, :, :2], 0.5, late, source=source[:, :, :2], text=text)
    for i in range(BATCH):
        own = TextContext(tuple(k[i : i + 1] for k in text.keys), tuple(v[i : i + 1] for v in text.values), mask=None)
        alone, _ = dit(
            x[i : i + 1, :, :2], 0.5, select(late, slice(i, i + 1)), source=source[i : i + 1, :, :2], text=own
        )
        torch.testing.assert_close(both[i : i + 1], alone, atol=1e-5, rtol=1e-4)


def test_padding_of_prompts_has_no_weight(dit: DiT) -> None:
    x, source = latents(), latents()
    tokens = torch.randn(BATCH, 9, CONFIG.text_dim)
    mask = torch.tensor([[1] * 4 + [0] * 5, [1] * 7 + [0] * 2])
    padded = run(dit, x, source, dit.encode_text(tokens, mask))
    for i, length in enumerate((4, 7)):
        own = dit.encode_text(tokens[i : i + 1, :length])
        torch.testing.assert_close(
            padded[i : i + 1], run(dit, x[i : i + 1], source[i : i + 1], own), atol=1e-5, rtol=1e-4
        )


def test_gradients_reach_the_past(dit: DiT) -> None:
    """What training relies on: a later chunk's loss moves what an earlier commit wrote."""
    dit.requires_grad_(True)
    x, source, text = latents(), latents(), prompt(dit)
    early = x[:, :, :3].clone().requires_grad_()
    _, state = dit(early, 0.0, dit.init_state(BATCH, GRID), source=source[:, :, :3], text=text)
    velocity, _ = dit(x[:, :, 3:4], 0.5, state, source=source[:, :, 3:4], text=text)
    velocity.square().sum().backward()
    assert early.grad is not None
    assert early.grad.abs().max() > 0

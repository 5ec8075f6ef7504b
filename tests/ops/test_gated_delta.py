"""The gated delta rule where its memory grows without bound."""

import torch
from torch import Tensor

from sana_streaming.ops.gated_delta import gated_delta
from sana_streaming.ops.gated_delta.reference import LARGEST


def drawn(generator: torch.Generator, strength: float) -> tuple[Tensor, ...]:
    """A frame of 5 tokens, 2 heads of 4, whose keys erase `strength` times what they should."""
    q, k = (torch.rand(1, 2, 1, 5, 4, generator=generator) for _ in range(2))
    v = torch.randn(1, 2, 1, 5, 3, generator=generator)
    return q, k * strength**0.5, v, q, k * strength**0.5, torch.ones(1, 2, 1, 5), torch.ones(1, 2, 1)


def run(frames: int, strength: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The last frame's output and the state, of one stream."""
    generator = torch.Generator().manual_seed(0)
    memory, normalizer = torch.zeros(1, 2, 4, 3, dtype=dtype), torch.zeros(1, 2, 4, dtype=dtype)
    o = torch.empty(0)
    for _ in range(frames):
        o, memory, normalizer = gated_delta(*drawn(generator, strength), memory, normalizer)
    return o, memory, normalizer


def test_memory_that_grows_stays_finite_for_good() -> None:
    o, memory, normalizer = run(400, 3.0, torch.float32)
    assert o.isfinite().all()
    largest = max(float(memory.abs().max()), float(normalizer.abs().max()))
    assert 1e-3 * LARGEST < largest <= 1.01 * LARGEST


def test_what_is_read_does_not_change_by_it() -> None:
    """In float64 nothing is near its end after as many frames as take float32 well past LARGEST."""
    o, memory, _ = run(60, 3.0, torch.float32)
    generator = torch.Generator().manual_seed(0)
    m, z = torch.zeros(1, 2, 4, 3, dtype=torch.float64), torch.zeros(1, 2, 4, 1, dtype=torch.float64)
    for _ in range(60):
        q, k, v, *_ = (x[:, :, 0].double() for x in drawn(generator, 3.0))
        m = m - k.mT @ (k @ m) + k.mT @ v
        z = z - k.mT @ (k @ z) + k.sum(-2)[..., None]
    assert m.abs().max() > 1e3 * LARGEST
    assert memory.abs().max() <= 1.01 * LARGEST
    expected = (q @ m) / (q @ z)
    assert (o[:, :, 0] - expected).norm() / expected.norm() < 1e-4


def test_a_memory_that_does_not_grow_is_left_alone() -> None:
    _, memory, normalizer = run(60, 0.1, torch.float32)
    assert max(float(memory.abs().max()), float(normalizer.abs().max())) < 1e3

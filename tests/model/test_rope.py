"""Both ways to turn by an angle, the one for compilers and the one for all else, give the same."""

import pytest
import torch

from sana_streaming.model.rope import rotary, rotate, time_shift


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(2, 3, 24, 16),
        torch.randn(2, 24, 3 * 16 * 4).bfloat16()[..., 48:96].unflatten(-1, (3, 16)).transpose(1, 2),
        torch.randn(2, 3, 16, 24).mT,
    ],
    ids=["contiguous", "a part of a projection, bfloat16", "transposed"],
)
@pytest.mark.parametrize("turn", ["places", "shift"])
def test_compiled_or_not_the_rotation_is_the_same(x, turn, monkeypatch):
    position = torch.tensor([5, 900])
    by = rotary(position, (2, 3, 4), 16, 1e4) if turn == "places" else time_shift(position, 16, 1e4)
    turned = rotate(x, by)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    real = rotate(x, by)
    assert turned.dtype == real.dtype == x.dtype
    tolerance = 2**-8 if x.dtype == torch.bfloat16 else 1e-6
    assert (turned - real).abs().max() <= tolerance * x.abs().max()
    norms = (t.float().norm(dim=-1) for t in (turned, x))
    assert torch.allclose(*norms, rtol=2**-7)  # nothing but turned

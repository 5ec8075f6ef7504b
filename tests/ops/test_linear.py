"""The layer whose weights are laid out once is nn.Linear, whatever becomes of its weights and of itself."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sana_streaming.ops import linear
from sana_streaming.ops.linear import Linear

needs_layout = pytest.mark.skipif(not linear.available(), reason="this build of PyTorch has no layouts of oneDNN")


def layer(inputs=48, outputs=80, bias=True, dtype=torch.bfloat16):
    torch.manual_seed(0)
    return Linear(inputs, outputs, bias=bias).to(dtype)


def plain(module, x):
    return F.linear(x, module.weight, module.bias)


def same(a, b):
    """But for one rounding: processors differ in the order of the sum."""
    return a.shape == b.shape and (a - b).abs().max() <= 2**-7 * b.abs().max()


@needs_layout
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 48), (7, 48), (2, 3, 4, 5, 48), (256, 48)], ids=str)
def test_the_product_is_that_of_nn_linear(shape, bias):
    module, x = layer(bias=bias), torch.randn(shape).bfloat16()
    wide = torch.randn(*shape[:-1], 2 * 48).bfloat16()[..., 48:]  # a part of a projection
    with torch.inference_mode():
        assert same(module(x), plain(module, x))
        assert same(module(wide), plain(module, wide))
        assert torch.equal(module(wide), module(wide.contiguous()))
        assert torch.equal(module(x), module(x.clone()))
    assert module._laid_out is not None


@needs_layout
def test_new_weights_are_seen():
    module, x = layer(), torch.randn(5, 48).bfloat16()
    with torch.no_grad():
        before = module(x)
        module.weight.mul_(2)
        assert same(module(x), plain(module, x))
        module.load_state_dict(layer().state_dict())
        assert torch.equal(module(x), before)
        module.weight = nn.Parameter(module.weight.flip(0))
        assert same(module(x), plain(module, x))


@needs_layout
def test_copies_and_files_hold_weights_alone():
    module, x = layer(), torch.randn(5, 48).bfloat16()
    with torch.no_grad():
        told = module(x)
        for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert twin._laid_out is None
            assert torch.equal(twin(x), told)
    assert set(module.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_learns(dtype):
    module, x = layer(dtype=dtype), torch.randn(5, 48, dtype=dtype)
    module(x).sum().backward()
    assert module.weight.grad is not None
    assert module._laid_out is None


def test_without_layouts_it_is_nn_linear(monkeypatch):
    monkeypatch.setattr(linear, "available", lambda: False)
    module, x = layer(), torch.randn(5, 48).bfloat16()
    with torch.inference_mode():
        assert torch.equal(module(x), plain(module, x))
    assert module._laid_out is None


def test_large_layers_and_no_rows_are_left_alone(monkeypatch):
    module, x = layer(), torch.randn(5, 48).bfloat16()
    with torch.inference_mode():
        assert module(x[:0]).shape == (0, 80)
        monkeypatch.setattr(linear, "LARGEST", 48 * 80 - 1)
        assert torch.equal(module(x), plain(module, x))
    assert module._laid_out is None


def test_weights_whose_changes_nobody_counts_are_never_kept():
    with torch.inference_mode():
        module, x = layer(), torch.randn(5, 48).bfloat16()
        assert torch.equal(module(x), plain(module, x))
        module.weight.mul_(2)
        assert torch.equal(module(x), plain(module, x))

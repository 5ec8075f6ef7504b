"""SiLU, depthwise convolution and gate: the kernel is its reference, outputs and gradients, on odd sizes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sana_streaming.ops.glu_conv import reference

SIZES = [(1, 1, 1, 1), (2, 3, 5, 7), (3, 5, 33, 70), (1, 16, 28, 64)]
SMALL = [(1, 1, 1, 1), (2, 3, 5, 7), (1, 2, 33, 70)]  # the interpreter is slow
NAMES = ("out", "x", "weight", "bias")


def compare(M: int, H: int, W: int, C: int, device: str, dtype: torch.dtype) -> dict[str, float]:
    """Relative L2 distance of the kernel's output and gradients from those of the reference in float64."""
    from sana_streaming.ops.glu_conv import kernel

    generator = torch.Generator().manual_seed(0)
    shapes = ((M, H, W, 2 * C), (2 * C, 1, 3, 3), (2 * C,))
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    grad = torch.randn(M, H, W, C, generator=generator, dtype=torch.float64).to(dtype)
    results = []
    for function, where, kind in ((kernel.glu_conv, device, dtype), (reference.glu_conv, "cpu", torch.float64)):
        leaves = [x.detach().to(where, kind).requires_grad_() for x in inputs]
        out = function(*leaves)
        out.backward(grad.to(where, kind))
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    pairs = zip(NAMES, *results, strict=True)
    return {name: float((a.cpu().double() - b).norm() / b.norm()) for name, a, b in pairs}


def test_kernel_is_its_reference_in_the_interpreter() -> None:
    """In a process of its own: Triton decides at import whether it interprets."""
    pytest.importorskip("triton")
    code = (
        "import torch; from test_glu_conv import SMALL, compare\n"
        "torch.utils.deterministic.fill_uninitialized_memory = True\n"
        "torch.use_deterministic_algorithms(True)\n"
        "for size in SMALL:\n"
        "    errors = compare(*size, 'cpu', torch.float32)\n"
        "    assert max(errors.values()) < 1e-5, (size, errors)"
    )
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": f"{Path(__file__).parent}:{Path.cwd()}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_kernel_is_its_reference(size: tuple[int, ...], dtype: torch.dtype) -> None:
    errors = compare(*size, device="cuda", dtype=dtype)
    assert max(errors.values()) < (1e-5 if dtype == torch.float32 else 1e-2), errors


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch 2.11 compiles with what it has deprecated
def test_kernel_compiles_within_a_larger_function() -> None:
    from sana_streaming.ops.glu_conv import glu_conv

    x, w, b = (torch.randn(s, device="cuda", requires_grad=True) for s in ((2, 4, 4, 12), (12, 1, 3, 3), (12,)))
    plain = glu_conv(2 * x, w, b) + 1
    compiled = torch.compile(lambda x, w, b: glu_conv(2 * x, w, b) + 1)(x, w, b)
    torch.testing.assert_close(compiled, plain)
    (gradient,) = torch.autograd.grad(compiled.sum(), x)
    torch.testing.assert_close(gradient, torch.autograd.grad(plain.sum(), x)[0])

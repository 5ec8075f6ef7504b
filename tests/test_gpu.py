"""On a GPU: the same pictures as on the CPU, within what bfloat16 rounds."""

from pathlib import Path

import pytest
import torch

from sana_streaming import checkpoint
from sana_streaming.diffusion.flow import sampling
from sana_streaming.metrics import psnr
from sana_streaming.stream.road import edit_clip
from sana_streaming.train.recorded import Memory, Recorded

pytestmark = pytest.mark.gpu
ROWS = (2**17, 2**17 - 1)  # 128 MiB each
TOKENS = torch.randn(1, 5, 384, generator=torch.Generator().manual_seed(0))


def edited(folder: Path, device: str, dtype: torch.dtype, frames: torch.Tensor) -> torch.Tensor:
    config, dit, codec = checkpoint.load(folder, torch.device(device), dtype)
    with torch.inference_mode():
        text = dit.encode_text(TOKENS.to(device))
        noise = torch.Generator().manual_seed(0)
        return edit_clip(codec, dit, frames.to(device), text, noise, sampling(config.sampler), chunk=2).cpu()


@pytest.mark.parametrize(("dtype", "decibels"), [(torch.float32, 45), (torch.bfloat16, 30)])
def test_nano_gives_the_same_pictures_as_on_the_cpu(dtype: torch.dtype, decibels: float) -> None:
    folder = checkpoint.find("nano")
    x = torch.linspace(0, 255, 128)
    ramp = torch.stack([x.expand(96, -1), x.flip(0).expand(96, -1), torch.full((96, 128), 90.0)], dim=-1)
    frames = torch.stack([ramp.roll(3 * f, dims=1) for f in range(16)])[None].round().to(torch.uint8)
    expected = edited(folder, "cpu", torch.float32, frames)
    assert psnr(edited(folder, "cuda", dtype, frames), expected).item() > decibels


def test_recordings_are_the_function_and_work_in_one_memory() -> None:
    """Running before they are recorded included."""
    weight = torch.nn.Parameter(torch.randn(256, 256, device="cuda"))
    weight.grad = torch.zeros_like(weight)
    inputs = [torch.randn(rows, 256, device="cuda", generator=torch.Generator("cuda").manual_seed(0)) for rows in ROWS]

    def loss(x: torch.Tensor) -> torch.Tensor:
        for _ in range(16):
            x = torch.tanh(x @ weight)
        value = x.square().sum()
        value.backward()
        return value.detach()

    expected, memory, kept, recorded, reserved = [], Memory(), weight.grad.clone(), [], []
    for x in inputs:
        value = loss(x)
        expected.append((value, weight.grad.clone()))
        weight.grad.zero_()
    torch.cuda.empty_cache()
    for x in inputs:
        recorded.append(Recorded(loss, x, [weight], memory))
        reserved.append(torch.cuda.memory_reserved())
        assert torch.equal(weight.grad, kept)
    assert reserved[1] < 1.1 * reserved[0]
    for replay, x, (value, gradient) in zip(recorded, inputs, expected, strict=True):
        weight.grad.zero_()
        assert torch.allclose(replay(x), value, rtol=1e-4)
        assert torch.allclose(weight.grad, gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max()))

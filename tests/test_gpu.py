"""On a GPU: the same pictures as on the CPU, within what bfloat16 rounds."""

from pathlib import Path

import pytest
import torch

from sana_streaming import checkpoint
from sana_streaming.diffusion.flow import sampling
from sana_streaming.metrics import psnr
from sana_streaming.stream.road import edit_clip

pytestmark = pytest.mark.gpu
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

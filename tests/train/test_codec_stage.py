"""The codec's training stage on made-up clips: moving stripes, and the same in negative as their edit."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sana_streaming.codec.nano import NanoCodec
from sana_streaming.config import nano
from sana_streaming.train import __main__ as main
from sana_streaming.train.loop import load_export, load_weights
from sana_streaming.train.stages import codec as stages
from sana_streaming.train.stages.codec import CodecStage, CodecStageConfig

CPU = torch.device("cpu")
SMALL = dataclasses.replace(nano().codec, widths=(8, 12, 16), latent_channels=6)
TINY = CodecStageConfig(batch=4, frames=8, sizes=((32, 32), (16, 48)), pool=2, uses=2, held_out=2, compile=False)


def stripes(batch: int, frames: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Clips [B, F, 3, H, W] in [0, 1]"""
    phase = torch.rand(batch, 1, 3, 1, 1, generator=generator) * 6
    t = torch.arange(frames)[None, :, None, None, None] / 8
    x = torch.arange(width) / 16
    return (0.5 + 0.4 * torch.sin(x + t + phase)).expand(-1, -1, -1, height, -1)


@pytest.fixture(autouse=True)
def _made_up_data(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True)
    class Bank:
        split: str
        clips: tuple[int, ...] = (1,)
        film: tuple[int, ...] = (1,)

    def load_bank(pack: Path, split: str, device: torch.device, film_frames: int | None = None) -> Bank:
        return Bank(split)

    def render_batch(bank: Bank, *size: Any) -> SimpleNamespace:
        source = stripes(*size)
        return SimpleNamespace(source=source, target=1 - source)

    def photo_clips(bank: Bank, frames: int, height: int, width: int, still: Tensor, rng: torch.Generator) -> Tensor:
        return stripes(len(still), frames, height, width, rng)

    def video_clip(bank: Bank, *size: Any) -> Tensor:
        return stripes(1, *size)[0]

    for fake in (load_bank, render_batch, photo_clips, video_clip):
        monkeypatch.setattr(stages, fake.__name__, fake)
    monkeypatch.setattr(stages, "nano", lambda: dataclasses.replace(nano(), codec=SMALL))


def stage(config: CodecStageConfig = TINY) -> CodecStage:
    return CodecStage(config, Path("pack"), CPU, seed=0)


def test_loss_falls_and_its_parts_are_told() -> None:
    s, generator = stage(dataclasses.replace(TINY, noise=0.0, uses=60)), torch.Generator().manual_seed(0)
    adam = torch.optim.Adam(s.codec.parameters(), 3e-3)
    errors = []
    for step in range(100):
        adam.zero_grad()
        parts = s.backward(step, generator)
        adam.step()
        errors.append(float(parts["l1"]))
        assert parts.keys() == {"loss", "l1", "mse", "motion", "edges", "spread", "clips"}
    assert sum(errors[-20:]) / 20 < 0.6 * sum(errors[:5]) / 5
    assert all(p.grad is not None for p in s.codec.parameters())


def test_sizes_change_the_number_of_clips_and_every_clip_is_used_as_often() -> None:
    config = dataclasses.replace(TINY, first_size_share=0.0, sizes=((32, 32), (16, 32)))
    s = stage(config)
    s.backward(0, torch.Generator().manual_seed(0))
    assert s.rendered.shape == (16, 8, 3, 16, 32)
    used = torch.tensor(s.order).flatten()
    assert len(used) == 2 * 16 - 8
    assert used.bincount().max() == 2


def test_measured_statistics_make_unit_latents() -> None:
    s = stage()
    with torch.no_grad():
        s.codec.encoder.out.weight.mul_(7)
        s.measure()
        latents = torch.cat([s._reconstruct(clips)[1] for clips in s.measured])
    assert latents.mean().abs() < 1e-3
    torch.testing.assert_close(latents.std(dim=(0, 2, 3, 4)), torch.ones(6), atol=1e-2, rtol=0)


def test_validation_names_what_it_measured() -> None:
    s = stage()
    with torch.no_grad():
        s.measure()
        metrics, picture = s.validate()
    assert {"photo PSNR dB", "video PSNR dB", "edited PSNR dB", "still flicker x255"} <= metrics.keys()
    assert picture is not None
    assert picture.dtype == torch.uint8


def test_the_shipped_recipe_runs_end_to_end(tmp_path: Path) -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "nano_codec.json"
    arguments = [str(recipe), "--pack", "pack", "--out", str(tmp_path), "--device", "cpu", "--tiny"]
    arguments += ["--steps", "3", "--set", "config.sizes=[[32, 32]]"]
    metrics = main.main(arguments)
    assert "photo PSNR dB" in metrics
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["config"]["sizes"] == [[32, 32]]
    assert written["config"]["noise"] == CodecStageConfig().noise
    codec = NanoCodec(SMALL)
    load_weights({"codec": codec}, load_export(tmp_path))
    assert codec.latents_std.ne(1).all()
    with pytest.raises(ValueError, match="unknown keys"):
        main.main([*arguments, "--set", "config.nonsense=1"])


def test_the_start_is_a_good_linear_codec() -> None:
    """Six channels hold most of the stripes before any training; random weights would hold none of them."""
    s = stage()
    with torch.no_grad():
        s.measure()
        metrics, _ = s.validate()
        features, _ = s.codec.encoder(stages.to_frames(s.measured[0]), s.codec.init_encoder(2))
    assert metrics["photo PSNR dB"] > 15
    assert metrics["edited PSNR dB"] > 15
    assert 0.1 < features.square().mean() < 10

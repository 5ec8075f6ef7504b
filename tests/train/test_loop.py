"""The training loop on a toy stage: a line is fitted to noisy points."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sana_streaming.config import from_dict
from sana_streaming.data.edits import EDITS
from sana_streaming.train.__main__ import Recipe, apply_override, load_stage, parse_override
from sana_streaming.train.images import grid, write_png
from sana_streaming.train.loop import LoopConfig, learning_rate, load_export, load_weights, save_export, train, trained
from sana_streaming.train.optim import MasterOptimizer

CPU = torch.device("cpu")
RECIPES = Path(__file__).parents[2] / "recipes"
QUIET = LoopConfig(lr=0.05, warmup_steps=5, validate_every=0, export_every=0, closing=0, average=0.9)


class ToyStage:
    config_type = LoopConfig

    def __init__(self, dtype: torch.dtype = torch.float32, bad_step: int | None = None):
        self.model = nn.Linear(4, 2).to(dtype)
        self.modules = {"toy": self.model}
        self.bad_step, self.measured = bad_step, 0
        self.truth = torch.arange(8.0).view(4, 2) / 8

    def backward(self, step: int, generator: torch.Generator) -> dict[str, Tensor | float]:
        x = torch.randn(16, 4, generator=generator)
        y = self.model(x.to(self.model.weight.dtype)).float()
        loss = (y - x @ self.truth).square().mean()
        if step == self.bad_step:
            loss = loss * float("nan")
        loss.backward()
        return {"loss": loss.detach(), "mse": loss.detach(), "constant": 1.0}

    def measure(self) -> None:
        self.measured += 1

    def validate(self) -> tuple[dict[str, float], Tensor | None]:
        error = (self.model.weight.float().T - self.truth).abs().max().item()
        return {"error": error}, torch.zeros(8, 8, 3, dtype=torch.uint8)

    def state_dict(self) -> dict[str, Any]:
        return {"measured": self.measured}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.measured = state["measured"]


class Clock:
    """Each look at it takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_fits_and_leaves_everything_behind(
    tmp_path: Path, dtype: torch.dtype, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = ToyStage(dtype)
    metrics = train(stage, tmp_path, QUIET, device=CPU, steps=200, clock=Clock())
    assert metrics["error"] < 0.02
    assert stage.measured > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ema-00001-of-00001.safetensors", "log.jsonl", "samples.png"]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["metrics"] == metrics
    assert lines[-2]["step"] == 200
    assert {"loss", "mse", "constant", "grad", "lr", "steps_per_s"} <= lines[0].keys()
    assert lines[-2]["loss"] < lines[0]["loss"] / 10
    assert "held out, step 200" in capsys.readouterr().out
    saved = load_file(tmp_path / "ema-00001-of-00001.safetensors")
    assert saved["toy.weight"].dtype == torch.float16
    assert saved["toy.bias"].dtype == torch.float32


def test_a_time_budget_ends_the_run_and_its_schedule(tmp_path: Path) -> None:
    config = LoopConfig(lr=0.1, lr_floor=0.1, warmup_steps=1, log_every=1, validate_every=0, export_every=0, closing=30)
    train(ToyStage(), tmp_path, config, device=CPU, minutes=2, clock=Clock())
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()][:-1]
    assert 80 < lines[-1]["elapsed"] <= 100
    assert lines[0]["lr"] > 0.099
    assert lines[-2]["lr"] < 0.012


def test_learning_rate() -> None:
    config = LoopConfig(lr=1.0, lr_floor=0.1, warmup_steps=10)
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(config, 9, 0.0) == pytest.approx(1.0)
    assert learning_rate(config, 50, 0.5) == pytest.approx(0.55)
    assert learning_rate(config, 99, 1.2) == pytest.approx(0.1)


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    config = LoopConfig(lr=0.05, lr_floor=1.0, warmup_steps=4, validate_every=0, export_every=0, checkpoint_every=1e9)
    first = ToyStage()
    second, third = ToyStage(), ToyStage()
    for stage in (second, third):
        stage.model.load_state_dict(first.model.state_dict())
    train(first, tmp_path / "whole", config, device=CPU, steps=20)
    train(second, tmp_path / "parts", config, device=CPU, steps=10)
    torch.manual_seed(5)
    train(third, tmp_path / "parts", config, device=CPU, steps=20, resume=True)
    for a, b in zip(first.model.parameters(), third.model.parameters(), strict=True):
        assert torch.equal(a, b)
    whole, parts = load_export(tmp_path / "whole"), load_export(tmp_path / "parts")
    assert all(torch.equal(whole[n], parts[n]) for n in whole)
    with pytest.raises(ValueError, match=r"checkpoint\.pt"):
        train(ToyStage(), tmp_path / "nothing", config, device=CPU, steps=1, resume=True)


def test_starts_from_an_export(tmp_path: Path) -> None:
    train(ToyStage(), tmp_path / "a", QUIET, device=CPU, steps=200)
    metrics = train(ToyStage(), tmp_path / "b", QUIET, device=CPU, steps=0, init=tmp_path / "a")
    assert metrics["error"] < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_stops_when_too_many_losses_are_not_finite(tmp_path: Path, dtype: torch.dtype) -> None:
    stage = ToyStage(dtype, bad_step=7)
    with pytest.raises(FloatingPointError, match="not finite"):
        train(stage, tmp_path, replace(QUIET, skips=0), device=CPU, steps=20)
    assert all(torch.isfinite(p).all() for p in stage.model.parameters())
    assert not list(tmp_path.glob("ema-*"))
    train(stage, tmp_path, replace(QUIET, skips=1), device=CPU, steps=20)
    assert all(torch.isfinite(t).all() for t in load_export(tmp_path).values())


def test_a_run_that_breaks_leaves_what_it_learned(tmp_path: Path) -> None:
    stage = ToyStage()

    def backward(step: int, generator: torch.Generator) -> dict[str, Tensor | float]:
        if step == 20:
            raise RuntimeError("no more clips")
        return ToyStage.backward(stage, step, generator)

    stage.backward = backward  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="no more clips"):
        train(stage, tmp_path, QUIET, device=CPU, steps=100)
    assert load_export(tmp_path).keys() == {"toy.weight", "toy.bias"}


def test_a_paused_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    config = replace(QUIET, closing=0, checkpoint_every=1e9)
    assert train(ToyStage(), tmp_path, config, device=CPU, minutes=2, pause_after=1, clock=Clock()) == {}
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["elapsed"] < 62
    assert lines[-1]["lr"] > 0.02
    train(ToyStage(), tmp_path, config, device=CPU, minutes=2, resume=True, clock=Clock())
    more = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()][len(lines) : -1]
    assert more[0]["step"] > lines[-1]["step"]
    assert more[0]["elapsed"] > 58
    assert more[-1]["lr"] < 0.002


def test_a_bad_step_changes_nothing_and_the_next_one_is_as_if_it_had_not_been() -> None:
    def optimizer(model: nn.Linear) -> MasterOptimizer:
        return MasterOptimizer(trained({"m": model}), average=0.5)

    torch.manual_seed(1)
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    b.load_state_dict(a.state_dict())
    one, two = optimizer(a), optimizer(b)
    x = torch.randn(5, 3)
    for factors in ((1.0, 2.0), (1.0, float("inf"), 2.0)):
        model, opt = (a, one) if len(factors) == 2 else (b, two)
        for factor in factors:
            loss = model(x).square().mean() * factor
            loss.backward()
            opt.step(0.01)
    assert one.skipped.item() == 0
    assert two.skipped.item() == 1
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-7, rtol=0)


def test_masters_see_updates_that_bfloat16_cannot() -> None:
    p = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    opt = MasterOptimizer({"p": p}, weight_decay=0.0)
    for _ in range(20):
        loss = p.float().sum()
        loss.backward()
        opt.step(1e-4)
    torch.testing.assert_close(opt.masters["p"].detach(), torch.full((4,), 1 - 20e-4), atol=1e-5, rtol=0)
    assert torch.equal(p.detach(), opt.masters["p"].detach().bfloat16())


def test_averages_follow_and_are_put_in_and_taken_out() -> None:
    p = nn.Parameter(torch.zeros(1, 1))
    opt = MasterOptimizer({"p": p}, weight_decay=0.0, average=0.5)
    expected, decays = torch.zeros(1, 1), (1 / 11, 2 / 12, 3 / 13)
    for decay in decays:
        loss = p.sum()
        loss.backward()
        opt.step(0.1)
        expected = decay * expected + (1 - decay) * p.detach()
    torch.testing.assert_close(opt.averages["p"], expected, atol=1e-6, rtol=0)
    now = p.detach().clone()
    with opt.averaged():
        torch.testing.assert_close(p.detach(), expected, atol=1e-6, rtol=0)
    assert torch.equal(p.detach(), now)


def test_gradients_are_clipped_and_their_norm_told() -> None:
    p = nn.Parameter(torch.zeros(2))
    opt = MasterOptimizer({"p": p}, clip=1.0)
    loss = (p * torch.tensor([30.0, 40.0])).sum()
    loss.backward()
    assert opt.step(0.0).item() == pytest.approx(50.0)
    torch.testing.assert_close(opt.masters["p"].grad, torch.tensor([0.6, 0.8]), atol=1e-5, rtol=0)


def test_muon_steps_are_orthogonal_and_as_large_as_those_of_adamw() -> None:
    tall, other = nn.Parameter(torch.zeros(48, 24)), nn.Parameter(torch.zeros(48, 24))
    opt = MasterOptimizer({"block.w": tall, "w": other}, weight_decay=0.0, clip=1e9, muon="block")
    assert list(opt.momenta) == ["block.w"]
    target = torch.randn(48, 24, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.01, 1, 24)
    ((tall - target).square().sum() + (other - target).square().sum()).backward()
    opt.step(0.1)
    values = torch.linalg.svdvals(tall.detach())
    assert values.max() < 2 * values.min()  # although the gradient's directions differ a hundredfold
    assert tall.square().mean().sqrt().item() == pytest.approx(0.1 * 0.2 * (24 / 24) ** 0.5, rel=0.3)


def test_a_bad_step_leaves_muon_where_it_was() -> None:
    p = nn.Parameter(torch.ones(32, 32))
    opt = MasterOptimizer({"block.w": p, "b": nn.Parameter(torch.ones(3))}, muon="block")
    (p.sum() * float("inf")).backward()
    opt.step(0.1)
    assert torch.equal(p.detach(), torch.ones(32, 32))
    assert torch.isfinite(opt.momenta["block.w"]).all()
    assert opt.skipped.item() == 1


def test_gradients_stay_in_the_same_memory() -> None:
    p = nn.Parameter(torch.ones(3))
    opt = MasterOptimizer({"p": p})
    kept = p.grad
    p.sum().backward()
    opt.step(0.1)
    assert p.grad is kept
    assert kept is not None
    assert not kept.any()


def test_exports_in_parts_come_back_whole(tmp_path: Path) -> None:
    tensors = {f"m.{i}": torch.randn(64, 64) for i in range(5)} | {"m.bias": torch.randn(7), "m.count": torch.tensor(3)}
    paths = save_export(tmp_path, tensors, shard_mib=0.02)
    assert len(paths) == 3
    assert all(p.stat().st_size < 0.02 * 2**20 + 2000 for p in paths)
    merged = load_export(tmp_path)
    assert merged.keys() == tensors.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(merged[name].to(tensor.dtype), tensor, atol=2e-3, rtol=1e-3)
    assert torch.equal(merged["m.bias"], tensors["m.bias"])
    save_export(tmp_path, {"m.0": tensors["m.0"]})
    assert load_export(tmp_path).keys() == {"m.0"}


def test_weights_of_a_model_folder_are_a_start(tmp_path: Path) -> None:
    for name in ("dit", "codec"):
        save_file({"w": torch.full((2, 2), float(len(name)))}, tmp_path / f"{name}.safetensors")
    weights = load_export(tmp_path)
    assert weights.keys() == {"dit.w", "codec.w"}
    assert weights["codec.w"].unique().item() == 5


def test_missing_parts_and_weights_are_named(tmp_path: Path) -> None:
    for path in save_export(tmp_path, {f"m.{i}": torch.zeros(64, 64) for i in range(5)}, shard_mib=0.02)[1:]:
        path.unlink()
    with pytest.raises(ValueError, match="expected 3 files"):
        load_export(tmp_path)
    with pytest.raises(ValueError, match="expected 1 files"):
        load_export(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"toy\.bias"):
        MasterOptimizer(trained(ToyStage().modules)).start_from({"toy.weight": torch.zeros(2, 4)})
    with pytest.raises(ValueError, match="expected shape"):
        MasterOptimizer(trained(ToyStage().modules)).start_from(
            {"toy.weight": torch.zeros(3), "toy.bias": torch.zeros(2)}
        )


def test_frozen_parameters_are_left_out_and_buffers_exported(tmp_path: Path) -> None:
    stage = ToyStage()
    stage.model.bias.requires_grad_(False)
    stage.model.register_buffer("scale", torch.full((3,), 2.0))
    bias = stage.model.bias.detach().clone()
    train(stage, tmp_path, QUIET, device=CPU, steps=3)
    assert torch.equal(stage.model.bias, bias)
    weights = load_export(tmp_path)
    assert torch.equal(weights["toy.scale"], torch.full((3,), 2.0))
    load_weights({"toy": stage.model}, weights)


def test_steps_or_minutes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="either steps or minutes"):
        train(ToyStage(), tmp_path, QUIET, device=CPU)


def test_recipes() -> None:
    values: dict[str, Any] = {"stage": "codec", "minutes": 1, "loop": {"lr": 1e-3}}
    apply_override(values, *parse_override("loop.lr=0.5"))
    apply_override(values, *parse_override("config.name=plain text"))
    apply_override(values, *parse_override("config.sizes=[[16, 16]]"))
    recipe = from_dict(Recipe, values)
    assert recipe.loop.lr == 0.5
    assert recipe.config == {"name": "plain text", "sizes": [[16, 16]]}
    apply_override(values, "loop.speed", 3)
    with pytest.raises(ValueError, match=r"unknown keys \['speed'\]"):
        from_dict(Recipe, values)
    with pytest.raises(ValueError, match="name=value"):
        parse_override("loop.lr")
    with pytest.raises(ValueError, match="stage"):
        load_stage("walk")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.json")), ids=lambda path: path.stem)
def test_shipped_recipes_are_understood(path: Path) -> None:
    """Every option is one that its stage knows, in full and as it is tried on a CPU, and so is every edit."""
    for tiny in (False, True):
        values = json.loads(path.read_text())
        for name, value in values["tiny"].items() if tiny else ():
            apply_override(values, name, value)
        recipe = from_dict(Recipe, values)
        config = from_dict(load_stage(recipe.stage).config_type, recipe.config)
        assert set(getattr(config, "emphasis", ())) <= set(EDITS)
        assert len(getattr(config, "layouts", ())) == len(getattr(config, "shares", ()))


def test_grid(tmp_path: Path) -> None:
    red, blue = torch.zeros(3, 4, 6), torch.zeros(3, 4, 6)
    red[0], blue[2] = 1, 2
    picture = grid([[red, blue], [blue, red]], gap=2)
    assert picture.shape == (12, 16, 3)
    assert picture[0, 0].tolist() == [255, 0, 0]
    assert picture[0, 8].tolist() == [0, 0, 255]
    assert picture[4, 0].tolist() == [255, 255, 255]
    write_png(tmp_path / "x.png", picture)
    import cv2

    assert cv2.imread(str(tmp_path / "x.png"))[0, 0].tolist() == [0, 0, 255]

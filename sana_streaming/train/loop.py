"""One training loop for every stage: it owns optimiser, clock, log and files; a stage owns data and loss.

The output folder holds `config.json` (written by the caller), `log.jsonl`, `samples.png` (the latest),
`ema-0000k-of-0000n.safetensors` (averaged weights, fp16, in parts that are small enough to carry) and, if asked for,
`checkpoint.pt` (everything that resuming needs).
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sana_streaming.train import parallel
from sana_streaming.train.images import write_png
from sana_streaming.train.optim import MasterOptimizer


@dataclass(frozen=True)
class LoopConfig:
    """Optimiser, schedule and rhythm. Intervals are in seconds; 0 means never, but for the end of the run."""

    lr: float = 1e-3
    lr_floor: float = 0.02  # share of lr that is left at the end
    warmup_steps: int = 100
    betas: tuple[float, ...] = (0.9, 0.95)
    weight_decay: float = 0.01
    muon: str = ""  # matrices whose names hold this are moved by Muon, all else by AdamW
    clip: float = 1.0  # norm of the gradient
    skips: int = 10  # steps that may be left out because their gradient was not finite
    average: float = 0.999  # decay per step of the averaged weights
    log_every: float = 5.0
    validate_every: float = 120.0
    checkpoint_every: float = 0.0
    export_every: float = 120.0
    closing: float = 20.0  # kept free at the end of a time budget for the last validation and export
    shard_mib: float = 15.0


class Stage(Protocol):
    """What the loop trains. Built as `Stage(config, pack, device, seed)`; `config_type` says what config is."""

    config_type: type
    modules: Mapping[str, nn.Module]  # trained and exported, on the device, in the precision in which they run

    def backward(self, step: int, generator: torch.Generator) -> dict[str, Tensor | float]:
        """Add the gradient of one batch's loss to the parameters' -> the loss and its parts, to be logged (detached
        tensors, so that nothing waits for them).

        A part called "clips", the size of the batch, is told as a rate.
        """
        ...

    def measure(self) -> None:
        """Bring buffers up to date with the weights as they are (the averaged ones), before validation and export."""
        ...

    def validate(self) -> tuple[dict[str, float], Tensor | None]:
        """Held-out metrics of the weights as they are, and a picture of samples (RGB uint8 [H, W, 3])."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs besides weights, optimiser and generator."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def learning_rate(config: LoopConfig, step: int, progress: float) -> float:
    """Linear warm-up over steps, then a cosine over progress in [0, 1] down to the floor."""
    warmup = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return config.lr * warmup * (config.lr_floor + (1 - config.lr_floor) * cosine)


def train(
    stage: Stage,
    out: Path,
    config: LoopConfig,
    *,
    device: torch.device,
    seed: int = 0,
    steps: int | None = None,
    minutes: float | None = None,
    started: float | None = None,
    init: Path | None = None,
    resume: bool = False,
    pause_after: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, float]:
    """Train for a number of steps or of minutes (counted from `started` by the clock) -> the last validation's metrics.

    `init`: folder of an earlier export to start from. `resume`: go on from `out/checkpoint.pt`; the time that it took
    counts towards the minutes. `pause_after`: stop after so many minutes of this run, with a checkpoint to resume from;
    the schedule is that of the whole.
    """
    if (steps is None) == (minutes is None):
        raise ValueError(f"expected either steps or minutes, got steps={steps}, minutes={minutes}")
    out.mkdir(parents=True, exist_ok=True)
    started = clock() if started is None else started
    leads = parallel.rank() == 0  # writes and tells; the others only train
    optimizer = MasterOptimizer(
        trained(stage.modules), config.betas, config.weight_decay, config.clip, config.average, config.muon
    )
    generator = torch.Generator(device).manual_seed(seed + 10**6 * parallel.rank())
    first, before = 0, 0.0
    if init is not None:
        weights = load_export(init)
        load_weights(stage.modules, weights)
        optimizer.start_from(weights)
    if resume:
        first, before = _load_checkpoint(out, stage, optimizer, generator)
    budget = None if minutes is None else minutes * 60 - config.closing
    meter = _Meter(out, clock, first)
    due = {"log": clock(), "validate": clock(), "checkpoint": clock(), "export": clock()}

    def is_due(name: str, every: float) -> bool:
        if not leads or not every or clock() - due[name] < every:
            return False
        due[name] = clock()
        return True

    step = first
    while True:
        elapsed = parallel.from_first(before + clock() - started)
        if step >= steps if steps is not None else elapsed >= budget:  # type: ignore[operator]
            break
        if pause_after is not None and elapsed - before >= pause_after * 60:
            if leads:
                _save_checkpoint(out, stage, optimizer, generator, step, elapsed)
                _export(stage, optimizer, out, config)
            return {}
        progress = step / steps if steps is not None else elapsed / budget  # type: ignore[operator]
        lr = learning_rate(config, step, progress)
        try:
            parts = stage.backward(step, generator)
        except Exception:
            if leads and step > first:  # what was learned until now outlives what went wrong
                _export(stage, optimizer, out, config)
            raise
        norm = optimizer.step(lr)
        meter.add({**parts, "grad": norm})
        step += 1
        if is_due("log", config.log_every) or (leads and step == first + 1):
            _stop_if_not_finite(optimizer, config, step)
            meter.write(step, lr, progress, elapsed)
        if is_due("validate", config.validate_every):
            _stop_if_not_finite(optimizer, config, step)
            _validate(stage, optimizer, out, meter, step)
        if is_due("export", config.export_every):
            _stop_if_not_finite(optimizer, config, step)
            _export(stage, optimizer, out, config)
        if is_due("checkpoint", config.checkpoint_every):
            _stop_if_not_finite(optimizer, config, step)
            _save_checkpoint(out, stage, optimizer, generator, step, elapsed)
    if not leads:
        return {}
    if step > first:
        _stop_if_not_finite(optimizer, config, step)
        meter.write(step, lr, 1.0, elapsed)
    if config.checkpoint_every:
        _save_checkpoint(out, stage, optimizer, generator, step, before + clock() - started)
    _export(stage, optimizer, out, config)
    return _validate(stage, optimizer, out, meter, step)


def trained(modules: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Every parameter that takes a gradient, under "module.parameter"."""
    return {f"{m}.{n}": p for m, module in modules.items() for n, p in module.named_parameters() if p.requires_grad}


def _stop_if_not_finite(optimizer: MasterOptimizer, config: LoopConfig, step: int) -> None:
    if optimizer.skipped.item() > config.skips:
        raise FloatingPointError(
            f"the gradient was not finite in {int(optimizer.skipped.item())} of the steps up to {step}, "
            f"more than the {config.skips} allowed; those steps changed no weight"
        )


def _validate(stage: Stage, optimizer: MasterOptimizer, out: Path, meter: "_Meter", step: int) -> dict[str, float]:
    with optimizer.averaged(), torch.no_grad():
        stage.measure()
        metrics, picture = stage.validate()
    if picture is not None:
        write_png(out / "samples.png", picture)
    meter.write_metrics(step, metrics)
    return metrics


def _export(stage: Stage, optimizer: MasterOptimizer, out: Path, config: LoopConfig) -> None:
    with optimizer.averaged(), torch.no_grad():
        stage.measure()
        tensors = {f"{m}.{n}": t for m, module in stage.modules.items() for n, t in module.state_dict().items()}
    save_export(out, tensors | optimizer.averages, config.shard_mib)


class _Meter:
    """Means of the logged values between two lines; a line of text and a line of JSON each time."""

    def __init__(self, out: Path, clock: Callable[[], float], step: int):
        self.path, self.clock, self.last = out / "log.jsonl", clock, (clock(), step)
        self.values: dict[str, list[Tensor | float]] = {}

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)

    def write(self, step: int, lr: float, progress: float, elapsed: float) -> None:
        if not self.values:
            return
        now = self.clock()
        means = {n: torch.tensor([float(v) for v in vs]).mean().item() for n, vs in self.values.items()}
        rate = (step - self.last[1]) / max(now - self.last[0], 1e-9)
        rates = {"clips_per_s": means.pop("clips") * rate} if "clips" in means else {"steps_per_s": rate}
        self.values, self.last = {}, (now, step)
        left = elapsed / progress - elapsed if progress > 0 else 0.0
        text = "  ".join(f"{n} {v:.4g}" for n, v in means.items())
        speed = "  ".join(f"{v:.1f} {n.replace('_per_', '/')}" for n, v in rates.items())
        print(f"step {step}  {text}  lr {lr:.2e}  {speed}  {left:.0f} s left", flush=True)
        self._append({"step": step, "elapsed": elapsed, "lr": lr, **rates, **means})

    def write_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        width = max((len(n) for n in metrics), default=0)
        table = [f"  {n:<{width}}  {v:.3f}" for n, v in metrics.items()]
        print("\n".join([f"held out, step {step}", *table]), flush=True)
        self._append({"step": step, "metrics": dict(metrics)})

    def _append(self, line: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def save_export(out: Path, tensors: Mapping[str, Tensor], shard_mib: float = 15.0) -> list[Path]:
    """Weights by name as safetensors of at most shard_mib each: fp16, but for tensors with one axis, float32."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in sorted(tensors.items()):
        stored = tensor.detach().cpu()
        if stored.is_floating_point():
            stored = stored.to(torch.float16 if stored.ndim > 1 else torch.float32)
        stored = stored.contiguous().clone()
        if size and size + stored.nbytes > shard_mib * 2**20:
            shards.append({})
            size = 0
        shards[-1][name] = stored
        size += stored.nbytes
    for old in out.glob("ema-*.safetensors"):
        old.unlink()
    paths = [out / f"ema-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for path, shard in zip(paths, shards, strict=True):
        save_file(shard, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)
    return paths


def load_export(folder: Path) -> dict[str, Tensor]:
    """The weights that `save_export` wrote to a folder, merged, or those of a model folder, as "module.parameter"."""
    if (folder / "dit.safetensors").is_file():
        parts = {name: load_file(folder / f"{name}.safetensors") for name in ("dit", "codec")}
        return {f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.items()}
    paths = sorted(folder.glob("ema-*.safetensors"))
    expected = int(paths[0].stem.split("-")[-1]) if paths else 1
    if len(paths) != expected:
        raise ValueError(f"{folder}: expected {expected} files ema-*.safetensors, got {[p.name for p in paths]}")
    return {name: tensor for path in paths for name, tensor in load_file(path).items()}


def load_weights(modules: Mapping[str, nn.Module], weights: Mapping[str, Tensor]) -> None:
    """Fill modules from names "module.parameter"; each module's own names must all be there."""
    for prefix, module in modules.items():
        own = {n.removeprefix(f"{prefix}."): t for n, t in weights.items() if n.startswith(f"{prefix}.")}
        module.load_state_dict(own)


def _save_checkpoint(
    out: Path, stage: Stage, optimizer: MasterOptimizer, generator: torch.Generator, step: int, elapsed: float
) -> None:
    state = {
        "step": step,
        "elapsed": elapsed,
        "optimizer": optimizer.state_dict(),
        "generator": generator.get_state(),
        "torch_rng": torch.get_rng_state(),
        "stage": stage.state_dict(),
        "modules": {name: module.state_dict() for name, module in stage.modules.items()},
    }
    torch.save(state, out / "checkpoint.part")
    os.replace(out / "checkpoint.part", out / "checkpoint.pt")


def _load_checkpoint(
    out: Path, stage: Stage, optimizer: MasterOptimizer, generator: torch.Generator
) -> tuple[int, float]:
    path = out / "checkpoint.pt"
    if not path.exists():
        raise ValueError(f"resume: expected {path}, got no such file")
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, module in stage.modules.items():
        module.load_state_dict(state["modules"][name])
    optimizer.load_state_dict(state["optimizer"])
    if parallel.rank() == 0:
        generator.set_state(state["generator"])
    else:  # the checkpoint is the first process's; the others must not draw the same clips
        generator.manual_seed(generator.initial_seed() + state["step"])
    torch.set_rng_state(state["torch_rng"])
    stage.load_state_dict(state["stage"])
    return state["step"], state["elapsed"]

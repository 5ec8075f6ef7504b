"""python -m sana_streaming.train RECIPE.json --pack PACK --out OUT: train one stage from its recipe.

On several GPUs: torchrun --standalone --nproc-per-node N -m sana_streaming.train ...; every process takes a batch of
its own, and they step together.
"""

import argparse
import importlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sana_streaming.config import from_dict, to_dict
from sana_streaming.train import parallel
from sana_streaming.train.loop import LoopConfig, train

STAGES = {
    "codec": "sana_streaming.train.stages.codec:CodecStage",
    "flow": "sana_streaming.train.stages.flow:FlowStage",
}


@dataclass(frozen=True)
class Recipe:
    """A training run as a file: which stage, how long, and every number that differs from its default."""

    stage: str
    minutes: float
    seed: int = 0
    loop: LoopConfig = field(default_factory=LoopConfig)
    config: dict[str, Any] = field(default_factory=dict)  # of the stage
    tiny: dict[str, Any] = field(default_factory=dict)  # what --tiny changes: "loop.lr"-like names -> values


def load_stage(name: str) -> Any:
    if name not in STAGES:
        raise ValueError(f"stage: expected one of {sorted(STAGES)}, got {name!r}")
    module, _, cls = STAGES[name].partition(":")
    return getattr(importlib.import_module(module), cls)


def apply_override(recipe: dict[str, Any], name: str, value: Any) -> None:
    """Set recipe["a"]["b"] = value for the name "a.b"."""
    *path, last = name.split(".")
    for key in path:
        recipe = recipe.setdefault(key, {})
    recipe[last] = value


def parse_override(text: str) -> tuple[str, Any]:
    """ "config.batch=2" -> ("config.batch", 2); values are JSON, or plain text where they are not."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set: expected name=value, got {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def main(argv: list[str] | None = None) -> dict[str, float]:
    started = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m sana_streaming.train", description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--pack", type=Path, required=True, help="folder of training data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, help="instead of the recipe's")
    parser.add_argument("--steps", type=int, help="train for so many steps instead of minutes")
    parser.add_argument("--pause-after", type=float, metavar="MINUTES", help="stop early, to --resume another time")
    parser.add_argument("--init", type=Path, help="folder of a run or model to start from")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/checkpoint.pt")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the whole road on a CPU")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="e.g. loop.lr=5e-4")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    device = parallel.start(torch.device(args.device))

    values = json.loads(args.recipe.read_text())
    tiny = values.get("tiny", {}) if args.tiny else {}
    for name, value in [*tiny.items(), *map(parse_override, args.set)]:
        apply_override(values, name, value)
    recipe = from_dict(Recipe, values)
    cls = load_stage(recipe.stage)
    config = from_dict(cls.config_type, recipe.config)
    args.out.mkdir(parents=True, exist_ok=True)
    resolved = to_dict(recipe) | {"config": to_dict(config)}
    (args.out / "config.json").write_text(json.dumps(resolved, indent=2) + "\n")
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(recipe.seed)
    stage = cls(config, args.pack, device, recipe.seed)
    minutes = None if args.steps is not None else args.minutes or recipe.minutes
    metrics = train(
        stage, args.out, recipe.loop, device=device, seed=recipe.seed, steps=args.steps, minutes=minutes,
        started=started, init=args.init, resume=args.resume, pause_after=args.pause_after,
    )  # fmt: skip
    parallel.stop()
    return metrics


if __name__ == "__main__":
    main()

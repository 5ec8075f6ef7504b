"""python -m sana_streaming.train.ship: make a model folder of the averaged weights of both stages.

With --before, the transformer is a mean of its weights before a stretch of training and after it (Wortsman et al. 2022,
arXiv 2109.01903): on what a stretch did not teach, that can be better than either.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from sana_streaming import checkpoint
from sana_streaming.config import PRESETS, TaughtEdit
from sana_streaming.data.edits import EDITS
from sana_streaming.train.loop import load_export


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m sana_streaming.train.ship", description=__doc__)
    parser.add_argument("--codec", type=Path, required=True, help="folder of the codec's export")
    parser.add_argument("--flow", type=Path, required=True, help="folder of the transformer's export")
    parser.add_argument("--before", type=Path, help="folder of a model: mix the transformer with its own")
    parser.add_argument("--share", type=float, help="of --flow in that mix, between 0 and 1 (default: 0.5)")
    parser.add_argument("--preset", default="nano", choices=sorted(PRESETS))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    if args.share is not None and not args.before:
        parser.error(f"--share {args.share:g}: expected --before FOLDER, too, the weights to mix with")

    taught = {name: TaughtEdit(edit.kind, edit.example, edit.strong, edit.choices) for name, edit in EDITS.items()}
    config = replace(PRESETS[args.preset](), edits=taught)
    weights = {name: _module(folder, name) for name, folder in (("dit", args.flow), ("codec", args.codec))}
    if args.before:
        weights["dit"] = mixed(_module(args.before, "dit"), weights["dit"], 0.5 if args.share is None else args.share)
    checkpoint.save(args.out, config, weights["dit"], weights["codec"])
    size = sum(path.stat().st_size for path in args.out.glob("*.safetensors"))
    print(f"{args.out}: {size / 1e6:.1f} MB")


def mixed(before: dict[str, Tensor], after: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """(1 - share) * before + share * after, in the precision of `after`. ValueError for a share that is none, or for
    weights that are not of one model."""
    if not 0 <= share <= 1:
        raise ValueError(f"--share: expected a number between 0 and 1, got {share}")
    shapes = [{name: tuple(weight.shape) for name, weight in weights.items()} for weights in (before, after)]
    if shapes[0] != shapes[1]:
        unlike = sorted(name for name in {*before, *after} if shapes[0].get(name) != shapes[1].get(name))
        raise ValueError(f"--before: expected the weights that --flow has, got others: {', '.join(unlike[:3])}, ...")
    return {
        name: ((1 - share) * before[name].float() + share * weight.float()).to(weight.dtype)
        for name, weight in after.items()
    }


def _module(folder: Path, name: str) -> dict[str, Tensor]:
    """The weights of one module of an export, without its prefix. ValueError if there are none."""
    weights = {k.removeprefix(f"{name}."): v for k, v in load_export(folder).items() if k.startswith(f"{name}.")}
    if not weights:
        raise ValueError(f"{folder}: expected weights named {name}.*, found none")
    return weights


if __name__ == "__main__":
    main()

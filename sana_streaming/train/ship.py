"""python -m sana_streaming.train.ship: make a model folder of the averaged weights of both stages."""

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
    parser.add_argument("--preset", default="nano", choices=sorted(PRESETS))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)

    taught = {name: TaughtEdit(edit.kind, edit.example, edit.strong, edit.choices) for name, edit in EDITS.items()}
    config = replace(PRESETS[args.preset](), edits=taught)
    weights = {name: _module(folder, name) for name, folder in (("dit", args.flow), ("codec", args.codec))}
    checkpoint.save(args.out, config, weights["dit"], weights["codec"])
    size = sum(path.stat().st_size for path in args.out.glob("*.safetensors"))
    print(f"{args.out}: {size / 1e6:.1f} MB")


def _module(folder: Path, name: str) -> dict[str, Tensor]:
    """The weights of one module of an export, without its prefix. ValueError if there are none."""
    weights = {k.removeprefix(f"{name}."): v for k, v in load_export(folder).items() if k.startswith(f"{name}.")}
    if not weights:
        raise ValueError(f"{folder}: expected weights named {name}.*, found none")
    return weights


if __name__ == "__main__":
    main()

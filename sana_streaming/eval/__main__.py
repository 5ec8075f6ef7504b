"""python -m sana_streaming.eval PACK --out FOLDER: what a model can do, on held-out material, in numbers and pictures.

FOLDER gets numbers.json, tables.md and contact sheets.
"""

import argparse
import json
import math
import sys
import textwrap
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sana_streaming.data.edits import EDITS
from sana_streaming.eval.bars import bars
from sana_streaming.eval.evaluate import Findings, evaluate
from sana_streaming.eval.measure import Score, flat, merged
from sana_streaming.eval.results import Results, mean
from sana_streaming.eval.sheets import write_sheets
from sana_streaming.eval.tables import bar_table, edit_tables

QUICK = {"rendered": 2, "real": 2, "scenes": 8, "chunks": 72}
FULL = {"rendered": 6, "real": 6, "scenes": 24, "chunks": 240}


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    try:
        run(args)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


def run(args: argparse.Namespace) -> None:
    start = time.monotonic()
    found = evaluate(args)
    scores = merged(flat(batch.scores for batch in found.batches))
    streams = flat(found.streams)
    results = Results(scores, args.steps)
    rows = bars(results, streams)
    args.out.mkdir(parents=True, exist_ok=True)
    write_sheets(args.out, flat(batch.samples for batch in found.batches))
    used = settings(args, found)
    record = {"settings": used, "bars": [asdict(bar) for bar in rows], "scores": [as_json(score) for score in scores]}
    record["long_streams"] = [asdict(stream) for stream in streams]
    (args.out / "numbers.json").write_text(json.dumps(record, allow_nan=False) + "\n")
    first = bar_table(rows, results)
    (args.out / "tables.md").write_text(f"{first}\n{notes(used)}\n{edit_tables(results)}")
    print(first)
    print(f"{time.monotonic() - start:.0f} s; numbers, tables and contact sheets are in {args.out}", file=sys.stderr)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sana_streaming.eval", description=__doc__)
    parser.add_argument("pack", type=Path, help="folder of packed data, with its held-out part")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--device", nargs="+", default=[None], help="several, cuda:0 cuda:1, share the work")
    parser.add_argument("--size", type=int, default=256, help="short side of the clips")
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--frames", type=int, default=48, help="of each clip")
    parser.add_argument("--edits", nargs="+", default=list(EDITS), choices=list(EDITS), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="fewer clips and a shorter stream")
    parser.add_argument("--rendered", type=int, help="rendered clips under looks and weather")
    parser.add_argument("--real", type=int, help="real clips under looks and weather")
    parser.add_argument("--scenes", type=int, help="clips of each other edit")
    parser.add_argument("--chunks", type=int, help="of the long streams; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    for name, value in (QUICK if args.quick else FULL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def settings(args: argparse.Namespace, found: Findings) -> dict[str, Any]:
    own = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    used = {"hardware": found.hardware, "dtype": found.dtype, "torch": torch.__version__, "features": found.features}
    return own | used


def as_json(score: Score) -> dict[str, Any]:
    """JSON knows no NaN."""
    values = [None if math.isnan(value) else value for value in score.values]
    average = mean(score.values)
    return asdict(score) | {"mean": None if math.isnan(average) else average, "values": values}


def notes(used: dict[str, Any]) -> str:
    """What the tables rest on."""
    text = """`{model}` on {hardware}, {dtype}, seed {seed}; clips of {frames} frames of {size} pixels, edited chunk by
        chunk: {rendered} rendered and up to {real} real ones for each look and weather, {scenes} for every other edit.
        Training saw none of the photos, clips and phrasings, and of the objects only those that are put in. Unedited:
        what doing nothing scores; truth through the codec: what no model can beat by much. Means over looks leave out
        "unchanged", snow and rain. New objects are recognised by {features} among {names} names."""
    filled = text.format(**used, names=len(EDITS["add"].choices))
    return textwrap.fill(" ".join(filled.split()), 120) + "\n"


if __name__ == "__main__":
    main()

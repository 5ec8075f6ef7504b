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
from torch import Generator

from sana_streaming.data.bank import Bank, load_bank
from sana_streaming.data.edits import EDITS
from sana_streaming.data.prompts import Prompts
from sana_streaming.eval.bars import bars
from sana_streaming.eval.cases import Amount, cases
from sana_streaming.eval.drift import LongStream, long_sources, long_streams
from sana_streaming.eval.edits import bounds
from sana_streaming.eval.features import load_extractor
from sana_streaming.eval.measure import Sample, Score, measure, metrics
from sana_streaming.eval.recognition import Recogniser
from sana_streaming.eval.results import Results, mean
from sana_streaming.eval.sheets import write_sheets
from sana_streaming.eval.tables import bar_table, edit_tables
from sana_streaming.stream.editor import Editor

QUICK = {"rendered": 2, "real": 2, "scenes": 8, "chunks": 72}
FULL = {"rendered": 6, "real": 6, "scenes": 24, "chunks": 240}
PIXELS_AT_ONCE = 48 * 256 * 256  # of one frame of each clip
FILM_FRAMES = 800  # of the held-out part


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    try:
        run(args)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


def run(args: argparse.Namespace) -> None:
    start = time.monotonic()
    editor = Editor.load(args.model, args.device)
    bank = load_bank(args.pack, "val", editor.device, film_frames=FILM_FRAMES)
    with torch.inference_mode():
        scores, samples, streams, extractor = evaluate(editor, bank, args)
    results = Results(scores, args.steps)
    rows = bars(results, streams)
    args.out.mkdir(parents=True, exist_ok=True)
    write_sheets(args.out, samples)
    used = settings(args, editor, extractor)
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
    parser.add_argument("--device", default=None)
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


def evaluate(
    editor: Editor, bank: Bank, args: argparse.Namespace
) -> tuple[list[Score], list[Sample], list[LongStream], str]:
    extractor = load_extractor(editor.device)
    if extractor.name != "EfficientNet-Lite0":
        print(f"objects are recognised by {extractor.name}: install the extra `eval` for a network", file=sys.stderr)
    prompts = Prompts(editor.encode_text, editor.device)
    amount = Amount(args.frames, args.rendered, args.real, args.scenes)
    edges = bounds(editor, args.frames)
    recogniser = Recogniser(bank, extractor, args.size, Generator().manual_seed(args.seed))
    progress = Progress(clips_of(args), args.chunks * len(args.steps))
    streams: list[LongStream] = []
    if args.chunks:
        sources = long_sources(bank, args.size, args.frames, args.seed)
        for n in args.steps:
            streams += long_streams(editor, prompts, sources, args.chunks, n, progress.chunk)
    scores, samples = measure(
        editor,
        prompts,
        cases(bank, args.size, amount, args.edits, args.seed),
        args.steps,
        metrics(recogniser, edges),
        PIXELS_AT_ONCE,
        on_batch=progress.clips,
    )
    progress.end()
    return scores, samples, streams, extractor.name


class Progress:
    """A line on stderr with the time that is left."""

    LONG_CHUNK = 0.5  # a chunk of the long streams takes about half as long as a clip

    def __init__(self, clips: int, chunks: int):
        self.total, self.done, self.start = clips + self.LONG_CHUNK * chunks, 0.0, time.monotonic()

    def clips(self, count: int) -> None:
        self._show(count)

    def chunk(self) -> None:
        self._show(self.LONG_CHUNK)

    def _show(self, amount: float) -> None:
        self.done += amount
        share = min(1.0, self.done / self.total)
        left = (time.monotonic() - self.start) * (1 / share - 1)
        print(f"\r{share:4.0%}, {left:4.0f} s left", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        print("\r" + " " * 20 + "\r", end="", file=sys.stderr, flush=True)


def clips_of(args: argparse.Namespace) -> int:
    """How many clips are edited, if the pack has as many real ones as are asked for."""
    whole = [EDITS[name] for name in args.edits if EDITS[name].apply is not None]
    forms = sum(1 + len(edit.choices) for edit in whole)
    return forms * args.rendered + len(whole) * args.real + (len(args.edits) - len(whole)) * args.scenes


def settings(args: argparse.Namespace, editor: Editor, extractor: str) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name(editor.device) if editor.device.type == "cuda" else "CPU"
    own = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    dtype = str(next(editor.dit.parameters()).dtype).removeprefix("torch.")
    return own | {"hardware": gpu, "dtype": dtype, "torch": torch.__version__, "features": extractor}


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

"""Everything that is measured of a model, on one device or dealt out over several."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import TypeVar

import torch
from torch import Generator

from sana_streaming.data.bank import load_bank
from sana_streaming.data.edits import EDITS
from sana_streaming.data.prompts import Prompts
from sana_streaming.eval.cases import Amount, batches, cases
from sana_streaming.eval.drift import LongStream, long_sources, long_streams
from sana_streaming.eval.edits import bounds
from sana_streaming.eval.features import load_extractor
from sana_streaming.eval.measure import Measured, measure, metrics
from sana_streaming.eval.recognition import Recogniser
from sana_streaming.stream.editor import Editor, pick_device

PIXELS_AT_ONCE = 24 * 256 * 256  # of one frame of each clip: what is edited together, and dealt out
FILM_FRAMES = 800  # of the held-out part

T = TypeVar("T")


@dataclass(frozen=True)
class Findings:
    batches: list[Measured]
    streams: list[list[LongStream]]  # for each number of steps
    hardware: str
    dtype: str
    features: str


def evaluate(args: argparse.Namespace) -> Findings:
    """The same findings on any number of devices of one kind: each has a process, and takes batches in turn."""
    for device in args.device:
        pick_device(device)  # what is wrong with one is told before any of them begins
    count = len(args.device)
    if count == 1:
        return share(args, 0)
    spawn = get_context("spawn")  # a fork cannot use CUDA
    with ProcessPoolExecutor(count, spawn, initializer=join, initargs=(count,)) as pool:
        parts = list(pool.map(partial(share, args), range(count)))
    measured, streams = in_turn([part.batches for part in parts]), in_turn([part.streams for part in parts])
    hardware = ", ".join(dict.fromkeys(part.hardware for part in parts))
    return Findings(measured, streams, hardware, parts[0].dtype, parts[0].features)


def join(processes: int) -> None:
    """Become one of several that share this machine: of its threads, too, which would wait for each other otherwise."""
    follow_parent()
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))


def follow_parent() -> None:
    """End this process as soon as the one that started it is gone: one that is killed tells nobody."""
    parent = parent_process()
    if parent is None:
        raise ValueError("expected a process that another one started, this is the first")

    def follow() -> None:
        parent.join()
        os._exit(1)

    Thread(target=follow, daemon=True).start()


def share(args: argparse.Namespace, number: int) -> Findings:
    """What device `number` does: every batch whose turn it is, and the long streams of as many numbers of steps."""
    count = len(args.device)
    editor = Editor.load(args.model, args.device[number])
    if editor.device.type == "cuda":
        torch.cuda.set_device(editor.device)  # kernels start on the current one
    bank = load_bank(args.pack, "val", editor.device, film_frames=FILM_FRAMES)
    extractor = load_extractor(editor.device)
    if number == 0 and extractor.name != "EfficientNet-Lite0":
        print(f"objects are recognised by {extractor.name}: install the extra `eval` for a network", file=sys.stderr)
    prompts = Prompts(editor.encode_text, editor.device)
    amount = Amount(args.frames, args.rendered, args.real, args.scenes)
    edges = bounds(editor, args.frames)
    steps = args.steps[number::count] if args.chunks else []
    progress = Progress(clips_of(args) / count, args.chunks * len(steps), shown=number == 0)
    with torch.inference_mode():
        recogniser = Recogniser(bank, extractor, args.size, Generator().manual_seed(args.seed))
        sources = long_sources(bank, args.size, args.frames, args.seed) if steps else {}
        streams = [long_streams(editor, prompts, sources, args.chunks, n, progress.chunk) for n in steps]
        groups = batches(cases(bank, args.size, amount, args.edits, args.seed), PIXELS_AT_ONCE)
        own = islice(groups, number, None, count)
        measured = measure(editor, prompts, own, args.steps, metrics(recogniser, edges), on_batch=progress.clips)
    progress.end()
    dtype = str(next(editor.dit.parameters()).dtype).removeprefix("torch.")
    hardware = torch.cuda.get_device_name(editor.device) if editor.device.type == "cuda" else "CPU"
    return Findings(measured, streams, hardware, dtype, extractor.name)


def in_turn(parts: Sequence[Sequence[T]]) -> list[T]:
    """What was dealt out, in its first order."""
    return [part[i] for i in range(max(map(len, parts))) for part in parts if i < len(part)]


class Progress:
    """A line on stderr with the time that is left."""

    LONG_CHUNK = 0.5  # a chunk of the long streams takes about half as long as a clip

    def __init__(self, clips: float, chunks: int, shown: bool):
        self.total, self.done, self.start = clips + self.LONG_CHUNK * chunks, 0.0, time.monotonic()
        self.shown = shown

    def clips(self, count: int) -> None:
        self._show(count)

    def chunk(self) -> None:
        self._show(self.LONG_CHUNK)

    def _show(self, amount: float) -> None:
        self.done += amount
        share = min(1.0, self.done / self.total)
        left = (time.monotonic() - self.start) * (1 / share - 1)
        if self.shown:
            print(f"\r{share:4.0%}, {left:4.0f} s left", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.shown:
            print("\r" + " " * 20 + "\r", end="", file=sys.stderr, flush=True)


def clips_of(args: argparse.Namespace) -> int:
    """How many clips are edited, if the pack has as many real ones as are asked for."""
    whole = [EDITS[name] for name in args.edits if EDITS[name].apply is not None]
    forms = sum(1 + len(edit.choices) for edit in whole)
    return forms * args.rendered + len(whole) * args.real + (len(args.edits) - len(whole)) * args.scenes

"""What a chunk costs when streams share a pass of the model, beside each on its own.

    python benchmarks/together.py                                  # nano at 256x256, 1, 2 and 4 streams
    python benchmarks/together.py --device cuda --streams 1 2 4 8

Alone and together are timed in turn, so that a busy machine slows down both; medians.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

from sana_streaming import Editor
from sana_streaming.bench import machine
from sana_streaming.stream.batch import step_together
from sana_streaming.stream.session import Session

PROMPTS = ("turn it into a watercolor painting", "make it look like a comic", "make it night", "make it snow")
WARM_UP = 8  # chunks, until the windows of attention are full


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds."""
    machine.synchronise(device)
    begin = time.perf_counter()
    work()
    machine.synchronise(device)
    return time.perf_counter() - begin


def compare(editor: Editor, streams: int, size: tuple[int, int], chunks: int, seed: int) -> tuple[float, float]:
    """Seconds for a chunk of each stream: one after the other, and in one pass."""

    def sessions() -> list[Session]:
        return [editor.session(PROMPTS[i % len(PROMPTS)], seed=seed + i) for i in range(streams)]

    alone, together = sessions(), sessions()
    generator, (width, height) = torch.Generator().manual_seed(seed), size
    apart, shared = [], []
    for number in range(WARM_UP + chunks):
        shape = (alone[0].chunk_frames, height, width, 3)
        frames = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in alone]
        one = timed(lambda frames=frames: [s.step(x) for s, x in zip(alone, frames, strict=True)], editor.device)
        all_ = timed(lambda frames=frames: outcomes(step_together(together, frames)), editor.device)
        if number >= WARM_UP:
            apart.append(one / streams)
            shared.append(all_ / streams)
    return median(apart), median(shared)


def outcomes(edited: Sequence[torch.Tensor | Exception]) -> None:
    for one in edited:
        if isinstance(one, Exception):
            raise one


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--device")
    parser.add_argument("--size", default="256x256", help="WIDTHxHEIGHT")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--chunks", type=int, default=30, help="that are timed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    width, height = (int(side) for side in options.size.split("x"))
    editor = Editor.load(options.model, options.device)
    where = machine.describe(editor.device)
    print(", ".join((str(where["gpu"] or where["cpu"]), f"{where['threads']} threads", f"commit {where['commit']}")))
    print(f"{options.model} at {options.size}, {options.chunks} chunks, seed {options.seed}")
    print("streams  ms of a chunk alone  together  difference")
    for streams in options.streams:
        print(f"{streams} streams ...", file=sys.stderr, flush=True)
        apart, shared = compare(editor, streams, (width, height), options.chunks, options.seed)
        change = 100 * (shared / apart - 1)
        print(f"{streams:7}  {1000 * apart:19.1f}  {1000 * shared:8.1f}  {change:+9.0f} %", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

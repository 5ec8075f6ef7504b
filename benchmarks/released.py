"""The released model at full size with random weights: how fast it is on a GPU, how much memory it takes, and whether
a stream of many chunks stays within it.

    python benchmarks/released.py --json released.json
    python benchmarks/released.py --tiny --device cpu --endless 24

Chunks go the road of every stream, `Session.step`, without a compiler. Stages are timed twice, by events on the GPU and
by the clock with a wait at every border between them. The endless stream is the transformer's alone, one step and the
commit for each chunk. The exit status is 1 if its memory changed, if it was no longer finite or if memory ran out.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from released_measures import (
    DTYPE,
    STAGES,
    Reading,
    conversions,
    device_memory,
    endless,
    product_rate,
    random_editor,
    stages,
    tiny,
    verdict,
    whole_road,
)
from torch import Tensor

from sana_streaming.bench import machine
from sana_streaming.config import PRESETS, ModelConfig, two_b
from sana_streaming.stream import memory
from sana_streaming.stream.editor import Editor, pick_device

SIZE, TINY_SIZE = (1280, 704), (96, 64)
# Of the 2 B model at 1280x704, for a chunk of 24 frames, the transformer in 5 passes: arithmetic, and milliseconds that
# it takes at the rates that products and channels-last convolutions of these shapes were seen to reach on an H100.
TFLOP = {"encode": 63.0, "transformer": 57.9, "decode": 27.0}
FLOOR = {"encode": 90.0, "transformer": 105.0, "decode": 39.0}


class Log:
    """Results as they come: told at once, and written to a file anew after each."""

    def __init__(self, path: Path | None, results: dict[str, Any]):
        self.path, self.results = path, results
        self.begin = time.perf_counter()
        self._save()

    def add(self, result: Any, told: str, *keys: str) -> None:
        """Sets results[keys[0]][keys[1]]..."""
        *outer, last = keys
        place = self.results
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = result
        print(f"{time.perf_counter() - self.begin:6.1f} s  {', '.join(keys)}: {told}", flush=True)
        self._save()

    def _save(self) -> None:
        if self.path is not None:
            self.path.write_text(json.dumps(self.results, indent=2) + "\n")


def measure(config: ModelConfig, arguments: argparse.Namespace, log: Log) -> list[Reading]:
    """Everything, in this order: a stream's memory is measured before anything else has claimed some. The readings of
    the endless stream, if there was one."""
    device, size, chunks = arguments.device, arguments.size, arguments.chunks
    rate = product_rate(device)
    log.add(rate, f"{rate:.3g} TFLOP/s", "matrix_product_tflops")
    editor, video = measure_memory(config, size, device, log)
    kinds = ("gpu", "wall") if device.type == "cuda" else ("wall",)
    for steps in dict.fromkeys((arguments.steps, 2)):
        whole = whole_road(editor, video, steps=steps, chunks=chunks)
        told = f"{whole['milliseconds']:.1f} ms a chunk, {whole['frames_per_second']:.1f} frames/s"
        log.add(whole, told, "steps", str(steps), "whole")
        for kind in kinds:
            spans = stages(editor, video, steps=steps, chunks=chunks, kind=kind)
            log.add(spans, listed(spans), "steps", str(steps), kind)
    for kind in kinds:
        spans = conversions(editor, video, chunks=chunks, kind=kind)
        log.add(spans, listed(spans), "conversions", kind)
    readings: list[Reading] = []
    grid = size[1] // editor.stride, size[0] // editor.stride
    with torch.inference_mode():
        for now in endless(config, editor.dit, grid, arguments.endless, log.begin + arguments.seconds):
            readings.append(now)
            log.add([asdict(r) for r in readings], str(now), "endless")
    estimate = memory.estimate(config, size, DTYPE)
    estimated = {**asdict(estimate), "total": estimate.total}
    log.add(estimated, sizes(estimated), "memory", "estimated")
    return readings


def measure_memory(config: ModelConfig, size: tuple[int, int], device: torch.device, log: Log) -> tuple[Editor, Tensor]:
    """The model and frames [F, H, W, 3] enough for any chunk, which the rest is measured with."""
    on_gpu, before = device.type == "cuda", 0
    if on_gpu:
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
        free, total = torch.cuda.mem_get_info(device)
        log.add(total - free, gigabytes(total - free), "memory", "driver_used_before")
    editor, sampler = random_editor(config, device), config.sampler
    weights = torch.cuda.memory_allocated(device) - before if on_gpu else 0
    longest = max(editor.codec.frames_of(sampler.first_chunk, True), editor.codec.frames_of(sampler.chunk, False))
    shape = (longest, size[1], size[0], 3)
    video = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if on_gpu:
        measured = device_memory(editor, video, weights)
        log.add(measured, sizes(measured), "memory", "measured")
    return editor, video


def tables(results: dict[str, Any], config: ModelConfig, size: tuple[int, int]) -> list[str]:
    """Milliseconds of a chunk by stage, and gigabytes beside the estimate."""
    about, (width, height) = results["machine"], size
    lines = [
        f"{about['gpu'] or about['cpu']}, torch {about['torch']}, commit {about['commit']}",
        f"{config.name} at {width}x{height}, bfloat16, random weights; medians of {results['chunks']} chunks",
    ]
    frames = config.sampler.chunk * config.codec.frames_per_latent
    known = config == two_b() and size == SIZE
    for steps, part in results["steps"].items():
        lines.append("")
        lines += speed_table(int(steps), part, frames, known)
    lines += ["", *memory_table(results["memory"])]
    return lines


def speed_table(steps: int, part: dict[str, Any], frames: int, known: bool) -> list[str]:
    """known: the arithmetic of the stages is."""
    kinds = [kind for kind in ("gpu", "wall") if kind in part]
    blank = [""] * (2 - len(kinds))
    lines = [row(f"{steps} steps", *(f"{kind} ms" for kind in kinds), *blank, "frames/s", "TFLOP/s", "floor ms")]
    for stage in STAGES:
        times = [part[kind][stage] for kind in kinds]
        share = (steps + 1) / 5 if stage == "transformer" else 1.0
        cells = [*(f"{t:.2f}" for t in times), *blank]
        if stage in TFLOP:
            cells.append(f"{1000 * frames / times[0]:.1f}")
        if stage in TFLOP and known:
            cells += [f"{1000 * TFLOP[stage] * share / times[0]:.0f}", f"{FLOOR[stage] * share:.0f}"]
        lines.append(row(stage, *cells))
    whole = part["whole"]
    sums = [f"{sum(part[kind][stage] for stage in STAGES):.2f}" for kind in kinds]
    lines.append(row("sum", *sums))
    lines.append(row("whole road", "", f"{whole['milliseconds']:.2f}", f"{whole['frames_per_second']:.1f}"))
    return lines


def memory_table(parts: dict[str, Any]) -> list[str]:
    estimated, measured = parts["estimated"], parts.get("measured")
    if measured is None:
        return [row("memory, GB", "estimated"), *(row(name, f"{b / 1e9:.3f}") for name, b in estimated.items())]
    lines = [row("memory, GB", "estimated", "measured", "ratio")]
    for name, expected in estimated.items():
        got = measured[name]
        lines.append(row(name, f"{expected / 1e9:.3f}", f"{got / 1e9:.3f}", f"{expected / got:.3f}"))
    lines.append(row("reserved", "", f"{measured['reserved'] / 1e9:.3f}"))
    lines.append(row("by the driver", "", f"{measured['driver_used'] / 1e9:.3f}"))
    return lines


def row(name: str, *cells: str) -> str:
    return f"{name:<14}" + "".join(f"{cell:>11}" for cell in cells)


def listed(milliseconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in milliseconds.items()) + " ms"


def sizes(parts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {gigabytes(parts[name])}" for name in ("weights", "state", "activations", "total"))


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.3f} GB"


def size_of(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, got {text!r}")
    return int(width), int(height)


def check_size(size: tuple[int, int], stride: int) -> None:
    if any(side % stride or side < 2 * stride for side in size):
        raise ValueError(f"expected a size in multiples of {stride}, at least {2 * stride}, got {size[0]}x{size[1]}")


def at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a number of at least {least}, got {text!r}")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="2b")
    parser.add_argument("--tiny", action="store_true", help="a small model of the same kind, to try this on a CPU")
    parser.add_argument("--size", type=size_of, help="WIDTHxHEIGHT; 1280x704 if not given, 96x64 with --tiny")
    parser.add_argument("--steps", type=partial(at_least, 1), default=4, help="2 steps are measured as well")
    parser.add_argument("--chunks", type=partial(at_least, 1), default=12, help="that medians are taken over")
    parser.add_argument("--endless", type=partial(at_least, 0), default=1000, help="chunks of the endless stream")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="from the start; that stream then stops")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything, written anew after each part")
    parser.add_argument("--device", help="the GPU if there is one")
    arguments = parser.parse_args(argv)
    arguments.size = arguments.size or (TINY_SIZE if arguments.tiny else SIZE)
    config = tiny() if arguments.tiny else PRESETS[arguments.preset]()
    try:
        arguments.device = pick_device(arguments.device)
        check_size(arguments.size, config.codec.stride)
    except ValueError as error:
        parser.error(str(error))
    results = {
        "command": " ".join(["python benchmarks/released.py", *(sys.argv[1:] if argv is None else argv)]),
        "machine": machine.describe(arguments.device),
        "model": config.name,
        "size": list(arguments.size),
        "chunks": arguments.chunks,
    }
    log = Log(arguments.json, results)
    try:
        readings = measure(config, arguments, log)
    except torch.OutOfMemoryError:
        print(memory.out_of_memory(config, arguments.size, DTYPE, arguments.device), file=sys.stderr)
        return 1
    print("\n" + "\n".join(tables(log.results, config, arguments.size)), flush=True)
    wrong = verdict(readings)
    if readings:
        fine = "all finite, memory constant" if len(readings) > 1 else "all finite, too few to compare memory"
        print(f"endless: {readings[-1].chunks} of {arguments.endless} chunks, {wrong or fine}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

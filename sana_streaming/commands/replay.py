"""`sana-streaming replay`: make the frames of a recording again."""

import argparse
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

PRECISIONS = ("float32", "bfloat16")

if TYPE_CHECKING:
    from sana_streaming.io import Sound, Writer
    from sana_streaming.stream.editor import Editor
    from sana_streaming.stream.log import Log
    from sana_streaming.stream.replay import Piece


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", metavar="LOG", type=Path, help="the folder of a recording, or its session.jsonl")
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="where the result goes: .mp4, .mov or .mkv (default: it is only checked)"
    )
    parser.add_argument("--model", metavar="NAME", help="a shipped model or a folder (default: as recorded)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="of the model's numbers (default: what is fast on the device)"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps (default: as recorded)")
    parser.add_argument("--device", metavar="NAME", help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument("--compare", action="store_true", help="show source and edited side by side; needs -o")


def run(args: argparse.Namespace) -> int:
    """Replay, and say whether the frames are those of the recording, bit for bit."""
    if args.compare and args.output is None:
        raise ValueError("--compare: expected -o OUT as well, since it shows something")
    if args.steps is not None and args.steps < 1:
        raise ValueError(f"--steps: expected a whole number of at least 1, got {args.steps}")
    from sana_streaming.io.writers import check_output
    from sana_streaming.stream.log import header_of, read_log
    from sana_streaming.stream.replay import LOG, SOURCE, differences, pieces

    path = args.log / LOG if args.log.is_dir() else args.log
    if args.output is not None:
        check_output(args.output, path.with_name(SOURCE))
    log = read_log(path)
    if not log.chunks:
        raise ValueError(f"cannot replay {path.name}: expected at least one chunk, got none")
    import torch

    editor = load(args.model or log.header.model, args.device, args.precision)
    if editor.device.type == "cpu" and log.header.threads:
        torch.set_num_threads(log.header.threads)  # sums are then split, and rounded, as they were
    reasons = differences(log.header, header_of(editor))
    if args.steps is not None and any(args.steps != record.steps for record in log.chunks):
        reasons.append(f"{args.steps} steps")
    begin = time.perf_counter()
    checked = Checked(pieces(log, editor, steps=args.steps))
    frames = write(checked, args.output, log, args.compare)
    what = f"{args.output or path.parent.name}: {frames} frame{'' if frames == 1 else 's'}"
    print(f"{what} in {time.perf_counter() - begin:.1f} s, {checked.verdict(reasons)}")
    return 0


def load(model: str, device: str | None, precision: str | None) -> "Editor":
    from sana_streaming.stream import editor

    if precision is None:
        return editor.Editor.load(model, device=device)
    import torch

    from sana_streaming import checkpoint
    from sana_streaming.text import load_encoder

    target = editor.pick_device(device)
    config, dit, codec = checkpoint.load(checkpoint.find(model), target, getattr(torch, precision))
    encoder = load_encoder(config.text, target)
    return editor.Editor(config, dit, codec, encoder, encoder.negative)


class Checked:
    """Pieces as they pass, and whether all were as recorded."""

    def __init__(self, pieces: "Iterator[Piece]"):
        self._pieces = pieces
        self._chunks = 0
        self._other: int | None = None  # the first that is not as recorded
        self._unknown = False

    def __iter__(self) -> "Iterator[Piece]":
        for piece in self._pieces:
            if piece.source:
                self._unknown |= piece.same is None
                if piece.same is False and self._other is None:
                    self._other = self._chunks
                self._chunks += 1
            yield piece

    def verdict(self, reasons: list[str]) -> str:
        """For people, in a line."""
        if self._other is None and not self._unknown:
            return "bit-identical to the recording"
        where = f" from chunk {self._other} on" if self._other else ""
        return f"not bit-identical to the recording{where}: {'; '.join(reasons) or 'nobody knows why'}"


def write(parts: "Checked", output: str | None, log: "Log", compare: bool) -> int:
    """Write the frames of a log, if there is somewhere to; how many there are."""
    import numpy as np
    from tqdm import tqdm

    from sana_streaming.stream.replay import joined

    total = sum(len(record.pts) for record in log.chunks)
    writer, count = None, 0
    try:
        for source, rgb in tqdm(joined(iter(parts)), total=total, unit="frame", disable=None, dynamic_ncols=True):
            if output is not None:
                picture = np.concatenate([source.rgb, rgb], axis=1) if compare else rgb
                writer = writer or open_for(output, log, (picture.shape[1], picture.shape[0]))
                writer.write(replace(source, rgb=picture))
            count += 1
        if writer is not None:
            writer.close()
    except BaseException:
        if writer is not None:
            writer.abort()
        raise
    return count


def open_for(output: str, log: "Log", size: tuple[int, int]) -> "Writer":
    from sana_streaming.io.writers import open_writer

    times = [pts for record in log.chunks for pts in record.pts]
    length = times[-1] - times[0]
    rate = ((len(times) - 1) / length).limit_denominator(1000) if length > 0 else Fraction(25)
    return open_writer(output, rate=rate, size=size, sound=sound_of(log.path.parent, length + 1 / rate))


def sound_of(folder: Path, length: Fraction) -> "Sound | None":
    """Of a recording, from its first chunk on; None if it has none."""
    import av

    from sana_streaming.io.lossless import starts
    from sana_streaming.io.soundtrack import Soundtrack
    from sana_streaming.stream.replay import SOUND, SOURCE

    if not (folder / SOUND).exists():
        return None
    begin = starts(folder / SOURCE)
    try:
        return Soundtrack(folder / SOUND, begin, begin + length, cut=True)
    except (OSError, av.error.FFmpegError) as error:
        warnings.warn(f"{SOUND} cannot be read ({error.strerror}); the result has no sound", stacklevel=2)
        return None

"""`sana-streaming bench`: how fast a model edits on this machine, and where the time goes, measured in one run."""

import argparse
import json
from pathlib import Path
from typing import Any

import sana_streaming

CLIP = Path(sana_streaming.__file__).parents[1] / "assets" / "webcam_talk_a.mp4"  # in a checkout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="nano", help="a shipped model or a folder (default: nano)")
    parser.add_argument("--device", help="cpu or cuda (default: the GPU if there is one)")
    parser.add_argument("--size", type=_size, default=(256, 256), metavar="WxH", help="default: 256x256")
    parser.add_argument("--steps", type=int, help="denoising steps per chunk (default: the model's own)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of the video that is edited (default: 4)")
    parser.add_argument("--input", type=Path, metavar="CLIP", help="video to edit, repeated and cropped to fit")
    parser.add_argument("--repeats", type=int, default=3, help="times that the video is edited (default: 3)")
    parser.add_argument("--chunks", type=int, default=10, help="chunks whose stages are measured (default: 10)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")


def run(args: argparse.Namespace) -> int:
    clip = args.input or CLIP
    if not clip.is_file():
        raise ValueError(f"expected a video to edit, got {clip}, which is not there; pass --input CLIP")
    if min(args.repeats, args.chunks) < 1 or args.seconds <= 0:
        raise ValueError("expected at least one repeat, one chunk and a part of a second")
    import torch

    from sana_streaming.bench.measure import bench
    from sana_streaming.stream.editor import Editor

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    editor = Editor.load(args.model, args.device)
    result = bench(
        editor,
        clip,
        size=args.size,
        steps=args.steps,
        seconds=args.seconds,
        repeats=args.repeats,
        chunks=args.chunks,
        seed=args.seed,
    )
    print(table(result))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def table(result: dict[str, Any]) -> str:
    """A result as text for the terminal."""
    where = result["machine"]
    spread = result["end_to_end_fps_of_each_repeat"]
    rows = [
        (
            "model",
            f"{result['model']}, {result['dtype']}, {result['steps']} steps, chunk {result['chunk_frames'][1]} frames",
        ),
        ("video", f"{result['size'][0]}x{result['size'][1]}, {result['frames']} frames, {result['clip']}"),
        ("machine", f"{where['gpu'] or where['cpu']}, {where['threads']} threads, torch {where['torch']}"),
        ("commit", f"{where['commit'] or 'not from a checkout'}, version {where['version']}"),
        ("", ""),
        ("end to end", f"{result['end_to_end_fps']:8.2f} frames/s  ({min(spread):.2f} to {max(spread):.2f})"),
        *((stage, f"{value:8.2f} ms/frame") for stage, value in result["milliseconds_per_frame"].items()),
        *((f"memory {kind}", f"{value:8.0f} MB at most") for kind, value in result["peak_memory_mb"].items()),
        *((f"{kind} GEMM", f"{value:8.0f} GFLOP/s") for kind, value in result["matrix_product_gflops"].items()),
    ]
    return "\n".join(f"{name:<14}{value}".rstrip() for name, value in rows)


def _size(text: str) -> tuple[int, int]:
    """Of the form 256x256 -> (width, height)"""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT in pixels, such as 256x256, got {text!r}")
    return int(width), int(height)

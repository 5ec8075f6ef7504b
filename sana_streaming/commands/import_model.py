"""`sana-streaming import`: make a model folder of published files, or of a folder in diffusers' style."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FILE", type=Path, help="a published .pth file, or a folder of `export`")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument("--yaml", metavar="FILE", type=Path, help="the published config, for its instruction template")
    parser.add_argument("--vae", metavar="FOLDER", type=Path, help="published folder of the video codec")
    parser.add_argument(
        "--variant", choices=("streaming", "bidirectional"), help="what FILE must hold (default: it tells itself)"
    )
    parser.add_argument(
        "--decode", choices=("causal", "chunk_tile"), help="how the codec decodes (default: as it was trained)"
    )


def run(args: argparse.Namespace) -> int:
    if args.source.is_dir():
        for option in ("yaml", "vae", "variant", "decode"):
            if getattr(args, option) is not None:
                raise ValueError(f"--{option} goes with a published file; {args.source} is a folder, which is complete")
        from sana_streaming.checkpoint import import_diffusers

        config = import_diffusers(args.source, args.out)
        print(f"{args.out}: {config.name}")
        return 0
    if args.decode and not args.vae:
        raise ValueError("--decode goes with --vae FOLDER")
    from sana_streaming.checkpoint import import_published, read_template
    from sana_streaming.config import PRESETS

    config = import_published(
        args.source,
        args.out,
        PRESETS["2b"](),
        variant=args.variant,
        template=read_template(args.yaml) if args.yaml else "",
        vae=args.vae,
        decode=args.decode,
    )
    print(f"{args.out}: {config.name}")
    if not args.yaml:
        print(
            "warning: no --yaml, so no instruction template: results will differ from those published", file=sys.stderr
        )
    if not args.vae:
        print("warning: no --vae, so no video codec: this folder holds the transformer alone", file=sys.stderr)
    return 0

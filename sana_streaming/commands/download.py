"""`sana-streaming download`: fetch a released model."""

import argparse
import sys
from pathlib import Path

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="2b, or 2b-bidirectional for short clips")
    parser.add_argument(
        "out", metavar="OUT", nargs="?", type=Path, help="folder to write (default: where --model NAME finds it)"
    )
    parser.add_argument(
        "--decode",
        metavar="WAY",
        help="causal: frame by frame, for live video; chunk_tile: as the published script does, two latents later "
        "(default: the first, for 2b-bidirectional the second)",
    )
    parser.add_argument(
        "--yaml", metavar="FILE", type=Path, help="the published config, if it cannot be fetched from here"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be fetched and under which licences")


def run(args: argparse.Namespace) -> int:
    from sana_streaming.download import download, parts_of, terms

    if args.dry_run:
        print("\n".join(terms(parts_of(args.name, args.decode))))
        return 0
    try:
        out = download(args.name, args.out, decode=args.decode, yaml=args.yaml)
    except KeyboardInterrupt:
        print("interrupted: run it again to go on from here", file=sys.stderr)
        return INTERRUPTED
    print(f"{out}: ready; use it with --model {args.out or args.name}")
    return 0

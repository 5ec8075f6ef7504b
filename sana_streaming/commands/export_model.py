"""`sana-streaming export`: write a model folder in diffusers' style."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a shipped or downloaded model, or a folder")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write; `import` makes it a model folder again")


def run(args: argparse.Namespace) -> int:
    from sana_streaming.checkpoint import export_diffusers, find

    config = export_diffusers(find(args.model), args.out)
    print(f"{args.out}: {config.name}, in the style of diffusers")
    return 0

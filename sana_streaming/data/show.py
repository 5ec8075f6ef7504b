"""Draws a contact sheet of edits: clips above what becomes of them, with the instruction.

python -m sana_streaming.data.show PACK OUT.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from sana_streaming.data.bank import Bank, load_bank
from sana_streaming.data.batch import render_batch
from sana_streaming.data.edits import EDITS

LABEL = 22  # pixels of the line above a clip
APART = 6  # frames between two moments of a clip


def contact_sheet(
    bank: Bank,
    columns: int,
    clips: int,
    size: int,
    times: int,
    generator: Generator,
    edits: Sequence[str] | None = None,
    held_out: bool = False,
) -> np.ndarray:
    """-> BGR uint8 [H, W, 3]: a tile per clip with `times` moments side by side, sources above targets."""
    frames = 1 + APART * (times - 1)
    tiles = []
    for name in edits or EDITS:
        batch = render_batch(bank, clips, frames, size, size, generator, [name], held_out)
        for source, target, phrase in zip(batch.source, batch.target, batch.phrases, strict=True):
            tiles.append(_tile(f"{name}: {phrase}", torch.stack([source, target])))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def _tile(label: str, videos: Tensor) -> np.ndarray:
    """Videos [R, F, 3, H, W] -> BGR uint8 with a row for each."""
    import cv2

    pictures = videos[:, ::APART].flip(2).clamp(0, 1).mul(255).round().byte().cpu()  # [R, T, 3, H, W]
    picture = pictures.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1).numpy()
    line = np.zeros((LABEL, picture.shape[1], 3), np.uint8)
    cv2.putText(line, label, (4, LABEL - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([line, picture])


def main() -> None:
    import cv2

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--clips", type=int, default=2, help="of each edit")
    parser.add_argument("--times", type=int, default=2, help="moments of each clip")
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--edits", nargs="*", choices=list(EDITS))
    parser.add_argument("--held-out", action="store_true", help="with the phrasings for judging")
    args = parser.parse_args()
    bank = load_bank(args.pack, args.split, film_frames=256)
    generator = torch.Generator().manual_seed(args.seed)
    sheet = contact_sheet(bank, args.columns, args.clips, args.size, args.times, generator, args.edits, args.held_out)
    cv2.imwrite(str(args.out), sheet)


if __name__ == "__main__":
    main()

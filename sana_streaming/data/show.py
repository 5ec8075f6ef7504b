"""Draws a contact sheet of sources and of every edit.

python -m sana_streaming.data.show PACK OUT.png
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from sana_streaming.data.bank import Bank, load_bank
from sana_streaming.data.edits import EDITS
from sana_streaming.data.scenes import render_sources

LABEL = 22  # pixels of the line with the edit's name


def contact_sheet(
    bank: Bank, columns: int, clips: int, size: int, times: int, generator: Generator, edits: list[str] | None = None
) -> np.ndarray:
    """-> BGR uint8 [H, W, 3]: a tile per edit, `clips` sources side by side and `times` moments below each other."""
    frames = 1 + 6 * (times - 1)
    source = render_sources(bank, clips, frames, size, size, generator)
    tiles = [_tile("source", source)]
    tiles += [_tile(name, EDITS[name].apply(source, generator)) for name in edits or EDITS]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def _tile(name: str, video: Tensor) -> np.ndarray:
    import cv2

    pictures = video[:, ::6].flip(2).mul(255).round().byte().cpu()  # [N, T, 3, H, W]
    picture = pictures.permute(1, 3, 0, 4, 2).flatten(2, 3).flatten(0, 1).numpy()
    label = np.zeros((LABEL, picture.shape[1], 3), np.uint8)
    cv2.putText(label, name, (4, LABEL - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([label, picture])


def main() -> None:
    import cv2

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--columns", type=int, default=3)
    parser.add_argument("--edits", nargs="*", choices=list(EDITS))
    args = parser.parse_args()
    bank = load_bank(args.pack, args.split, film_frames=256)
    generator = torch.Generator().manual_seed(args.seed)
    sheet = contact_sheet(bank, args.columns, args.clips, args.size, args.times, generator, args.edits)
    cv2.imwrite(str(args.out), sheet)


if __name__ == "__main__":
    main()

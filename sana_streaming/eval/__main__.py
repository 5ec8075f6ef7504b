"""python -m sana_streaming.eval PACK --out FOLDER: a model on held-out material: codec, edits, a contact sheet."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from sana_streaming import checkpoint
from sana_streaming.data.bank import load_bank
from sana_streaming.data.edits import EDITS
from sana_streaming.eval.codec import measure_codec
from sana_streaming.eval.edits import Sample, Score, held_out_sources, measure
from sana_streaming.stream.editor import pick_device, pick_dtype

SHEET_HEIGHT = 128  # of a cell, pixels


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m sana_streaming.eval", description=__doc__)
    parser.add_argument("pack", type=Path, help="folder of packed data, with its held-out part")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--device", default=None)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--frames", type=int, default=96, help="of each clip")
    parser.add_argument("--photos", type=int, default=4, help="rendered clips")
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--edits", nargs="+", default=list(EDITS), choices=list(EDITS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)

    device = pick_device(args.device)
    config, dit, codec = checkpoint.load(checkpoint.find(args.model), device, pick_dtype(device))
    bank = load_bank(args.pack, "val", device)
    if bank.prompts is None:
        raise SystemExit(f"{args.pack} holds no prompts: pack it again without --no-prompts")
    with torch.inference_mode():
        sources = held_out_sources(bank, args.size, args.frames, args.photos, args.seed)
        through_codec = measure_codec(codec, sources)
        print("\n".join(["codec", *(f"  {name}: {value:.2f}" for name, value in through_codec.items())]), flush=True)
        scores, samples = measure(
            config, dit, codec, bank.prompts, sources, args.steps, args.edits,
            lambda done, total: print(f"\r{done}/{total} edits", end="", file=sys.stderr, flush=True),
        )  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "codec.json").write_text(json.dumps(through_codec, indent=1) + "\n")
    (args.out / "edits.json").write_text(json.dumps([asdict(s) for s in scores], indent=1) + "\n")
    text = table(scores)
    (args.out / "edits.md").write_text(text)
    write_sheet(args.out / "edits.jpg", samples)
    print("\r" + text)


def table(scores: list[Score]) -> str:
    """Markdown: a row for each edit; at the end the means over the edits that have one true result."""
    columns = sorted({(s.material, s.steps) for s in scores}, key=lambda c: (c[0] != "photos", c[1]))
    found = {(s.edit, s.material, s.steps): s for s in scores}
    materials = list(dict.fromkeys(m for m, _ in columns))
    head = [f"{m}, {n} steps" for m, n in columns] + [f"{m}, {k}" for m in materials for k in ("unedited", "codec")]
    lines = [f"| edit | {' | '.join(head)} |", "|" + "---|" * (len(head) + 1)]
    names = list(dict.fromkeys(s.edit for s in scores))
    rows = {}
    for name in names:
        row = [found[name, m, n].edited for m, n in columns]
        for m in materials:
            any_steps = found[name, m, columns[0][1]]
            row += [any_steps.unedited, any_steps.codec]
        rows[name] = row
        mark = " (strong)" if EDITS[name].strong else " (particles)" if EDITS[name].particles else ""
        lines.append(f"| {name}{mark} | {' | '.join(f'{v:.1f}' for v in row)} |")
    for label, chosen in (
        ("mean, one true result", [n for n in names if not EDITS[n].particles]),
        ("mean, strong", [n for n in names if EDITS[n].strong]),
    ):
        if chosen:
            means = [sum(rows[n][i] for n in chosen) / len(chosen) for i in range(len(head))]
            lines.append(f"| **{label}** | {' | '.join(f'**{v:.1f}**' for v in means)} |")
    return "\n".join(lines) + "\n"


def write_sheet(path: Path, samples: list[Sample]) -> None:
    """A line for each edit: for every clip source, truth and edited side by side, with the edit's name."""
    import cv2
    import numpy as np

    def cell(picture: torch.Tensor) -> np.ndarray:
        image = picture.numpy()
        width = round(image.shape[1] * SHEET_HEIGHT / image.shape[0])
        return cv2.resize(image, (width, SHEET_HEIGHT), interpolation=cv2.INTER_AREA)

    lines = []
    for name in dict.fromkeys(s.edit for s in samples):
        cells = [cell(p) for s in samples if s.edit == name for p in (s.source, s.truth, s.edited)]
        label = np.full((SHEET_HEIGHT, 112, 3), 255, np.uint8)
        cv2.putText(label, name, (4, SHEET_HEIGHT // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        lines.append(np.concatenate([label, *cells], axis=1))
    sheet = np.concatenate(lines)
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()

"""Edit the bundled clip with three instructions and show the results beside it. Run by `make demo`."""

import argparse
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from sana_streaming import Editor
from sana_streaming.io.readers import open_reader
from sana_streaming.io.writers import open_writer

CLIP = Path(__file__).parents[1] / "assets" / "webcam_talk_a.mp4"
INSTRUCTIONS = {
    "night": "make it night",
    "underwater": "put the scene under water",
    "beach": "replace the background with a beach",
}
COLUMNS = 5  # moments on the contact sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, default=CLIP)
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder of the results")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--seconds", type=float, default=4.0, help="how much of the clip is edited")
    args = parser.parse_args()

    args.output.mkdir(parents=True, exist_ok=True)
    editor = Editor.load(args.model)
    results, sheet = [], list[list[np.ndarray]]()
    for name, instruction in INSTRUCTIONS.items():
        edited, compared = args.output / f"{name}.mp4", args.output / f"{name}_compare.mp4"
        report = editor.edit(args.input, edited, instruction, duration=args.seconds)
        pairs = side_by_side(args.input, edited, compared)
        sheet = sheet or [[source for source, _ in pairs]]
        sheet.append([result for _, result in pairs])
        results.append((instruction, report, edited, compared))
        print(f"{instruction}: {report.frames} frames at {report.fps:.1f} frames/s")
    write_png(args.output / "contact_sheet.png", np.concatenate([np.concatenate(row, axis=1) for row in sheet]))

    print(f"\nOn {editor.device.type}, from file to file, {editor.config.sampler.steps} denoising steps. Results:")
    for instruction, report, edited, compared in results:
        print(f"  {edited}  {compared}  {report.fps:5.1f} frames/s  {instruction}")
    print(f"  {args.output / 'contact_sheet.png'}  rows: source, {', '.join(INSTRUCTIONS)}")


def side_by_side(source: Path, edited: Path, output: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Write source and edited in one picture. -> (source, edited) at COLUMNS moments, RGB uint8 [H, W, 3] each"""
    left, right = open_reader(source), open_reader(edited)
    writer = open_writer(output, rate=right.info.rate, time_base=right.info.time_base, color=right.info.color)
    size = right.info.width, right.info.height
    pairs = []
    for before, after in zip(left.frames(size), right.frames(), strict=False):  # the source may go on
        writer.write(replace(after, rgb=np.concatenate([before.rgb, after.rgb], axis=1)))
        pairs.append((before.rgb, after.rgb))
    writer.close()
    left.close()
    right.close()
    return [pairs[(2 * i + 1) * len(pairs) // (2 * COLUMNS)] for i in range(COLUMNS)]


def write_png(path: Path, rgb: np.ndarray) -> None:
    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width = rgb.shape[:2]
    codec.pix_fmt, codec.time_base = "rgb24", Fraction(1)
    picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    path.write_bytes(b"".join(bytes(packet) for packet in (*codec.encode(picture), *codec.encode(None))))


if __name__ == "__main__":
    main()

"""The pictures of the README and of docs/nano.md: instructions on three bundled clips, after 20 frames. Needs Pillow
(`pip install 'sana-streaming[serve]'`).

python examples/pictures.py                      # writes docs/images/nano.jpg and docs/images/nano_edits.jpg
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from sana_streaming import Editor
from sana_streaming.io.readers import open_reader

ROOT = Path(__file__).parents[1]
CLIPS = ("webcam_talk_a.mp4", "bbb_rabbit_meadow.mp4", "hand_bottle.mp4")
SHORT = 256  # side of what is edited, in pixels
FRAMES = 20
TILE = (168, 128)  # width and height of a picture on a sheet
COLUMNS = 9
LABEL = 20  # height in pixels
BEST = {
    "turn the video into an old sepia film": "old sepia film",
    "make it night": "make it night",
    "neon": "neon",
    "comic": "comic",
    "put the scene under water": "under water",
    "thermal camera": "thermal camera",
    "emboss": "emboss",
    "replace the background with a beach": "beach behind me",
    "heavy rain": "heavy rain",
}
ALL = (
    "turn the video into an old sepia film", "make it night", "make it look like sunset", "put the scene under water",
    "make it foggy", "thermal camera", "pop art", "give it a dreamy pastel look",
    "show it through night vision goggles", "turn it into a duotone poster", "pencil drawing",
    "turn the scene into a watercolor painting", "make it autumn", "make it winter", "negative", "cyberpunk", "comic",
    "oil painting", "cartoon", "film noir", "x-ray", "vaporwave", "blur the background",
    "put me in front of a sunset", "replace the background with a beach", "green screen", "make it snow", "heavy rain",
    "add a star at the top left", "add a robot on the right", "emboss", "neon", "chalkboard", "blueprint", "posterize",
    "pixel art", "remove the bottle", "make the bottle red", "replace the bottle with a penguin",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images")
    args = parser.parse_args()
    editor = Editor.load(args.model)
    sources = [first_frames(ROOT / "assets" / clip) for clip in CLIPS]
    before = [source[-1] for source in sources]
    after = {text: [edited(editor, source, text) for source in sources] for text in tqdm(ALL, unit="instruction")}
    best = [column(before, "source"), *(column(after[t], name) for t, name in BEST.items())]
    every = [column(before, "source"), *(column(after[text], text) for text in ALL)]
    args.output.mkdir(parents=True, exist_ok=True)
    save(args.output / "nano.jpg", [best])
    save(args.output / "nano_edits.jpg", [every[i : i + COLUMNS] for i in range(0, len(every), COLUMNS)])


def first_frames(clip: Path) -> np.ndarray:
    """RGB uint8 [FRAMES, H, W, 3] at the size that is edited."""
    reader = open_reader(clip)
    scale = SHORT / min(reader.info.width, reader.info.height)
    size = round(reader.info.width * scale) // 16 * 16, round(reader.info.height * scale) // 16 * 16
    frames = [frame.rgb for frame, _ in zip(reader.frames(size), range(FRAMES), strict=False)]
    reader.close()
    return np.stack(frames)


def edited(editor: Editor, frames: np.ndarray, instruction: str) -> np.ndarray:
    """The last frame of a stream of these."""
    session, start = editor.session(instruction, seed=0), 0
    while start < len(frames):
        part = torch.from_numpy(frames[start : start + session.chunk_frames])
        start += len(part)
        result = session.step(part)
    return result[-1].numpy()


def column(pictures: Sequence[np.ndarray], text: str) -> Image.Image:
    """Pictures below each other, cut to one shape, and what they show."""
    width, height = TILE
    image = Image.new("RGB", (width, height * len(pictures) + LABEL), "white")
    for i, picture in enumerate(pictures):
        h, w = picture.shape[:2]
        wide = min(w, round(h * width / height))
        cut = picture[:, (w - wide) // 2 : (w + wide) // 2]
        image.paste(Image.fromarray(cut).resize(TILE, Image.Resampling.LANCZOS), (0, i * height))
    font, draw = ImageFont.load_default(11), ImageDraw.Draw(image)
    while draw.textlength(text, font) > width - 4:
        text = text.rstrip("…")[:-1] + "…"
    draw.text((3, height * len(pictures) + 3), text, "black", font)
    return image


def save(path: Path, rows: Sequence[Sequence[Image.Image]]) -> None:
    width, height = rows[0][0].size
    sheet = Image.new("RGB", (width * len(rows[0]), height * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(image, (x * width, y * height))
    sheet.save(path, quality=85)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()

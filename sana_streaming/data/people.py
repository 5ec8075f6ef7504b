"""People and animals cut out of photos and clips, when a pack is made.

Needs the package `ai-edge-litert` and the file selfie_segmentation.tflite (Apache-2.0) of the npm package
`@mediapipe/selfie_segmentation`. Neither is needed to train.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Segment = Callable[[np.ndarray], np.ndarray]  # BGR uint8 [h, w, 3] -> float32 [h, w] in [0, 1]

PEOPLE_SIDE = 320
MASK_SIDE = 144  # short side of a mask
COLUMNS = 16
PHOTOS = {  # those whose licence is clear and whose mask is convincing -> split
    "000_alpaca": "train",
    "003_calf": "train",
    "014_gorilla": "train",
    "028_rhinoceros": "train",
    "045_panda": "train",
    "047_scarlet_macaw": "val",
    "056_sheep": "train",
    "301_astronaut": "train",
    "352_lion": "val",
}


def load_segmenter(file: Path) -> Segment | None:
    """None where the package is missing."""
    import cv2

    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        return None
    interpreter = Interpreter(str(file))
    interpreter.allocate_tensors()
    given, found = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    height, width = given["shape"][1:3]

    def segment(picture: np.ndarray) -> np.ndarray:
        small = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), (width, height), interpolation=cv2.INTER_AREA)
        interpreter.set_tensor(given["index"], small[None].astype(np.float32) / 255)
        interpreter.invoke()
        mask = interpreter.get_tensor(found["index"])[0, ..., 0]
        return largest_piece(cv2.resize(mask, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR))

    return segment


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """A mask [h, w] without what is not joined to its largest piece, and a little harder at its edge."""
    import cv2

    count, labels, stats, _ = cv2.connectedComponentsWithStats((mask > 0.4).astype(np.uint8))
    if count < 2:
        return np.zeros_like(mask)
    piece = (labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)
    near = cv2.dilate(piece, np.ones((7, 7), np.uint8))
    return ((mask - 0.3) / 0.5).clip(0, 1) * near


def pack_people(folder: Path, out: Path, segment: Segment) -> list[dict[str, Any]]:
    """Cut-outs of PHOTOS, cropped and at most PEOPLE_SIDE pixels long."""
    import cv2

    (out / "people").mkdir(exist_ok=True)
    rows = []
    for name, split in PHOTOS.items():
        if not (folder / f"{name}.jpg").is_file():
            continue
        picture = np.asarray(cv2.imread(str(folder / f"{name}.jpg")))
        mask = segment(picture)
        y, x = np.nonzero(mask > 0.05)
        box = slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1)
        cutout = np.dstack([picture, (mask * 255).round().astype(np.uint8)])[box]
        scale = min(1.0, PEOPLE_SIDE / max(cutout.shape[:2]))
        size = [max(1, int(side * scale)) for side in cutout.shape[1::-1]]
        cutout = cv2.resize(cutout, size, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(out / "people" / f"{name}.webp"), cutout, [cv2.IMWRITE_WEBP_QUALITY, 80])
        rows.append({"file": f"people/{name}.webp", "split": split})
    return rows


def pack_masks(clip: Path, out: Path, segment: Segment) -> dict[str, Any]:
    """The masks of a clip as cells of one picture, row by row."""
    import cv2

    (out / "people").mkdir(exist_ok=True)
    capture, masks = cv2.VideoCapture(str(clip)), []
    while (frame := capture.read()[1]) is not None:
        scale = MASK_SIDE / min(frame.shape[:2])
        mask = cv2.resize(segment(frame), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        masks.append((mask * 255).round().astype(np.uint8))
    masks += [np.zeros_like(masks[0])] * (-len(masks) % COLUMNS)
    sheet = np.vstack([np.hstack(masks[i : i + COLUMNS]) for i in range(0, len(masks), COLUMNS)])
    cv2.imwrite(str(out / "people" / f"{clip.stem}.webp"), sheet, [cv2.IMWRITE_WEBP_QUALITY, 80])
    return {"file": f"people/{clip.stem}.webp", "columns": COLUMNS, "rows": len(masks) // COLUMNS}

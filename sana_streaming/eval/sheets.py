"""Contact sheets: the first clips of every edit, whether they succeeded or failed."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sana_streaming.data.edits import EDITS
from sana_streaming.eval.measure import Sample

CELL = 128  # height in pixels
LABEL = 176  # width in pixels
LINES = 14  # rows of a sheet
CLIPS = 3  # of a row


def write_sheets(folder: Path, samples: Sequence[Sample]) -> None:
    """look_1.jpg, object_1.jpg, ...: a row for each edit and degree, its clips side by side."""
    import cv2

    for kind in dict.fromkeys(EDITS[s.edit].kind for s in samples):
        of_kind = [s for s in samples if EDITS[s.edit].kind == kind]
        rows = list(dict.fromkeys((s.edit, s.degree) for s in of_kind))
        lines = [line([s for s in of_kind if (s.edit, s.degree) == row]) for row in rows]
        for page, start in enumerate(range(0, len(lines), LINES), 1):
            sheet = below(lines[start : start + LINES])
            bgr = cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(folder / f"{kind}_{page}.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])


def line(samples: Sequence[Sample]) -> np.ndarray:
    """The first clips of an edit: its name and phrase, and its pictures side by side."""
    parts = []
    for s in samples[:CLIPS]:
        parts.append(label(" ".join(filter(None, [s.degree, s.edit])), s.phrase, ", ".join(s.pictures)))
        parts += [cell(picture) for picture in s.pictures.values()]
    return np.concatenate(parts, axis=1)


def label(name: str, phrase: str, pictures: str) -> np.ndarray:
    import cv2

    image = np.full((CELL, LABEL, 3), 255, np.uint8)
    texts = [(name, 0.45), *((part, 0.36) for part in textwrap.wrap(phrase, 27)[:4])]
    texts += [(part, 0.3) for part in textwrap.wrap(pictures, 32)]
    for i, (text, size) in enumerate(texts):
        cv2.putText(image, text, (4, 16 + 16 * i), cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 1, cv2.LINE_AA)
    return image


def cell(image: np.ndarray) -> np.ndarray:
    """RGB uint8 [H, W, 3] -> the same, CELL pixels high"""
    import cv2

    width = round(image.shape[1] * CELL / image.shape[0])
    return np.asarray(cv2.resize(image, (width, CELL), interpolation=cv2.INTER_AREA))


def below(lines: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of any width, filled up with white."""
    width = max(image.shape[1] for image in lines)
    filled = [np.pad(image, ((0, 0), (0, width - image.shape[1]), (0, 0)), constant_values=255) for image in lines]
    return np.concatenate(filled)

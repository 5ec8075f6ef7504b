"""Who or what photographs are of: no background of others, and in some a foreground of their own, when a pack is made.

A model that sees such photographs behind pasted cut-outs learns to take whatever was there before for background.
"""

from functools import cache
from importlib.resources import files

import numpy as np

from sana_streaming.data.people import largest_piece

ROUNDS = 6  # of grabCut
LIKELY = 0.38  # axes of the ellipse in the middle where the subject is looked for first, as shares of the sides
EDGE = 0.02  # of the short side, which is background: above, left and right
HOLE = 0.02  # holes below this share of a mask are closed


@cache
def subjects() -> tuple[dict[str, str], frozenset[str]]:
    """-> files (without endings) of which `cut_out` finds the subject, and what that is called; and the others that
    have one."""
    text = files("sana_streaming.data").joinpath("subjects.txt").read_text()
    found, rest = "\n".join(line for line in text.splitlines() if not line.startswith("#")).split(":")
    named = (word.partition("=") for word in found.split())
    called = {file: name or file.partition("_")[2] for file, _, name in named}
    return {file: name.replace("_", " ") for file, name in called.items()}, frozenset(rest.split())


def has_subject(name: str) -> bool:
    return any(name in names for names in subjects())


def cut_out(picture: np.ndarray) -> np.ndarray:
    """BGR uint8 [h, w, 3] -> the mask of what is in its middle, float32 [h, w] in [0, 1]."""
    import cv2

    h, w = picture.shape[:2]
    y, x = np.ogrid[:h, :w]
    middle = (((x + 0.5) / w - 0.5) ** 2 + ((y + 0.5) / h - 0.5) ** 2) < LIKELY**2
    marks = np.where(middle, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    edge = max(2, round(EDGE * min(h, w)))
    marks[:edge] = marks[:, :edge] = marks[:, -edge:] = cv2.GC_BGD
    cv2.setRNGSeed(0)
    cv2.grabCut(picture, marks, (0, 0, w, h), np.zeros((1, 65)), np.zeros((1, 65)), ROUNDS, cv2.GC_INIT_WITH_MASK)
    found = np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    mask = np.asarray(cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((3, 3))))
    _, holes, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < HOLE * mask.sum()
    small[0] = False  # the mask itself
    mask[small[holes]] = 1
    return largest_piece(cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1))

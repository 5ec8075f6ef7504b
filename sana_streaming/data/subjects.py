"""Who or what photographs are of: no background of others, and in some a foreground of their own, when a pack is made.

A model that sees such photographs behind pasted cut-outs learns to take whatever was there before for background.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from sana_streaming.data.people import largest_piece

ROUNDS = 6  # of grabCut
LIKELY = 0.38  # axes of the ellipse in the middle where the subject is looked for first, as shares of the sides
EDGE = 0.02  # of the short side, which is background: above, left and right
MARGIN = 0.025  # of the short side, by which more than the mask is drawn over, for shadows
KNOWN = 0.05  # what share of a blurred cell must be known to draw over it
HOLE = 0.02  # holes below this share of a mask are closed


@dataclass(frozen=True)
class Subject:
    name: str
    plate: bool  # whether `drawn_over` leaves no trace of it


@cache
def subjects() -> tuple[dict[str, Subject], frozenset[str]]:
    """-> files (without endings) of which `cut_out` finds the subject, and those of others that have one."""
    text = files("sana_streaming.data").joinpath("subjects.txt").read_text()
    found, rest = "\n".join(line for line in text.splitlines() if not line.startswith("#")).split(":")
    known = {}
    for word in found.split():
        file, _, name = word.rstrip("*").partition("=")
        known[file] = Subject((name or file.partition("_")[2]).replace("_", " "), word.endswith("*"))
    return known, frozenset(rest.split())


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


def drawn_over(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A picture uint8 [h, w, 3] whose mask [h, w] is filled with what is around: the mean of the nearest that is known,
    wider and wider towards the middle."""
    import cv2

    side = min(mask.shape)
    reach = 2 * round(MARGIN * side) + 1
    known = 1 - np.asarray(cv2.dilate((mask > 0.02).astype(np.float32), np.ones((reach, reach))))
    colours = picture * known[..., None]
    filled, done, sigma = colours, known, 2.0
    while done.min() < 0.999 and sigma < 2 * side:
        near, share = cv2.GaussianBlur(colours, (0, 0), sigma), cv2.GaussianBlur(known, (0, 0), sigma)
        part = np.clip(share / KNOWN - 0.2, 0, 1) * (1 - done)
        filled = filled + part[..., None] * near / np.maximum(share, 1e-6)[..., None]
        done = done + part
        sigma *= 1.6
    return filled.clip(0, 255).astype(np.uint8)

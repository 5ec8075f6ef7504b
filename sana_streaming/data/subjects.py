"""Who or what photographs are of: no background of others, and in some a foreground of their own, when a pack is made.

A model that sees such photographs behind pasted cut-outs learns to take whatever was there before for background. The
mask of a subject is that of a cut-out that was made from the photograph, where it is found again, or grabCut's.
"""

import math
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
SEARCHED = 240  # short side, pixels, at which a cut-out is looked for in a photograph
SIZES, FINER = (0.25, 1.0), 1.035  # of a cut-out, of the largest that fits: coarsely, then this much around the best
TRIES, MORE = 50, 15  # how many sizes are tried
ALIKE = 40.0  # root mean square, of 255, beyond which a cut-out is not in the photograph
CLEAR, OPAQUE = 20, 240  # of 255: less is not of a cut-out, more is nothing but it


@dataclass(frozen=True)
class Subject:
    name: str
    plate: bool  # whether `drawn_over` leaves no trace of it


@cache
def subjects() -> tuple[dict[str, Subject], frozenset[str]]:
    """-> files (without endings) of which the subject's mask is known, and those of others that have one."""
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


def found_again(picture: np.ndarray, cutout: np.ndarray) -> np.ndarray | None:
    """Where a cut-out BGRA uint8 [a, b, 4] of any size was cut out of a picture BGR uint8 [h, w, 3]: its alpha there,
    float32 [h, w] in [0, 1]; None if nothing is alike."""
    import cv2

    rows, columns = (np.flatnonzero(cutout[..., 3].max(axis) > CLEAR) for axis in (1, 0))
    if not len(rows):
        return None
    cutout = cutout[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    h, w = picture.shape[:2]
    scale = min(1.0, SEARCHED / min(h, w))
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    largest = min(small.shape[0] / cutout.shape[0], small.shape[1] / cutout.shape[1])

    def place(size: float) -> tuple[float, float, tuple[int, int]]:
        """-> mean square of the difference at the best place, the size, and that place's x and y."""
        sides = [max(1, int(size * largest * side)) for side in (cutout.shape[1], cutout.shape[0])]
        there = cv2.resize(cutout, sides, interpolation=cv2.INTER_AREA)
        opaque = (there[..., 3] > OPAQUE).astype(np.float32)
        if not opaque.any():
            return math.inf, size, (0, 0)
        errors = cv2.matchTemplate(small, there[..., :3], cv2.TM_SQDIFF, mask=cv2.merge([opaque] * 3))
        least, _, (x, y), _ = cv2.minMaxLoc(errors)
        return least / (3 * float(opaque.sum())), size, (x, y)

    best = min(map(place, np.geomspace(*SIZES, TRIES)))
    best = min([best, *map(place, np.minimum(best[1] * np.geomspace(1 / FINER, FINER, MORE), 1.0))])
    error, size, (x, y) = best
    if error > ALIKE**2:
        return None
    zoom = size * largest / scale
    move = np.array([[zoom, 0, x / scale], [0, zoom, y / scale]])
    return np.asarray(cv2.warpAffine(cutout[..., 3], move, (w, h), flags=cv2.INTER_LINEAR)).astype(np.float32) / 255


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

"""Cut-outs as a pack holds them: of one size, in the middle of a square, with alpha."""

from pathlib import Path

import numpy as np

from sana_streaming.data.bank import SPRITE_SIDE

FILLED = 119 / 128  # how much of the square the longer side of a cut-out takes
COVERED = (0.04, 0.93)  # of the box around it: thinner ones are hardly seen, fuller ones are tiles and not cut-outs
QUALITY = 70


def centred(picture: np.ndarray) -> np.ndarray | None:
    """BGRA uint8 [h, w, 4] -> what is seen of it, as large as all cut-outs are and in the middle, [S, S, 4]; None
    for what is no cut-out."""
    import cv2

    if picture.ndim != 3 or picture.shape[2] != 4:
        return None
    y, x = np.nonzero(picture[..., 3] > 16)
    if len(y) == 0:
        return None
    picture = picture[y.min() : y.max() + 1, x.min() : x.max() + 1]
    if not COVERED[0] < (picture[..., 3] > 127).mean() < COVERED[1]:
        return None
    scale = FILLED * SPRITE_SIDE / max(picture.shape[:2])
    size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    top, left = (SPRITE_SIDE - size[1]) // 2, (SPRITE_SIDE - size[0]) // 2
    whole = np.zeros((SPRITE_SIDE, SPRITE_SIDE, 4), np.uint8)
    whole[top : top + size[1], left : left + size[0]] = small
    return whole


def write_cutout(path: Path, picture: np.ndarray) -> None:
    import cv2

    cv2.imwrite(str(path), picture, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])

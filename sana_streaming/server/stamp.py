"""A number that travels under the picture, so that a page can measure glass to glass.

Layout: a stripe of ROWS = 16 rows under the picture, as wide as it, in BLOCKS = 20 blocks of one colour. Block i (the
first is the most significant bit) covers all 16 rows and the columns from x = round(i * W / 20) to
round((i + 1) * W / 20), rounded half up: floor(x + 0.5). Blocks 0 to 15 are the bits of the value, blocks 16 to 19
those of the check, which is the sum of the value's four nibbles mod 16. White (255) is 1, black (0) is 0.

Values are 1 to 65535: a stripe that is black all over is no stamp. White all over is no stamp either, for its check is
wrong; it is drawn where nothing is known.
"""

from itertools import pairwise

import numpy as np

ROWS = 16
BITS = 16
BLOCKS = BITS + 4


def draw(rgb: np.ndarray, value: int | None) -> np.ndarray:
    """RGB uint8 [H, W, 3] -> [H + 16, W, 3], the picture with its stamp below."""
    height, width, _ = rgb.shape
    stamped = np.empty((height + ROWS, width, 3), np.uint8)
    stamped[:height] = rgb
    edges = _edges(width)
    for bit, (left, right) in zip(_bits(value), pairwise(edges), strict=True):
        stamped[height:, left:right] = 255 * bit
    return stamped


def cut(stamped: np.ndarray, height: int) -> tuple[np.ndarray, int | None]:
    """RGB uint8 [height + rows, W, 3] -> the picture (a view) and the value of the stamp below it, None if there is
    none to be read. A frame that was scaled as a whole has another number of rows than 16 in its stripe."""
    return stamped[:height], read(stamped[height:])


def read(stripe: np.ndarray) -> int | None:
    """The value of a stripe of any height, uint8 [rows, W, 3]."""
    rows, width, _ = stripe.shape
    edges = _edges(width)
    word = 0
    for left, right in pairwise(edges):
        margin = (right - left) // 4  # neighbours and the picture blur the edges
        middle = stripe[rows // 4 : rows - rows // 4, left + margin : right - margin]
        word = word << 1 | bool(middle.size and middle.mean() > 127.5)
    value, check = word >> 4, word & 15
    return value if value and check == _check(value) else None


def _bits(value: int | None) -> list[int]:
    if value is None:
        return [1] * BLOCKS
    word = value << 4 | _check(value)
    return [word >> (BLOCKS - 1 - i) & 1 for i in range(BLOCKS)]


def _check(value: int) -> int:
    return sum(value >> shift & 15 for shift in (0, 4, 8, 12)) % 16


def _edges(width: int) -> list[int]:
    return [(2 * i * width + BLOCKS) // (2 * BLOCKS) for i in range(BLOCKS + 1)]  # rounded half up

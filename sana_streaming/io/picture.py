"""From a decoder's pictures to RGB arrays, and back to what an encoder takes."""

import struct
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from .frame import Color

# Bicubic widens with the scale, so that small results do not alias; the others keep colour sharp and exact.
FILTER = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)
UNSPECIFIED = 2
# Matrix code of a video -> the number by which the scaler knows the same matrix.
SCALER_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
LIMITED, FULL = ColorRange.MPEG, ColorRange.JPEG


@dataclass(frozen=True)
class Orientation:
    """How a stored picture becomes the shown one: transpose, then flips."""

    transpose: bool = False
    mirror: bool = False  # left and right
    upset: bool = False  # top and bottom

    def apply(self, rgb: np.ndarray) -> np.ndarray:
        if self.transpose:
            rgb = rgb.swapaxes(0, 1)
        rgb = rgb[:: -1 if self.upset else 1, :: -1 if self.mirror else 1]
        return np.ascontiguousarray(rgb)


def orientation(picture: av.VideoFrame) -> Orientation:
    """The right angles and mirrorings of a picture's display matrix, which takes (x, y) to (ax + cy, bx + dy)."""
    side_data: Any = picture.side_data
    if SideDataType.DISPLAYMATRIX not in side_data:
        return Orientation()
    a, b, _, c, d = struct.unpack("<5i", bytes(side_data[SideDataType.DISPLAYMATRIX])[:20])
    if abs(a) >= abs(b):
        return Orientation(False, mirror=a < 0, upset=d < 0)
    return Orientation(True, mirror=c < 0, upset=b < 0)


def color_of(picture: av.VideoFrame) -> Color:
    """The colour codes of a picture. An untagged one is what players take it for: BT.709 if large, else BT.601."""
    matrix = picture.colorspace
    if matrix == UNSPECIFIED:
        matrix = 1 if picture.width >= 1280 or picture.height > 576 else 6
    if matrix not in SCALER_MATRIX:  # RGB and rarities: the scaler knows them by the picture's own tag
        matrix = 1
    return Color(matrix, picture.color_primaries, picture.color_trc)


def to_rgb(picture: av.VideoFrame, width: int, height: int, color: Color, scaler: VideoReformatter) -> np.ndarray:
    """A decoded picture as RGB uint8 [height, width, 3]."""
    known = picture.colorspace in SCALER_MATRIX or picture.colorspace == UNSPECIFIED
    rgb = scaler.reformat(
        picture,
        width,
        height,
        "rgb24",
        src_colorspace=SCALER_MATRIX[color.matrix] if known and not picture.format.is_rgb else None,
        dst_color_range=FULL,
        interpolation=FILTER,
        threads=1,
    )
    return rgb.to_ndarray()


def to_yuv(rgb: np.ndarray, size: tuple[int, int], color: Color, scaler: VideoReformatter) -> av.VideoFrame:
    """RGB uint8 [H, W, 3] as a yuv420p picture of `size` (width, height) and limited range. Sides must be even, but for
    one that is an odd side of rgb: it grows by one pixel, which repeats the edge."""
    width, height = size
    if size == rgb.shape[1::-1]:
        rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return scaler.reformat(
        av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"),
        width + width % 2,
        height + height % 2,
        "yuv420p",
        src_color_range=FULL,
        dst_color_range=LIMITED,
        dst_colorspace=SCALER_MATRIX[color.matrix],
        interpolation=FILTER,
        threads=1,
    )

"""Pictures to look at while training: grids of video frames as PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def grid(rows: Sequence[Sequence[Tensor]], gap: int = 4) -> Tensor:
    """Rows of pictures [3, H, W] in [0, 1], all of one size -> one picture, uint8 [H', W', 3], with white gaps"""
    lines = []
    for row in rows:
        cells = [torch.nn.functional.pad(cell.detach().float().cpu(), (0, gap, 0, gap), value=1.0) for cell in row]
        lines.append(torch.cat(cells, dim=2))
    picture = torch.cat(lines, dim=1)
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()


def write_png(path: Path, picture: Tensor) -> None:
    """RGB uint8 [H, W, 3] to a PNG file"""
    import cv2

    data = cv2.imencode(".png", np.ascontiguousarray(picture.numpy()[:, :, ::-1]))[1]
    path.write_bytes(data.tobytes())

"""Frames to chunks: as many frames as the session takes next, the last chunk filled up."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from sana_streaming.io import Frame


@dataclass(frozen=True)
class Chunk:
    """Frames that are edited together. If `size` exceeds their number, the session sees the last one repeated."""

    frames: tuple[Frame, ...]
    size: int

    @property
    def pts(self) -> Fraction:
        """Seconds at which the chunk begins."""
        return self.frames[0].pts

    def tensor(self) -> Tensor:
        """uint8 [size, H, W, 3]"""
        rgb = [f.rgb for f in self.frames]
        return torch.from_numpy(np.stack(rgb + rgb[-1:] * (self.size - len(rgb))))


def chunks(frames: Iterable[Frame], size: Callable[[], int]) -> Iterator[Chunk]:
    """Cut a stream of frames. `size` is asked anew when a chunk begins, since the first may differ from the rest."""
    gathered: list[Frame] = []
    wanted = 0
    for frame in frames:
        if not gathered:
            wanted = size()
        gathered.append(frame)
        if len(gathered) == wanted:
            yield Chunk(tuple(gathered), wanted)
            gathered = []
    if gathered:
        yield Chunk(tuple(gathered), wanted)

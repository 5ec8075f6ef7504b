"""A chunk of one session, from the moment that it is taken to be edited."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sana_streaming.io.size import Size
from sana_streaming.stream.governor import Level
from sana_streaming.stream.log import ChunkRecord, Tap, describe

from .frame import LiveFrame
from .hosted import Hosted


@dataclass(frozen=True)
class Taken:
    """Frames that were taken from a session to be edited, and what held then."""

    live: Hosted
    frames: tuple[LiveFrame, ...]  # a whole chunk; of a stream that ends the rest, or nothing
    wanted: int  # frames of a chunk
    level: Level
    epoch: int
    taps: tuple[Tap, ...]
    alike: int  # sessions that could share its pass if all were ready, it included

    def seen(self) -> Tensor:
        """RGB uint8 [F, H, W, 3], as the session sees them; too few are filled up with the last one."""
        pictures = np.stack([frame.rgb for frame in self._filled])
        return resized(torch.from_numpy(pictures), self.level.size)

    def record(self) -> ChunkRecord | None:
        """For those who listen."""
        if not self.taps:
            return None
        live, frames = self.live, self.frames
        step = Fraction(1 / live.asked).limit_denominator(1000)
        extra = [frames[-1].pts + step * (i + 1) for i in range(self.wanted - len(frames))]
        return describe(
            live.session,
            frames=tuple(frame.number for frame in self._filled),
            pts=(*(frame.pts for frame in frames), *extra),
            size=self.level.size,
            prompt=live.prompt_in_force,
            seed=live.seed_in_force,
            reseeded=live.reseeded,
        )

    @property
    def _filled(self) -> tuple[LiveFrame, ...]:
        return self.frames + self.frames[-1:] * (self.wanted - len(self.frames))


def resized(frames: Tensor, size: Size) -> Tensor:
    """RGB uint8 [F, H, W, 3] -> the same at another width and height."""
    width, height = size
    if frames.shape[1:3] == (height, width) or not len(frames):
        return frames
    planes = frames.permute(0, 3, 1, 2).float()
    scaled = F.interpolate(planes, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

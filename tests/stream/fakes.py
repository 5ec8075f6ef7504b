"""Readers, writers, sessions and editors that do nothing but keep count."""

import weakref
from fractions import Fraction

import numpy as np
import torch

from sana_streaming.config import nano
from sana_streaming.io import Frame, VideoError, VideoInfo
from sana_streaming.io.size import Geometry
from sana_streaming.stream.run import run


class FakeSession:
    """Gives back the negative. First chunk 5 frames, then 8, as a codec with a short first latent would have it."""

    def __init__(self, prompt="negative"):
        self.prompts, self.shapes = [prompt], []

    @property
    def chunk_frames(self):
        return 8 if self.shapes else 5

    def set_prompt(self, prompt):
        if not prompt:
            raise ValueError("expected a prompt, got none")
        self.prompts.append(prompt)

    def step(self, frames):
        assert len(frames) == self.chunk_frames
        self.shapes.append(tuple(frames.shape))
        return 255 - frames


class LateSession(FakeSession):
    """Gives every frame six frames later, the last ones when it is flushed."""

    held = torch.empty(0, dtype=torch.uint8)

    def step(self, frames):
        edited = super().step(frames)
        edited = torch.cat([self.held, edited]) if len(self.held) else edited
        self.held = edited[-6:]
        return edited[:-6]

    def flush(self):
        return self.held


class FakeEditor:
    config = nano()
    stride = 16
    device = torch.device("cpu")

    def session(self, prompt, *, seed=0, steps=None):
        if not prompt.strip():
            raise ValueError("expected a prompt, got none")
        self.last = FakeSession(prompt)
        return self.last


class FakeReader:
    """Frames that are filled with their number, 25 per second or at `times`."""

    def __init__(self, count, size=(6, 4), times=None, known=True):
        self.count, self.closed, self.alive, self.most = count, False, 0, 0
        self.times = [Fraction(i, 25) for i in range(count)] if times is None else times
        self.info = VideoInfo(*size, Fraction(25), Fraction(1, 25), frames=count if known else None)

    def frames(self, size=None):
        width, height = size or (self.info.width, self.info.height)
        for i, time in enumerate(self.times):
            rgb = np.full((height, width, 3), i % 256, np.uint8)
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(rgb, self._died)
            yield Frame(rgb, time)

    def _died(self):
        self.alive -= 1

    def close(self):
        self.closed = True


class FakeWriter:
    def __init__(self, fail_at=None):
        self.pts, self.sums, self.edited, self.end, self.shape, self.fail_at = [], [], [], None, None, fail_at

    def write(self, frame):
        if len(self.pts) == self.fail_at:
            raise VideoError("the disk is full")
        self.pts.append(frame.pts)
        self.sums.append(int(frame.rgb[0, 0, 0]))
        self.edited.append(int(frame.rgb[0, -1, 0]))  # on the right, where both are shown
        self.shape = frame.rgb.shape

    def close(self, keep_tail=True):
        self.end = "whole" if keep_tail else "cut"

    def abort(self):
        self.end = "aborted"


def run_whole(reader, session, writer, stride=1, **options):
    """Frames as they come from the reader."""
    size = (reader.info.width, reader.info.height)
    return run(reader, session, writer, Geometry(size, size, stride), **options)

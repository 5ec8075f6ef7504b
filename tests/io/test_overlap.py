import threading
from collections import deque
from fractions import Fraction

import numpy as np
import pytest

from sana_streaming.io import Frame, VideoError, VideoInfo
from sana_streaming.io.overlap import ReadAhead, WriteBehind

PICTURE = np.zeros((2, 2, 3), np.uint8)


class CountingReader:
    def __init__(self, count, broken_at=None):
        self.info = VideoInfo(2, 2, Fraction(25), Fraction(1, 25))
        self.count, self.broken_at, self.read, self.closed = count, broken_at, 0, False
        self.third = threading.Event()

    def frames(self, size=None):
        for i in range(self.count):
            if i == self.broken_at:
                raise VideoError("the cable is out")
            self.read += 1
            if self.read == 3:
                self.third.set()
            yield Frame(PICTURE, Fraction(i))

    def soundtrack(self):
        return None

    def close(self):
        self.closed = True


class SlowWriter:
    """Writes when it is let go."""

    def __init__(self, broken_at=None):
        self.pts, self.end, self.broken_at = [], None, broken_at
        self.go = threading.Event()

    def write(self, frame):
        assert self.go.wait(10)
        if len(self.pts) == self.broken_at:
            raise VideoError("the disk is full")
        self.pts.append(frame.pts)

    def close(self, keep_tail=True):
        self.end = keep_tail

    def abort(self):
        self.end = "aborted"


@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_every_frame_comes_once_and_in_order(count):
    ahead = ReadAhead(CountingReader(count), depth=3)
    assert [f.pts for f in ahead.frames()] == list(range(count))
    ahead.close()


def test_it_reads_ahead_but_not_further():
    reader = CountingReader(50)
    ahead = ReadAhead(reader, depth=3)
    frames = ahead.frames()
    next(frames)
    assert reader.third.wait(10)
    assert 3 <= reader.read <= 4
    ahead.close()
    assert reader.closed


def test_what_goes_wrong_in_reading_is_told_at_its_place():
    ahead = ReadAhead(CountingReader(50, broken_at=5), depth=3)
    seen = []
    with pytest.raises(VideoError, match="cable"):
        seen.extend(f.pts for f in ahead.frames())
    ahead.close()


def test_nobody_waits_for_a_slow_writer_until_depth():
    writer = SlowWriter()
    behind = WriteBehind(writer, depth=4)
    for i in range(4):
        behind.write(Frame(PICTURE, Fraction(i)))  # would hang if it waited
    assert writer.pts == []
    writer.go.set()
    behind.write(Frame(PICTURE, Fraction(4)))
    behind.close(keep_tail=False)
    assert writer.pts == [0, 1, 2, 3, 4]
    assert writer.end is False


def test_what_goes_wrong_in_writing_is_told():
    writer = SlowWriter(broken_at=2)
    writer.go.set()
    behind = WriteBehind(writer, depth=2)
    frame = Frame(PICTURE, Fraction(0))
    with pytest.raises(VideoError, match="disk"):
        deque((behind.write(frame) for _ in range(50)), maxlen=0)
    behind.abort()
    assert writer.end == "aborted"

    last = SlowWriter(broken_at=0)
    last.go.set()
    behind = WriteBehind(last)
    behind.write(Frame(PICTURE, Fraction(0)))
    with pytest.raises(VideoError, match="disk"):
        behind.close()
    behind.abort()
    assert last.end == "aborted"

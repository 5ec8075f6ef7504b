from fractions import Fraction

import numpy as np
import torch

from sana_streaming.io import Frame
from sana_streaming.stream.chunker import chunks


def numbered(count):
    return [Frame(np.full((4, 6, 3), i, np.uint8), Fraction(i, 25)) for i in range(count)]


def cut(count, *sizes):
    """Chunks when the session asks for `sizes`, then for the last of them forever."""
    asked = iter(sizes)
    return list(chunks(numbered(count), lambda: next(asked, sizes[-1])))


def test_chunks_are_as_long_as_the_session_asks():
    assert [len(c.frames) for c in cut(19, 5, 8, 6)] == [5, 8, 6]
    assert [c.pts for c in cut(19, 5, 8, 6)] == [0, Fraction(5, 25), Fraction(13, 25)]


def test_every_frame_comes_once_and_in_order():
    for count in range(14):
        assert [f.pts * 25 for c in cut(count, 5, 3) for f in c.frames] == list(range(count))


def test_the_tail_repeats_the_last_frame():
    *_, tail = cut(7, 5)
    assert [int(f.rgb[0, 0, 0]) for f in tail.frames] == [5, 6]
    assert tail.tensor().shape == (5, 4, 6, 3)
    assert tail.tensor().dtype == torch.uint8
    assert tail.tensor()[:, 0, 0, 0].tolist() == [5, 6, 6, 6, 6]


def test_the_size_is_asked_when_a_chunk_begins():
    """The session's answer changes with each step, so that nobody may ask ahead."""
    done = []
    stream = chunks(numbered(10), lambda: 2 if not done else 4)
    done.append(next(stream))
    assert [len(done[0].frames), *(len(c.frames) for c in stream)] == [2, 4, 4]


def test_no_frames_no_chunks():
    assert cut(0, 5) == []

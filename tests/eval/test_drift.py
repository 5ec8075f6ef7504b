"""Long streams whose drift is known."""

import numpy as np
import pytest
import torch

from sana_streaming.data.bank import Bank
from sana_streaming.data.prompts import Prompts
from sana_streaming.eval.drift import LongStream, drift, long_sources, long_streams, slopes_of, to_and_fro

from .conftest import editor

PERIOD = 6


def stream_of(values: np.ndarray) -> LongStream:
    return LongStream("sepia", "rendered", 2, PERIOD, tuple(values.tolist()))


def content(chunks: int) -> np.ndarray:
    """Decibels that differ much from one content to the next."""
    return np.tile(np.random.default_rng(0).uniform(20, 40, PERIOD), chunks // PERIOD)


def test_a_steady_stream_does_not_drift() -> None:
    found = drift([stream_of(content(60))])
    assert (found.slope, found.low, found.high) == (0, 0, 0)


def test_a_loss_is_seen_through_changing_content() -> None:
    chunks = np.arange(60)
    found = drift([stream_of(content(60) - 0.004 * chunks), stream_of(content(60) - 0.004 * chunks)])
    assert (found.slope, found.low, found.high) == pytest.approx((-0.4, -0.4, -0.4))


def test_the_interval_holds_the_loss_that_noise_hides() -> None:
    noise = np.random.default_rng(1).normal(0, 0.5, 240)
    found = drift([stream_of(content(240) - 0.002 * np.arange(240) + noise)])
    assert found.low < -0.2 < found.high
    assert found.high - found.low < 0.3


def test_a_bad_start_alone_is_no_drift() -> None:
    values = content(120)
    values[:2] -= 10
    assert drift([stream_of(values)]).slope == 0


def test_slopes_are_those_of_equal_content() -> None:
    np.testing.assert_allclose(slopes_of([1, 50, 2, 50, 4, 50], 2), [[50, 75, 100], [0, 0, 0]])


def test_to_and_fro() -> None:
    assert to_and_fro(3, 8) == [0, 1, 2, 2, 1, 0, 0, 1]


def test_a_model_that_does_nothing_keeps_a_video_for_ever(bank: Bank) -> None:
    model = editor()
    sources = long_sources(bank, 48, 8, seed=0)
    assert {name: tuple(video.shape) for name, video in sources.items()} == {
        "rendered": (1, 8, 48, 48, 3),
        "clips": (1, 8, 48, 48, 3),
    }
    with torch.inference_mode():
        streams = long_streams(model, Prompts(model.encode_text), sources, chunks=8, steps=2)
    assert [(s.edit, s.material, s.period, len(s.decibels)) for s in streams[:3]] == [
        ("unchanged", "rendered", 4, 8),
        ("unchanged", "clips", 4, 8),
        ("sepia", "rendered", 4, 8),
    ]
    assert min(streams[0].decibels) > 60
    assert max(streams[2].decibels) < 40
    with pytest.raises(ValueError, match="chunks: expected at least 8"):
        long_streams(model, Prompts(model.encode_text), sources, chunks=7, steps=2)

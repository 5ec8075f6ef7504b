"""Streams of models that do nothing, or exactly what is asked."""

import pytest
import torch
from torch import Tensor

from sana_streaming.data.prompts import Prompts
from sana_streaming.eval.edits import at_size, bounds, edit, reconstruct, true_edit
from sana_streaming.metrics import psnr

from .conftest import PassThrough, editor


@pytest.fixture
def source() -> Tensor:
    return torch.randint(0, 256, (2, 16, 16, 32, 3), dtype=torch.uint8)


def run(model, source: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    return edit(model, source, ("invert it", "please invert it"), Prompts(model.encode_text), steps=2)


def test_a_model_that_does_nothing_returns_the_source(source: Tensor) -> None:
    assert (psnr(run(editor(), source), source) > 60).all()


def test_a_perfect_model_returns_the_truth(source: Tensor) -> None:
    truth = true_edit("negative", source)
    assert torch.equal(truth, 255 - source)
    assert (psnr(run(editor(lambda latents: -latents), source), truth) > 60).all()


def test_chunks_are_those_of_a_session(source: Tensor) -> None:
    model = editor(first_chunk=2)
    session = model.session("invert it")
    assert bounds(model, 16) == [0, session.chunk_frames, 12, 16] == [0, 8, 12, 16]
    assert run(model, source).shape == source.shape


def test_frames_must_be_whole_chunks() -> None:
    with pytest.raises(ValueError, match=r"frames: expected whole chunks, 8 or 12, got 10"):
        bounds(editor(), 10)


def test_more_clips_than_are_coded_at_once() -> None:
    video = torch.randint(0, 256, (11, 4, 16, 16, 3), dtype=torch.uint8)
    assert torch.equal(reconstruct(PassThrough(), video), video)


def test_the_truth_of_a_scene_is_not_known_from_its_frames(source: Tensor) -> None:
    with pytest.raises(ValueError, match="look or weather"):
        true_edit("remove", source)


def test_clips_keep_their_aspect() -> None:
    clip = torch.zeros(3, 3, 90, 160, dtype=torch.uint8)
    assert at_size(clip, 64).shape == (3, 64, 112, 3)

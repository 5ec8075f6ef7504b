"""Streams of models that do nothing, or exactly what is asked."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sana_streaming.data.prompts import Prompts
from sana_streaming.eval.edits import at_size, bounds, edit, reconstruct, stream, true_edit
from sana_streaming.metrics import psnr

from ..stream.tiny import picture, tiny_editor
from .conftest import PassThrough, editor


@pytest.fixture
def source() -> Tensor:
    return torch.randint(0, 256, (2, 16, 16, 32, 3), dtype=torch.uint8)


def run(model, source: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    """The two clips as two cases."""
    phrases, prompts = ("invert it", "please invert it"), Prompts(model.encode_text)
    return torch.cat(edit(model, source.split(1), phrases, (0, 1), prompts, steps=2))


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


def test_a_long_stream_is_that_of_a_session() -> None:
    """Past the end of the range of positions, too."""
    model = tiny_editor(max_position=9)
    session, chunks = model.session("a", steps=2), [picture(3), *(picture(2) for _ in range(29))]
    with torch.inference_mode():
        edited = list(stream(model, (chunk[None] for chunk in chunks), model.prompt("a"), steps=2, seeds=[0]))
    assert len(edited) == len(chunks)
    for got, chunk in zip(edited, chunks, strict=True):
        assert torch.equal(got[0], session.step(chunk))
    assert session.state is not None
    assert session.state.denoiser.position.tolist() == [9]


def test_a_clip_is_edited_alike_whatever_is_edited_beside_it() -> None:
    """Its noise is its own."""
    model, clips = tiny_editor(), [picture(7)[None] for _ in range(3)]
    prompts = Prompts(model.encode_text)

    def edited(numbers: Sequence[int], seeds: Sequence[int]) -> list[Tensor]:
        with torch.inference_mode():
            return edit(model, [clips[i] for i in numbers], ["a"] * len(numbers), seeds, prompts, steps=2)

    together, alone, other = edited([0, 1, 2], [7, 8, 9])[2], edited([2], [9])[0], edited([2], [8])[0]
    assert (together.int() - alone.int()).abs().max() <= 1
    assert (other.int() - alone.int()).abs().max() > 1


class Late(PassThrough):
    """Holds back the last five frames."""

    def decode(self, latents: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        frames, _ = super().decode(latents, None)
        held = frames if state is None else torch.cat([state, frames], dim=2)
        return held[:, :, :-5], held[:, :, -5:]

    def flush(self, state: Tensor) -> Tensor:
        return state


def test_frames_that_a_codec_holds_back_come_too(source: Tensor) -> None:
    model, late = editor(first_chunk=2), editor(first_chunk=2)
    late.codec = Late()
    given: list[int] = []

    def pieces() -> Iterator[Tensor]:
        for start, end in pairwise(bounds(model, 16)):
            given.append(end)
            yield source[:, start:end]

    came = [(len(given), frames) for frames in stream(late, pieces(), model.prompt("invert it"), steps=2, seeds=[0, 1])]
    assert [(chunks, frames.shape[1]) for chunks, frames in came] == [(3, 8), (3, 4), (3, 4)]
    assert torch.equal(torch.cat([frames for _, frames in came], dim=1), run(model, source))


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

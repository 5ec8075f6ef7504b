"""Streams that share a pass give what they give alone, with guidance too."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sana_streaming.diffusion.flow import Sampling
from sana_streaming.state import select, stack, tensors
from sana_streaming.stream.batch import stack_texts
from sana_streaming.stream.editor import Editor
from sana_streaming.stream.road import EditState, draw_noise, edit_chunk, in_range
from sana_streaming.stream.session import Session

from .tiny import picture, tiny_editor

GUIDED = {"guidance": 2.5, "negative_prompt": "dull and grey"}
PLAIN: dict[str, object] = {}


def sessions(editor: Editor, options: dict[str, object], chunks: int = 6) -> list[Session]:
    """Two streams, of different age, prompts and seeds."""
    made = [editor.session("a", seed=1, **options), editor.session("a longer prompt", seed=2, **options)]
    for session, more in zip(made, (0, 3), strict=True):
        for _ in range(chunks + more):
            session.step(picture(session.chunk_frames))
    return made


def together(streams: list[Session], frames: Tensor, state: EditState) -> tuple[Tensor, EditState]:
    """One chunk of all streams, frames [B, F, H, W, 3], in one pass."""
    first, generators = streams[0], [session.generator for session in streams]
    editor, text = first.editor, stack_texts([session.text for session in streams])
    with torch.inference_mode():
        state = in_range(state, 1, editor.dit.config)
        return edit_chunk(editor.codec, editor.dit, frames, text, state, generators, first.sampling, first.guidance)


def near(a: EditState, b: EditState) -> bool:
    pairs = list(zip(tensors(a), tensors(b), strict=True))
    return all(x.shape == y.shape and torch.allclose(x.double(), y.double(), atol=1e-4, rtol=1e-4) for x, y in pairs)


@pytest.mark.parametrize("options", [PLAIN, GUIDED], ids=["plain", "guided"])
def test_streams_in_one_batch_are_those_alone(options: dict[str, object]) -> None:
    """They join, go three chunks, past the end of the range, and part."""
    streams = sessions(tiny_editor(max_position=9), options)
    alone = [session.fork() for session in streams]
    state = stack([session.state for session in streams])
    for _ in range(3):
        frames = torch.stack([picture(2), picture(2)])
        edited, state = together(streams, frames, state)
        for i, session in enumerate(alone):
            expected = session.step(frames[i])
            assert (edited[i].int() - expected.int()).abs().max() <= 1
            assert expected.float().std() > 0
    for i, session in enumerate(alone):
        left = select(state, [i], streams=2)
        assert near(left, session.state)
        assert not near(left, alone[1 - i].state)
        streams[i].state = left
        frames = picture(2)
        assert (streams[i].step(frames).int() - session.step(frames).int()).abs().max() <= 1


def test_guided_streams_come_back_bit_for_bit() -> None:
    states = [session.state for session in sessions(tiny_editor(), GUIDED)]
    joined = stack(states)
    assert joined.denoiser.position.tolist() == [7, 7, 10, 10]
    for index in ([1, 0], torch.tensor([1, 0]), slice(None, None, 1), torch.tensor([True, True])):
        picked = select(joined, index, streams=2)
        expected = states if isinstance(index, slice) or index[0] == index[1] else states[::-1]
        for a, b in zip(tensors(picked), tensors(stack(expected)), strict=True):
            assert torch.equal(a, b)
            assert a.untyped_storage().data_ptr() not in {t.untyped_storage().data_ptr() for t in tensors(joined)}


def test_what_cannot_join_is_said() -> None:
    editor = tiny_editor()
    guided, plain = sessions(editor, GUIDED)[0].state, sessions(editor, PLAIN)[0].state
    for pair in ([guided, plain], [plain, guided]):
        with pytest.raises(ValueError, match="streams with guidance cannot join streams without"):
            stack(pair)
    assert stack([guided, stack([guided, guided])]).denoiser.position.shape == (6,)

    larger = editor.session("a", **GUIDED)
    for _ in range(6):
        larger.step(torch.zeros(larger.chunk_frames, 8, 8, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="differ in shape"):
        stack([guided, larger.state])

    fading, other = sessions(tiny_editor(first_chunk=1), GUIDED)
    fading.anchor()
    fading.step(picture(2))
    with pytest.raises(ValueError, match=r"differ in structure: .* none alone gets a new sink"):
        stack([fading.state, other.state])
    with pytest.raises(ValueError, match="rows for each of 4 streams, got 2"):
        select(stack([plain, plain]), [0], streams=4)


def test_one_generator_for_each_stream_or_one_for_all() -> None:
    source, how = torch.zeros(2, 3, 4, 5, 6), Sampling((1.0, 0.0))
    for sampling in (how, replace(how, repeat_noise=True)):
        both = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
        noise, _ = draw_noise(source, None, both, sampling)
        for i, seed in enumerate((7, 8)):
            alone, _ = draw_noise(source[:1], None, torch.Generator().manual_seed(seed), sampling)
            assert torch.equal(noise[i : i + 1], alone)
    with pytest.raises(ValueError, match="one generator for each of 2 streams, got 1"):
        draw_noise(source, None, both[:1], how)


def test_prompts_of_one_length_need_no_mask() -> None:
    editor = tiny_editor()
    assert stack_texts([editor.prompt("abc"), editor.prompt("xyz")]).mask is None
    mask = stack_texts([editor.prompt("abc"), editor.prompt("a")]).mask
    assert mask is not None
    assert mask[:, 0, 0].tolist() == [[True, True, True], [True, False, False]]

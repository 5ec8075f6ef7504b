"""A new sink comes in little by little: the velocities of two memories, mixed by hand."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sana_streaming.diffusion.flow import sigmas
from sana_streaming.model.dit import DiTState
from sana_streaming.model.rebase import anchor, keep_in_range
from sana_streaming.state import nbytes, tensors
from sana_streaming.stream.crossfade import FADE
from sana_streaming.stream.editor import Editor
from sana_streaming.stream.road import draw_noise, to_signed
from sana_streaming.stream.session import Session

from .tiny import picture, tiny_editor

GUIDED = {"guidance": 2.5, "negative_prompt": "dull and grey"}


def begun(editor: Editor, chunks: int = 6, **options: object) -> Session:
    session = editor.session("a", **options)
    for _ in range(chunks):
        session.step(picture(session.chunk_frames))
    return session


def latents(session: Session, frames: Tensor) -> Tensor:
    session.step(frames)
    assert session.state is not None
    return session.state.last.latents


@pytest.mark.parametrize(("first_chunk", "chunk"), [(5, 3), (2, 1), (3, 2), (4, 5)], ids=str)
def test_the_velocity_goes_over_from_the_former_sink_to_the_new_one(first_chunk: int, chunk: int) -> None:
    """Latent frame by latent frame by 1/4, for three of them, wherever chunks begin."""
    editor = tiny_editor(first_chunk, chunk)
    session, levels, passed = begun(editor), sigmas(editor.config.sampler, 2), 0
    session.anchor()
    frames = picture(session.chunk_frames)
    with torch.inference_mode():
        former = session.state.denoiser
        session.step(frames)
        last = session.state.last
        assert torch.equal(last.past.position, former.position)
        _, former = editor.dit(last.latents, 0.0, former, source=last.source, text=session.text)
        new = session.state.denoiser
        for _ in range(5):
            frames, generator = picture(session.chunk_frames), session.generator.clone_state()
            source, _ = editor.codec.encode(to_signed(frames[None]), session.state.encoder)
            x, _ = draw_noise(source, None, generator, session.sampling)
            share = torch.tensor([min(1.0, (passed + 1 + t) / 4) for t in range(chunk)])[:, None, None]
            for sigma, sigma_next in pairwise(levels):
                velocities = [editor.dit(x, sigma, s, source=source, text=session.text)[0] for s in (former, new)]
                x = x + (sigma_next - sigma) * ((1 - share) * velocities[0] + share * velocities[1])
            former, new = (editor.dit(x, 0.0, s, source=source, text=session.text)[1] for s in (former, new))
            passed += chunk
            torch.testing.assert_close(latents(session, frames), x, atol=1e-4, rtol=1e-4)
            assert (session.state.fade is None) == (passed >= FADE)


@pytest.mark.parametrize("options", [{}, GUIDED], ids=["plain", "guided"])
def test_nothing_jumps(options: dict[str, object]) -> None:
    """Just after the new sink the picture is nearer to that of the former one than if it were replaced at once, and
    at the end of the fade it is that of the new one."""
    editor = tiny_editor(5, 1)
    faded = begun(editor, **options)
    kept, hard = faded.fork(), faded.fork()
    faded.anchor(), hard.anchor()
    frames = picture(2)
    sink = [latents(session, frames) for session in (faded, kept, hard)]
    assert torch.equal(sink[0], sink[2])
    torch.testing.assert_close(sink[0], sink[1], atol=1e-5, rtol=1e-5)
    hard.state = replace(hard.state, fade=None)
    distances = []
    for _ in range(3):
        frames = picture(2)
        a, b, c = (latents(session, frames) for session in (faded, kept, hard))
        distances.append(float((a - b).norm() / (c - b).norm()))
    assert distances[0] < 0.4
    assert distances[0] < distances[1] < distances[2]
    for _ in range(30):
        frames = picture(2)
        a, b, c = (latents(session, frames) for session in (faded, kept, hard))
    assert (a - c).norm() < 0.5 * (b - c).norm()


def test_a_fade_ends_and_leaves_nothing_behind() -> None:
    session = begun(tiny_editor(1, 1))
    size = nbytes(session.state)
    session.anchor()
    sizes = []
    for _ in range(6):
        session.step(picture(2))
        sizes.append((session.state.fade is not None, nbytes(session.state) > size))
    assert sizes == [(True, True)] * 3 + [(False, False)] * 3


def test_one_set_of_passes_more_and_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    session, passes = begun(tiny_editor(5, 3)), []
    forward = session.editor.dit.forward
    monkeypatch.setattr(session.editor.dit, "forward", lambda *a, **k: passes.append(1) or forward(*a, **k))
    counts = []
    session.anchor()
    for _ in range(4):
        session.step(picture(6))
        counts.append(len(passes))
        passes.clear()
    assert counts == [4, 6, 3, 3]  # two steps and the commit


def test_there_is_nothing_to_fade_from_without_a_sink() -> None:
    for session in (begun(tiny_editor(sink=False)), tiny_editor().session("a")):
        receipt = session.anchor()
        session.step(picture(session.chunk_frames))
        assert session.state.fade is None
        assert receipt.applied == session.chunks - 1


@pytest.mark.parametrize("policy", ["recache", "reset"])
def test_a_prompt_that_changes_the_memory_ends_it(policy: str) -> None:
    session = begun(tiny_editor(1, 1))
    session.anchor()
    session.step(picture(2))
    plain = session.fork()
    plain.state = replace(plain.state, fade=None)
    for stream in (session, plain):
        stream.set_prompt("other words", policy)
    frames = picture(2)
    assert torch.equal(session.step(frames), plain.step(frames))
    assert session.state.fade is None


def test_it_goes_on_under_a_prompt_that_keeps_the_past() -> None:
    session = begun(tiny_editor(1, 1))
    session.anchor()
    session.step(picture(2))
    session.set_prompt("other words", "keep")
    session.step(picture(2))
    assert session.state.fade.done.tolist() == [1]


def test_both_memories_stay_in_range() -> None:
    """Across its end the fade is that of a stream without one, whose sinks can still move along."""
    near, far = (begun(tiny_editor(1, 1, max_position=n), chunks=12) for n in (14, 1000))
    far.state = near.state
    near.anchor(), far.anchor()
    for _ in range(5):
        frames = picture(2)
        a, b = latents(near, frames), latents(far, frames)
        if near.state.fade is None:
            break
        assert near.state.denoiser.position.tolist() == near.state.fade.former.position.tolist()
    assert near.state.denoiser.position.item() == 14
    assert far.state.denoiser.position.item() == 16
    assert all(torch.isfinite(t).all() for t in tensors(near.state))
    assert float((a - b).norm() / b.norm()) < 0.5


def test_a_second_anchor_takes_over() -> None:
    session = begun(tiny_editor(1, 1))
    session.anchor()
    session.step(picture(2))
    session.anchor()
    session.step(picture(2))
    assert session.state.denoiser.sink.tolist() == [7]
    assert session.state.fade.former.sink.tolist() == [6]
    assert session.state.fade.done.tolist() == [0]


def test_the_former_memory_is_that_of_a_stream_never_anchored() -> None:
    session = begun(tiny_editor(2, 1))
    kept = session.fork()
    session.anchor()
    frames = picture(2)
    session.step(frames), kept.step(frames)
    former: DiTState = session.state.fade.former
    for a, b in zip(tensors(former), tensors(kept.state.denoiser), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert anchor(keep_in_range(former, 1, session.editor.dit.config)).sink is None

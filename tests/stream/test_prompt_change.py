"""A prompt changes in flight: accepted at once, applied at a chunk that is told, with a policy for the past."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from sana_streaming.config import PRESETS
from sana_streaming.diffusion.sampler import sample_chunk
from sana_streaming.state import nbytes, tensors
from sana_streaming.stream.editor import Editor
from sana_streaming.stream.prompt_policy import POLICIES
from sana_streaming.stream.road import EditState, draw_noise, edit_chunk
from sana_streaming.stream.session import Session

from .tiny import picture, tiny_editor


@pytest.fixture
def editor() -> Editor:
    return tiny_editor(first_chunk=5, chunk=3)


def begun(editor: Editor, chunks: int = 4) -> Session:
    session = editor.session("a")
    for _ in range(chunks):
        session.step(picture(session.chunk_frames))
    return session


def same(a: object, b: object) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def expected(session: Session, frames: Tensor, prompt: str, **changes: object) -> tuple[Tensor, EditState]:
    """What the next chunk must be if the session's state is first changed like this."""
    editor = session.editor
    with torch.inference_mode():
        edited, state = edit_chunk(
            editor.codec,
            editor.dit,
            frames[None],
            editor.prompt(prompt),
            replace(session.state, **changes),
            session.generator.clone_state(),
            session.sampling,
        )
    return edited[0], state


def test_accepted_at_once_applied_at_the_next_chunk(editor: Editor) -> None:
    session = begun(editor, 3)
    receipt = session.set_prompt("other words")
    assert receipt.applied is None
    frames = picture(6)
    session.step(frames)
    assert receipt.applied == 3
    session.step(frames)
    assert receipt.applied == 3


def test_the_first_chunk_can_already_be_under_another_prompt(editor: Editor) -> None:
    frames = picture(9)
    for policy in POLICIES:
        session = editor.session("a")
        receipt = session.set_prompt("other words", policy)
        assert torch.equal(session.step(frames), editor.session("other words").step(frames))
        assert receipt.applied == 0


def test_a_prompt_overtaken_by_another_is_never_applied(editor: Editor) -> None:
    session, frames = begun(editor), picture(6)
    first, second = session.set_prompt("other words", "recache"), session.set_prompt("third words", "keep")
    want, _ = expected(session, frames, "third words")
    assert torch.equal(session.step(frames), want)
    assert first.applied is None
    assert second.applied == 4


def test_what_is_refused_changes_nothing(editor: Editor) -> None:
    session, frames = begun(editor), picture(6)
    want, _ = expected(session, frames, "a")
    with pytest.raises(ValueError, match="unknown policy 'forget': expected keep, recache, reset"):
        session.set_prompt("other words", "forget")
    with pytest.raises(ValueError, match="empty"):
        session.set_prompt("  ")
    assert torch.equal(session.step(frames), want)


def test_the_model_names_the_policy_if_nobody_else_does(editor: Editor) -> None:
    config, frames = editor.config, picture(6)
    for policy in POLICIES:
        editor.config = replace(config, prompt_policy=policy)
        named = begun(editor)
        unnamed = named.fork()
        named.set_prompt("other words", policy)
        unnamed.set_prompt("other words")
        assert torch.equal(named.step(frames), unnamed.step(frames))
        assert same(named.state, unnamed.state)
    assert {preset().prompt_policy for preset in PRESETS.values()} <= set(POLICIES)


def test_keep_leaves_the_past_as_it_was(editor: Editor) -> None:
    session, frames = begun(editor), picture(6)
    want, after = expected(session, frames, "other words")
    session.set_prompt("other words", "keep")
    assert torch.equal(session.step(frames), want)
    assert same(session.state, after)


def test_recache_remembers_the_last_chunk_under_the_new_prompt(editor: Editor) -> None:
    """As if the chunk, once sampled under the old prompt, had been committed under the new one."""
    session = begun(editor, 3)
    before, generator, last = session.state, session.generator.clone_state(), picture(6)
    session.step(last)
    with torch.inference_mode():
        batch = (last[None].float() / 127.5 - 1).permute(0, 4, 1, 2, 3)
        source, _ = editor.codec.encode(batch, before.encoder)
        noise, _ = draw_noise(source, None, generator, session.sampling)
        denoise = partial(editor.dit, source=source, text=editor.prompt("a"))
        latents, old = sample_chunk(denoise, noise, session.sampling.levels, before.denoiser)
        text = editor.prompt("other words")
        _, renewed = editor.dit(latents, 0.0, before.denoiser, source=source, text=text)
    assert same(old, session.state.denoiser)
    assert not same(renewed, old)

    frames = picture(6)
    want, after = expected(session, frames, "other words", denoiser=renewed)
    kept, _ = expected(session, frames, "other words")
    session.set_prompt("other words", "recache")
    got = session.step(frames)
    assert torch.equal(got, want)
    assert not torch.equal(got, kept)
    assert same(session.state, after)


def test_recache_of_the_only_chunk_renews_the_sink(editor: Editor) -> None:
    session = begun(editor, 1)
    assert editor.config.prompt_policy == "recache"
    old = session.state.denoiser.blocks[1].attention.sink
    session.set_prompt("other words")
    session.step(picture(6))
    new = session.state.denoiser.blocks[1].attention.sink
    assert new.keys.shape == old.keys.shape
    assert not torch.equal(new.values, old.values)


def test_recache_at_the_end_of_the_range_is_exact() -> None:
    """What the last chunk read stands at other positions than what the next one reads."""
    near, far = (tiny_editor(sink=False, max_position=n).session("a", steps=1) for n in (9, 1000))
    for i in range(20):
        if i in (6, 12, 13):
            near.set_prompt(f"words of chunk {i}"), far.set_prompt(f"words of chunk {i}")
        frames = picture(near.chunk_frames)
        near.step(frames), far.step(frames)
        a, b = near.state.last.latents, far.state.last.latents
        assert float((a - b).norm() / b.norm()) < 1e-5
    assert near.state.denoiser.position.item() == 9


def test_reset_forgets_but_the_pictures_go_on(editor: Editor) -> None:
    session = begun(editor)
    session.set_prompt("other words", "reset")
    assert session.chunk_frames == 10  # five whole latents: only the first of a stream is short
    frames, fresh = picture(10), editor.dit.init_state(1, (2, 3))
    want, after = expected(session, frames, "other words", denoiser=fresh)
    assert torch.equal(session.step(frames), want)
    assert same(session.state, after)
    assert session.state.denoiser.position.tolist() == [5]
    assert session.chunk_frames == 6


def test_reset_takes_a_chunk_that_was_already_being_gathered(editor: Editor) -> None:
    session = begun(editor)
    receipt = session.set_prompt("other words", "reset")
    session.step(picture(6))
    assert receipt.applied == 4
    assert session.state.denoiser.position.tolist() == [3]
    with pytest.raises(ValueError, match="expected 6 RGB frames"):
        session.step(picture(10))


def test_a_reset_stays_one_when_another_prompt_overtakes_it(editor: Editor) -> None:
    """A chunk of the length that it asks for may be gathering."""
    session, frames = begun(editor), picture(10)
    session.set_prompt("other words", "reset")
    want, _ = expected(session, frames, "third words", denoiser=editor.dit.init_state(1, (2, 3)))
    receipt = session.set_prompt("third words", "keep")
    assert torch.equal(session.step(frames), want)
    assert receipt.applied == 4


@pytest.mark.parametrize("policy", POLICIES)
def test_memory_stays_bounded(editor: Editor, policy: str) -> None:
    session = begun(editor, 6)
    size = nbytes(session.state), len(list(tensors(session.state)))
    for i in range(12):
        session.set_prompt(f"words {i}", policy)
        session.step(picture(session.chunk_frames))
    for _ in range(3):
        session.step(picture(6))
    assert (nbytes(session.state), len(list(tensors(session.state)))) == size


def test_the_undo_of_one_chunk_shares_what_it_can(editor: Editor) -> None:
    """Beside the state stands only what the last chunk replaced."""
    state = begun(editor, 6).state
    both, now = nbytes(state), nbytes(replace(state, last=None))
    own = sum(nbytes(b.attention) + nbytes(b.ffn) for b in state.last.past.blocks)
    shared = nbytes(state.denoiser.blocks[1].attention.sink)
    past_tensors = 2 * 8 - 8  # the sink's position is shared, the position is not
    assert both - now == own - shared + past_tensors + nbytes(state.last.latents) + nbytes(state.last.source)


def test_a_chunk_that_fails_leaves_everything_as_it_was(editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    session, frames = begun(editor), picture(6)
    twin = session.fork()
    prompt, sink = session.set_prompt("other words"), session.anchor()
    with monkeypatch.context() as patch:
        patch.setattr(editor.codec, "decode", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("out of memory")))
        with pytest.raises(MemoryError, match="out of memory: tiny at"):
            session.step(frames)
    assert prompt.applied is None
    assert sink.applied is None
    assert same(session.state, twin.state)
    twin.set_prompt("other words")
    twin.anchor()
    assert torch.equal(session.step(frames), twin.step(frames))
    assert prompt.applied == sink.applied == 4


def test_a_prompt_that_comes_while_a_chunk_runs_waits_for_the_next(
    editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, frames = begun(editor), picture(6)
    first, late = session.set_prompt("other words", "keep"), []
    want, _ = expected(session, frames, "other words")
    decode = editor.codec.decode

    def interrupted(*arguments: object) -> object:
        late.append(session.set_prompt("third words", "keep"))
        return decode(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(editor.codec, "decode", interrupted)
        assert torch.equal(session.step(frames), want)
    assert first.applied == 4
    assert late[0].applied is None
    session.step(frames)
    assert late[0].applied == 5


def test_a_fork_has_its_own_receipts(editor: Editor) -> None:
    session, frames = begun(editor), picture(6)
    prompt, sink = session.set_prompt("other words"), session.anchor()
    preview = session.fork()
    shown = preview.step(frames)
    assert prompt.applied is None
    assert sink.applied is None
    assert torch.equal(session.step(frames), shown)
    assert prompt.applied == sink.applied == 4

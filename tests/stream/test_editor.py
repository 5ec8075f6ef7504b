"""The road of a chunk and the sessions on it, with a tiny model of random weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sana_streaming import checkpoint
from sana_streaming.diffusion.flow import Sampling
from sana_streaming.state import nbytes, tensors
from sana_streaming.stream.editor import Editor, pick_device
from sana_streaming.stream.road import draw_noise, edit_chunk, edit_clip, init_state, to_signed, to_uint8

from .tiny import SMALL, encode_text, random_editor

CONFIG = replace(
    SMALL,
    dit=replace(SMALL.dit, depth=4, softmax_ratio=0.25, window=4),
    sampler=replace(SMALL.sampler, first_chunk=2),
)
SIZE = (32, 48)


@pytest.fixture
def editor() -> Editor:
    return random_editor(CONFIG)


def video(chunks: int = 4) -> list[Tensor]:
    """Frames for the first chunk and those after it."""
    frames = [8] + [4] * (chunks - 1)
    return [torch.randint(0, 256, (f, *SIZE, 3), dtype=torch.uint8) for f in frames]


def edited(editor: Editor, chunks: list[Tensor], prompt: str = "a", seed: int = 0) -> Tensor:
    session = editor.session(prompt, seed=seed)
    return torch.cat([session.step(chunk) for chunk in chunks])


def test_frames_survive_the_change_of_range() -> None:
    frames = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16, 1).expand(1, 1, 16, 16, 3)
    assert torch.equal(to_uint8(to_signed(frames)), frames)
    assert torch.equal(to_uint8(torch.tensor([-2.0, 3.0]).view(1, 1, 1, 1, 2)).flatten(), torch.tensor([0, 255]))


def test_same_seed_same_pixels_other_seed_other_pixels(editor: Editor) -> None:
    chunks = video()
    first = edited(editor, chunks)
    assert torch.equal(first, edited(editor, chunks))
    assert not torch.equal(first, edited(editor, chunks, seed=1))
    assert first.dtype == torch.uint8
    assert first.shape == (20, *SIZE, 3)


def test_a_session_is_the_road_itself(editor: Editor) -> None:
    """Nothing is added to what training and evaluation run."""
    chunks, generator = video(3), torch.Generator().manual_seed(0)
    session = editor.session("a")
    state, text = init_state(editor.codec, editor.dit, 1, *SIZE), editor.prompt("a")
    for chunk in chunks:
        with torch.inference_mode():
            expected, state = edit_chunk(
                editor.codec, editor.dit, chunk[None], text, state, generator, session.sampling
            )
        assert torch.equal(session.step(chunk), expected[0])
    assert session.state is not None
    assert all(torch.equal(a, b) for a, b in zip(tensors(session.state), tensors(state), strict=True))


def test_noise_that_is_repeated_is_part_of_the_state(editor: Editor) -> None:
    """The same for every latent frame of a stream, other for other seeds, and scaled by the temperature."""
    calm = replace(CONFIG, sampler=replace(CONFIG.sampler, repeat_noise=True, temperature=0.5))
    session = Editor(calm, editor.dit, editor.codec, encode_text).session("a", seed=1)
    chunks = video(3)
    session.step(chunks[0])
    assert session.state is not None
    first = session.state.noise
    assert first is not None
    assert first.shape == (1, 4, 1, 2, 3)
    assert torch.equal(first, 0.5 * torch.randn(first.shape, generator=torch.Generator().manual_seed(1)))
    session.step(chunks[1])
    assert torch.equal(session.state.noise, first)
    noise, _ = draw_noise(torch.zeros(1, 4, 3, 2, 3), first, session.generator, session.sampling)
    assert torch.equal(noise, first.expand(-1, -1, 3, -1, -1))


def test_a_clip_is_a_stream_of_chunks(editor: Editor) -> None:
    frames = torch.cat(video(3))
    session = editor.session("a", chunk=1)
    expected = torch.cat([session.step(chunk) for chunk in frames.split(4)])
    with torch.inference_mode():
        got = edit_clip(
            editor.codec,
            editor.dit,
            frames[None],
            editor.prompt("a"),
            torch.Generator().manual_seed(0),
            session.sampling,
            1,
        )
    assert torch.equal(got[0], expected)


def test_future_never_changes_past(editor: Editor) -> None:
    chunks = video()
    other = [*chunks[:2], *video()[2:]]
    a, b = edited(editor, chunks), edited(editor, other)
    assert torch.equal(a[:12], b[:12])
    assert not torch.equal(a[12:], b[12:])


def test_a_preview_leaves_the_stream_untouched(editor: Editor) -> None:
    chunks = video()
    session = editor.session("a")
    session.step(chunks[0])
    preview = session.fork()
    preview.set_prompt("other words")
    preview.step(chunks[2])
    rest = torch.cat([session.step(chunk) for chunk in chunks[1:]])
    assert torch.equal(rest, edited(editor, chunks)[8:])


def test_a_fork_goes_on_bit_for_bit(editor: Editor) -> None:
    chunks = video()
    session = editor.session("a")
    session.step(chunks[0])
    fork = session.fork()
    assert torch.equal(session.step(chunks[1]), fork.step(chunks[1]))


def test_sessions_do_not_touch_each_other(editor: Editor) -> None:
    chunks, others = video(), video()
    one, two = editor.session("a", seed=3), editor.session("other words", seed=4)
    interleaved = [(one.step(a), two.step(b)) for a, b in zip(chunks, others, strict=True)]
    assert torch.equal(torch.cat([a for a, _ in interleaved]), edited(editor, chunks, seed=3))
    assert torch.equal(torch.cat([b for _, b in interleaved]), edited(editor, others, "other words", seed=4))


def test_sessions_of_different_sizes_share_an_editor(editor: Editor) -> None:
    large = [torch.randint(0, 256, (len(chunk), 48, 64, 3), dtype=torch.uint8) for chunk in video(3)]
    small = video(3)
    alone = edited(editor, small), edited(editor, large)
    sessions = editor.session("a"), editor.session("a")
    pairs = [(sessions[0].step(a), sessions[1].step(b)) for a, b in zip(small, large, strict=True)]
    assert all(
        torch.equal(torch.cat(parts), whole) for parts, whole in zip(zip(*pairs, strict=True), alone, strict=True)
    )


def test_prompt_changes_at_the_chunk_boundary(editor: Editor) -> None:
    chunks = video()
    session = editor.session("a")
    pieces = []
    for i, chunk in enumerate(chunks):
        if i == 2:
            session.set_prompt("other words")
        pieces.append(session.step(chunk))
    switched, plain = torch.cat(pieces), edited(editor, chunks)
    assert torch.equal(switched[:12], plain[:12])
    assert not torch.equal(switched[12:16], plain[12:16])


def test_memory_after_1000_chunks_is_that_after_10(editor: Editor) -> None:
    session, sizes = editor.session("a", steps=1), {}
    frames = video(2)
    for i in range(1000):
        result = session.step(frames[min(i, 1)])
        if i + 1 in (10, 1000):
            sizes[i + 1] = nbytes(session.state)
    assert sizes[10] == sizes[1000]
    assert session.state is not None
    assert all(torch.isfinite(t).all() for t in tensors(session.state))
    assert result.float().std() > 0


def test_chunk_lengths(editor: Editor) -> None:
    session = editor.session("a")
    assert session.chunk_frames == 8
    session.step(video(1)[0])
    assert session.chunk_frames == 4
    assert editor.session("a", chunk=3).chunk_frames == 12


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (torch.zeros(7, *SIZE, 3, dtype=torch.uint8), "expected 8 RGB frames"),
        (torch.zeros(8, *SIZE, 4, dtype=torch.uint8), "expected 8 RGB frames"),
        (torch.zeros(8, *SIZE, 3), "expected 8 RGB frames"),
        (torch.zeros(8, 40, 48, 3, dtype=torch.uint8), "multiples of 16, got 40x48"),
    ],
)
def test_frames_that_do_not_fit(editor: Editor, frames: Tensor, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        editor.session("a").step(frames)


def test_a_stream_keeps_its_size(editor: Editor) -> None:
    session = editor.session("a")
    session.step(video(1)[0])
    with pytest.raises(ValueError, match="32x48"):
        session.step(torch.zeros(4, 48, 32, 3, dtype=torch.uint8))


def test_settings_that_make_no_sense(editor: Editor) -> None:
    with pytest.raises(ValueError, match="empty"):
        editor.session("  ")
    with pytest.raises(ValueError, match="1 to 1000 denoising steps, got 0"):
        editor.session("a", steps=0)
    with pytest.raises(ValueError, match="at least 1 latent frame"):
        editor.session("a", chunk=0)
    with pytest.raises(ValueError, match="seed"):
        editor.session("a", seed=-1)
    for device in ("toaster", "meta", "cuda:99"):
        with pytest.raises(ValueError, match=f"'{device}' cannot be used here: expected cpu"):
            pick_device(device)


def test_gradients_flow_through_the_road(editor: Editor) -> None:
    """Distillation rolls out what users run."""
    editor.dit.requires_grad_(True)
    text = editor.dit.encode_text(encode_text("a")[None])
    state = init_state(editor.codec, editor.dit, 1, *SIZE)
    _, state = edit_chunk(
        editor.codec, editor.dit, video(1)[0][None], text, state, torch.Generator().manual_seed(0), Sampling((1.0, 0.0))
    )
    memory = next(t for t in tensors(state.denoiser.blocks) if t.requires_grad)
    memory.sum().backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in editor.dit.parameters())


class TestCheckpoint:
    def test_round_trip(self, editor: Editor, tmp_path: Path) -> None:
        checkpoint.save(tmp_path, CONFIG, editor.dit.state_dict(), editor.codec.state_dict())
        config, dit, codec = checkpoint.load(tmp_path, torch.device("cpu"), torch.float32)
        assert config == CONFIG
        for module, original in ((dit, editor.dit), (codec, editor.codec)):
            for key, value in original.state_dict().items():
                torch.testing.assert_close(module.state_dict()[key], value, atol=1e-3, rtol=1e-3)

    def test_bfloat16_keeps_what_must_be_float32(self, editor: Editor, tmp_path: Path) -> None:
        checkpoint.save(tmp_path, CONFIG, editor.dit.state_dict(), editor.codec.state_dict())
        _, dit, codec = checkpoint.load(tmp_path, torch.device("cpu"), torch.bfloat16)
        assert dit.blocks[0].attention.A_log.dtype == torch.float32
        assert codec.latents_std.dtype == torch.float32
        assert dit.input.weight.dtype == torch.bfloat16

    def test_first_key_that_does_not_fit_is_named(self, editor: Editor, tmp_path: Path) -> None:
        weights = dict(editor.dit.state_dict())
        del weights["blocks.1.ffn.up.weight"]
        checkpoint.save(tmp_path, CONFIG, weights, editor.codec.state_dict())
        with pytest.raises(ValueError, match=r"'blocks.1.ffn.up.weight' is missing"):
            checkpoint.load(tmp_path, torch.device("cpu"), torch.float32)
        wider = replace(CONFIG, dit=replace(CONFIG.dit, ffn_dim=20))
        checkpoint.save(tmp_path, wider, editor.dit.state_dict(), editor.codec.state_dict())
        with pytest.raises(ValueError, match=r"'blocks.0.ffn.up.weight' has shape \(32, 24\), expected \(40, 24\)"):
            checkpoint.load(tmp_path, torch.device("cpu"), torch.float32)
        extra = editor.dit.state_dict() | {"surplus": torch.zeros(1)}
        checkpoint.save(tmp_path, CONFIG, extra, editor.codec.state_dict())
        with pytest.raises(ValueError, match="'surplus' is not part"):
            checkpoint.load(tmp_path, torch.device("cpu"), torch.float32)

    def test_unknown_model(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="unknown model 'nan0'"):
            checkpoint.find("nan0")
        (tmp_path / "config.json").write_text("{")
        with pytest.raises(ValueError, match="not valid JSON"):
            checkpoint.load_config(checkpoint.find(tmp_path))

"""Short clips that are edited as a whole, and guidance away from a negative prompt, for clips and for streams."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sana_streaming import checkpoint
from sana_streaming.checkpoint.published import WHOLE_CLIPS, import_published
from sana_streaming.config import SamplerConfig, from_dict, nano, to_dict, two_b
from sana_streaming.diffusion.dpm_solver import dpm_sigmas, sample_clip
from sana_streaming.diffusion.flow import sigmas
from sana_streaming.io import VideoError
from sana_streaming.model.dit import TextContext
from sana_streaming.state import tensors
from sana_streaming.stream.clip import ClipSession
from sana_streaming.stream.editor import Editor
from sana_streaming.stream.prompt_policy import POLICIES
from sana_streaming.stream.road import init_state, to_signed, to_uint8
from sana_streaming.stream.run import edit_file
from sana_streaming.text import load_encoder

from ..clips import sound_of, times_of, write_clip
from ..tiny_2b import published, tiny_2b
from .tiny import SIZE, encode_text, picture, tiny_editor


def clip_editor(**changes: object) -> Editor:
    """Edits clips of 2 to 4 latents: up to 7 frames."""
    editor = tiny_editor()
    sampler = replace(editor.config.sampler, steps=5, shift=8.0, guidance=3.0, negative_prompt="dull", clip=(2, 4))
    return with_sampler(editor, replace(sampler, **changes))


def with_sampler(editor: Editor, sampler: SamplerConfig) -> Editor:
    return Editor(replace(editor.config, sampler=sampler), editor.dit, editor.codec, encode_text)


def near(got: Tensor, expected: Tensor) -> bool:
    """The same picture but for the rounding of products of another shape."""
    difference = (got.int() - expected.int()).abs()
    return difference.max() <= 1 and difference.float().mean() < 0.01


class TestClip:
    def test_it_is_one_chunk_sampled_by_dpm_solver_with_guidance(self) -> None:
        """Computed here in two passes of batch 1."""
        editor, frames = clip_editor(), picture(7)
        negative, text = editor.prompt("dull"), editor.prompt("a")
        with torch.inference_mode():
            state = init_state(editor.codec, editor.dit, 1, *SIZE)
            source, _ = editor.codec.encode(to_signed(frames[None]), state.encoder)

            def denoise(x: Tensor, sigma: float, past: None) -> tuple[Tensor, None]:
                away, _ = editor.dit(x, sigma, state.denoiser, source=source, text=negative)
                towards, _ = editor.dit(x, sigma, state.denoiser, source=source, text=text)
                return away + 3 * (towards - away), None

            noise = torch.randn(source.shape, generator=torch.Generator().manual_seed(4))
            latents = sample_clip(denoise, noise, dpm_sigmas(5, shift=8.0), None)
            expected = to_uint8(editor.codec.decode(latents, state.decoder)[0])[0]
        got = editor.edit_clip(frames, "a", seed=4)
        assert near(got, expected)
        assert got.float().std() > 0
        for other in ({"guidance": 1}, {"guidance": 2.0}, {"negative_prompt": "loud"}, {"steps": 3}, {"seed": 5}):
            assert not near(editor.edit_clip(frames, "a", **{"seed": 4, **other}), expected)

    def test_its_frames_see_each_other_in_both_directions(self) -> None:
        editor, frames = clip_editor(), picture(7)
        other = torch.cat([frames[:6], 255 - frames[6:]])
        assert not torch.equal(editor.edit_clip(frames, "a")[0], editor.edit_clip(other, "a")[0])

    @pytest.mark.parametrize("count", range(2, 8))
    def test_any_length_within_its_range(self, count: int) -> None:
        """What does not fill the last latent is filled up with the last frame, and cut off again."""
        editor, frames = clip_editor(), picture(count)
        filled = torch.cat([frames, *[frames[-1:]] * (1 - count % 2)])
        assert torch.equal(editor.edit_clip(frames, "a"), editor.edit_clip(filled, "a")[:count])

    @pytest.mark.parametrize(("count", "got"), [(0, "fewer"), (1, "fewer"), (8, "more"), (100, "more")])
    def test_too_short_and_too_long_are_one_line(self, count: int, got: str) -> None:
        with pytest.raises(ValueError, match=rf"^expected a clip of 2 to 7 frames, got {got}$"):
            clip_editor().edit_clip(picture(count), "a")

    def test_a_session_gives_it_at_the_end(self) -> None:
        editor, frames = clip_editor(), picture(5)
        session = editor.session("a", seed=2)
        assert isinstance(session, ClipSession)
        for piece in frames.split([1, 2, 2]):
            assert session.chunk_frames == len(piece)
            assert session.step(piece).shape == (0, *SIZE, 3)
        expected = editor.edit_clip(frames, "a", seed=2)
        assert torch.equal(session.flush(), expected)
        assert torch.equal(session.flush(), expected)

    def test_what_goes_with_the_other_kind_of_model_is_refused(self) -> None:
        with pytest.raises(ValueError, match="the model tiny edits streams"):
            tiny_editor().edit_clip(picture(3), "a")
        with pytest.raises(ValueError, match="length of chunks"):
            clip_editor().session("a", chunk=2)
        session = clip_editor().session("a")
        with pytest.raises(ValueError, match="prompt cannot change"):
            session.set_prompt("b")
        with pytest.raises(ValueError, match="nothing to anchor"):
            session.anchor()
        with pytest.raises(ValueError, match="nothing to forget"):
            session.reset()
        with pytest.raises(ValueError, match="anew at cuts"):
            clip_editor().session("a", cuts="anchor")
        with pytest.raises(ValueError, match="1 to 1000 denoising steps"):
            clip_editor().session("a", steps=0)
        with pytest.raises(ValueError, match="expected 1 RGB frames"):
            clip_editor().edit_clip(picture(3).float(), "a")

    def test_a_file(self, tmp_path: Path) -> None:
        editor = clip_editor(clip=(2, 16), steps=2)
        source = write_clip(tmp_path / "in.mp4", frames=20, tone=0.8)
        report = edit_file(editor, source, tmp_path / "out.mp4", "a", size=32, compare=True)
        assert report.frames == 20
        assert times_of(tmp_path / "out.mp4") == times_of(source)
        assert abs(sound_of(tmp_path / "out.mp4")[1] - 0.8) < 0.05

    @pytest.mark.parametrize(("clip", "got"), [((2, 8), "15 frames, got more"), ((12, 13), "25 frames, got fewer")])
    def test_a_file_that_does_not_fit_leaves_nothing(self, tmp_path: Path, clip: tuple[int, int], got: str) -> None:
        source = write_clip(tmp_path / "in.mp4", frames=20)
        with pytest.raises(ValueError, match=got) as error:
            edit_file(clip_editor(clip=clip), source, tmp_path / "out.mp4", "a", size=32)
        assert not isinstance(error.value, VideoError)
        assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


class TestPublished:
    def test_each_variant_carries_its_sampler(self, tmp_path: Path) -> None:
        for variant, sampler in (("streaming", two_b().sampler), ("bidirectional", WHOLE_CLIPS)):
            torch.save(published(variant), tmp_path / "dit.pth")
            config = import_published(tmp_path / "dit.pth", tmp_path / variant, tiny_2b())
            assert config.sampler == checkpoint.load_config(tmp_path / variant).sampler == sampler
        assert (WHOLE_CLIPS.steps, WHOLE_CLIPS.shift, WHOLE_CLIPS.guidance) == (50, 8.0, 6.0)
        assert from_dict(SamplerConfig, to_dict(WHOLE_CLIPS)) == WHOLE_CLIPS

    def test_settings_that_make_no_sense(self) -> None:
        for changes, message in (
            ({"guidance": 0.5}, "guidance of 1 or more, got 0.5"),
            ({"guidance": float("nan")}, "guidance of 1 or more"),
            ({"clip": (3,)}, "fewest and the most"),
            ({"clip": (5, 4)}, "fewest and the most"),
            ({"clip": (0, 4)}, "fewest and the most"),
        ):
            with pytest.raises(ValueError, match=message):
                replace(WHOLE_CLIPS, **changes)

    def test_the_motion_score_stands_behind_the_instruction_alone(self) -> None:
        read: list[str] = []

        def encode(kind: str) -> object:
            return lambda prompt: read.append(kind + prompt) or encode_text(prompt or "nothing")

        editor = clip_editor(motion_score=10, negative_prompt="")
        told = Editor(editor.config, editor.dit, editor.codec, encode("+"), encode("-"))
        told.session(" make it snow\n")
        assert sorted(read) == ["+make it snow motion score: 10.", "-"]
        with pytest.raises(ValueError, match="empty prompt"):
            editor.session(" ", negative_prompt="dull")


def guided_by_hand(
    editor: Editor, chunks: Sequence[Tensor], prompts: Sequence[str], negative: str, scale: float
) -> list[Tensor]:
    """Latents of each chunk, by two transformers side by side. Where the prompt changes the past is remembered anew."""
    texts: list[TextContext] = [editor.prompt(negative), editor.prompt(prompts[0])]
    first = init_state(editor.codec, editor.dit, 1, *SIZE)
    encoder, pasts, before, latents = first.encoder, [first.denoiser] * 2, [first.denoiser] * 2, []
    generator, levels, source = torch.Generator().manual_seed(0), sigmas(editor.config.sampler, 2), torch.empty(0)
    for chunk, prompt, last in zip(chunks, prompts, [prompts[0], *prompts], strict=False):
        with torch.inference_mode():
            if prompt != last:
                texts[1] = editor.prompt(prompt)
                pasts = [
                    editor.dit(latents[-1], 0.0, past, source=source, text=t)[1]
                    for past, t in zip(before, texts, strict=True)
                ]
            source, encoder = editor.codec.encode(to_signed(chunk[None]), encoder)
            x = torch.randn(source.shape, generator=generator)
            for sigma, sigma_next in pairwise(levels):
                away, towards = (
                    editor.dit(x, sigma, past, source=source, text=t)[0] for past, t in zip(pasts, texts, strict=True)
                )
                x = x + (sigma_next - sigma) * (away + scale * (towards - away))
            before = pasts
            pasts = [editor.dit(x, 0.0, past, source=source, text=t)[1] for past, t in zip(pasts, texts, strict=True)]
            latents.append(x)
    return latents


def test_the_shipped_encoder_reads_negative_prompts_like_all_others() -> None:
    encoder = load_encoder(nano().text)
    assert torch.equal(encoder.negative("dull and grey"), encoder("dull and grey"))
    with pytest.raises(ValueError, match="expected a negative prompt, which guidance leads away from, got none"):
        encoder.negative(" ")


class TestGuidedStream:
    @pytest.mark.parametrize("prompts", ["aaaa", ["a", "a", "a longer prompt", "a longer prompt"]], ids=["one", "two"])
    def test_it_is_two_streams_side_by_side(self, prompts: Sequence[str]) -> None:
        editor, chunks = tiny_editor(), [picture(3), picture(2), picture(2), picture(2)]
        session = editor.session(prompts[0], guidance=2.5, negative_prompt="dull and grey")
        expected = guided_by_hand(editor, chunks, prompts, "dull and grey", 2.5)
        plain = editor.session(prompts[0])
        for i, (chunk, prompt, latents) in enumerate(zip(chunks, prompts, expected, strict=True)):
            if i and prompt != prompts[i - 1]:
                session.set_prompt(prompt, "recache"), plain.set_prompt(prompt, "recache")
            assert session.step(chunk).shape == chunk.shape
            assert session.state is not None
            torch.testing.assert_close(session.state.last.latents[:1], latents, atol=1e-4, rtol=0)
            plain.step(chunk)
            assert (plain.state.last.latents - latents).abs().max() > 1e-2

    def test_away_from_the_prompt_itself_changes_nothing(self) -> None:
        editor, frames = tiny_editor(), picture(3)
        got = editor.session("a", guidance=4.0, negative_prompt="a").step(frames)
        assert near(got, editor.session("a").step(frames))

    def test_guidance_of_1_is_none(self) -> None:
        editor, frames = tiny_editor(), picture(3)
        session = editor.session("a", guidance=1)
        assert torch.equal(session.step(frames), editor.session("a").step(frames))
        assert session.state.denoiser.position.tolist() == [2]

    @pytest.mark.parametrize("policy", POLICIES)
    def test_without_end_and_through_prompts(self, policy: str) -> None:
        session = tiny_editor(max_position=16).session("a", guidance=2.0, negative_prompt="dull", steps=1)
        for i in range(30):
            if i == 20:
                session.set_prompt("another", policy), session.anchor()
            session.step(picture(session.chunk_frames))
        assert session.state is not None
        assert session.state.denoiser.position.shape == (2,)
        assert all(torch.isfinite(t).all() for t in tensors(session.state))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"guidance": 0.9}, "guidance of 1 or more, got 0.9"),
            ({"guidance": float("nan")}, "guidance of 1 or more"),
            ({"guidance": float("inf")}, "guidance of 1 or more"),
            ({"guidance": 2.0}, "empty prompt"),
            ({"guidance": 2.0, "negative_prompt": " "}, "empty prompt"),
            ({"negative_prompt": "dull"}, "no effect without guidance"),
        ],
        ids=str,
    )
    def test_what_is_refused(self, options: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            tiny_editor().session("a", **options)

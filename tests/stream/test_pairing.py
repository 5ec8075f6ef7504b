"""Codecs that look ahead: every edited frame meets its source again, and none is lost at the end."""

import json
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sana_streaming.bench.watch import Watch, WatchedCodec
from sana_streaming.codec import build_codec
from sana_streaming.codec.ltx2 import published_config
from sana_streaming.diffusion.flow import Sampling
from sana_streaming.io import Frame
from sana_streaming.model.dit import DiT
from sana_streaming.stream.editor import Editor
from sana_streaming.stream.pairing import Pairs
from sana_streaming.stream.road import edit_clip, to_uint8
from sana_streaming.stream.run import edit_file

from ..clips import sound_of, times_of, write_clip
from .fakes import FakeReader, FakeWriter, run_whole
from .tiny import SIZE, AverageCodec, encode_text, picture, tiny_editor

GOLDEN = Path(__file__).parents[1] / "golden"


@dataclass(frozen=True)
class LateState:
    inner: Any
    held: Tensor | None


class LateCodec(AverageCodec):
    """Gives every frame five frames later."""

    late = 5

    def init_decoder(self, batch: int) -> Any:
        return LateState(super().init_decoder(batch), None)

    def decode(self, latents: Tensor, state: Any) -> tuple[Tensor, Any]:
        frames, inner = super().decode(latents, state.inner)
        if state.held is not None:
            frames = torch.cat([state.held, frames], dim=2)
        ready = max(0, frames.shape[2] - self.late)
        return frames[:, :, :ready], LateState(inner, frames[:, :, ready:].clone())

    def flush(self, state: Any) -> Tensor | None:
        return state.held


def late_editor() -> Editor:
    editor = tiny_editor()
    return Editor(editor.config, editor.dit, LateCodec(editor.config.codec), encode_text)


def frame(number: int) -> Frame:
    return Frame(np.full((4, 6, 3), number, np.uint8), Fraction(number, 25))


def numbers(pairs: list[tuple[Frame, np.ndarray]]) -> list[tuple[int, int]]:
    return [(int(source.rgb[0, 0, 0]), int(edited[0, 0, 0])) for source, edited in pairs]


def expect(pairs: Pairs, *frames: int) -> None:
    for number in frames:
        pairs.expect(frame(number))


class TestPairs:
    def test_first_in_first_out(self) -> None:
        pairs, edited = Pairs(), np.stack([frame(i).rgb for i in range(5)])
        expect(pairs, 0, 1)
        assert numbers(pairs.join(edited[:0])) == []
        expect(pairs, 2, 3)
        assert numbers(pairs.join(edited[:1])) == [(0, 0)]
        expect(pairs, 4)
        assert numbers(pairs.join(edited[1:3])) == [(1, 1), (2, 2)]
        assert (len(pairs.waiting), pairs.incomplete) == (2, True)
        assert numbers(pairs.join(edited[3:])) == [(3, 3), (4, 4)]
        assert (len(pairs.waiting), pairs.incomplete) == (0, False)

    def test_what_fills_up_a_chunk_falls_away(self) -> None:
        pairs, edited = Pairs(), np.stack([frame(i).rgb for i in range(4)])
        expect(pairs, 0, 1)
        assert numbers(pairs.join(edited)) == [(0, 0), (1, 1)]
        expect(pairs, 2)
        assert numbers(pairs.join(edited[2:])) == [(2, 2)]

    def test_frames_that_are_not_edited_show_the_one_before(self) -> None:
        pairs, edited = Pairs(), np.stack([frame(i).rgb for i in (10, 13, 15)])
        for i in range(7):
            pairs.expect(frame(i), edited=i in (0, 3, 5))
        assert numbers(pairs.join(edited[:1])) == [(0, 10), (1, 10), (2, 10)]
        assert pairs.incomplete
        assert numbers(pairs.join(edited[1:])) == [(3, 13), (4, 13), (5, 15), (6, 15)]
        pairs.expect(frame(7), edited=False)
        assert not pairs.incomplete
        assert numbers(pairs.join()) == [(7, 15)]

    def test_edited_frames_are_not_copied(self) -> None:
        edited, pairs = np.zeros((1, 4, 6, 3), np.uint8), Pairs()
        expect(pairs, 0)
        ((_, rgb),) = pairs.join(edited)
        assert np.shares_memory(rgb, edited)


class TestSession:
    def test_frames_come_later_and_stay_the_same(self) -> None:
        plain, late = tiny_editor().session("a"), late_editor().session("a")
        chunks = [picture(3), *(picture(2) for _ in range(4))]
        at_once = torch.cat([plain.step(chunk) for chunk in chunks])
        pieces = [late.step(chunk) for chunk in chunks]
        assert [len(piece) for piece in pieces] == [0, 0, 2, 2, 2]
        rest = late.flush()
        assert torch.equal(torch.cat([*pieces, rest]), at_once)
        assert torch.equal(late.flush(), rest)
        assert late.fork().flush().shape == (5, *SIZE, 3)

    def test_nothing_is_held_back_otherwise(self) -> None:
        session = tiny_editor().session("a")
        assert len(session.flush()) == 0
        session.step(picture(3))
        assert session.flush().shape == (0, *SIZE, 3)
        assert session.flush().dtype == torch.uint8

    def test_the_windows_of_ltx2(self) -> None:
        """Chunk by chunk as all latents at once."""
        torch.manual_seed(0)
        codec_config, _ = published_config(json.loads((GOLDEN / "ltx2_tiny_config.json").read_text()))
        config = tiny_editor().config
        config = replace(
            config,
            codec=replace(codec_config, decode="chunk_tile"),
            dit=replace(config.dit, latent_channels=codec_config.latent_channels),
            sampler=replace(config.sampler, first_chunk=3, chunk=2),
        )
        codec = build_codec(config.codec).eval().requires_grad_(False)
        editor = Editor(config, DiT(config.dit).eval().requires_grad_(False), codec, encode_text)
        session, pieces, latents = editor.session("a", steps=1), [], []
        for _ in range(3):
            frames = torch.randint(0, 256, (session.chunk_frames, 64, 64, 3), dtype=torch.uint8)
            pieces.append(session.step(frames))
            latents.append(session.state.last.latents)
        pieces.append(session.flush())
        assert [len(piece) for piece in pieces] == [0, 17, 16, 16]
        state = codec.init_decoder(1)
        with torch.inference_mode():
            whole, state = codec.decode(torch.cat(latents, dim=2), state)
            whole = to_uint8(torch.cat([whole, codec.flush(state)], dim=2))[0]
        difference = (torch.cat(pieces).int() - whole.int()).abs()
        assert difference.max() <= 1
        assert difference.float().mean() < 0.01
        assert whole.float().std() > 0


class TestRoad:
    @pytest.mark.parametrize("count", [0, 1, 3, 4, 17, 20])
    def test_every_frame_meets_its_source(self, count: int) -> None:
        writers = FakeWriter(), FakeWriter()
        for editor, writer in zip((tiny_editor(), late_editor()), writers, strict=True):
            report = run_whole(FakeReader(count), editor.session("a"), writer, stride=2)
            assert (report.frames, writer.end) == (count, "whole")
            assert writer.pts == [Fraction(i, 25) for i in range(count)]
        assert writers[0].sums == writers[1].sums

    def test_a_file_keeps_its_times_and_its_sound(self, tmp_path: Path) -> None:
        ticks = [0, 512, 1000, 2100, 2612, 3100, 4000, 4600]
        source = write_clip(tmp_path / "in.mp4", frames=8, ticks=ticks, tone=0.4)
        report = edit_file(late_editor(), source, tmp_path / "out.mp4", "a", size=32, steps=1)
        assert report.frames == 8
        assert times_of(tmp_path / "out.mp4") == [Fraction(t, 12800) for t in ticks]
        assert abs(sound_of(tmp_path / "out.mp4")[1] - 0.4) < 0.03

    def test_clips_of_training_are_whole(self) -> None:
        frames, clips = picture(9)[None], []
        for editor in (tiny_editor(), late_editor()):
            generator = torch.Generator().manual_seed(0)
            text = editor.prompt("a")
            clips.append(edit_clip(editor.codec, editor.dit, frames, text, generator, Sampling((1.0, 0.0)), chunk=1))
        assert torch.equal(*clips)

    def test_what_is_measured_flushes_too(self) -> None:
        codec = LateCodec(tiny_editor().config.codec)
        watched = WatchedCodec(codec, Watch(torch.device("cpu")))
        _, state = watched.decode(torch.randn(1, 3, 2, 2, 3), watched.init_decoder(1))
        assert torch.equal(watched.flush(state), state.held)

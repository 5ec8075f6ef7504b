"""Scores that can be known beforehand: a codec that changes nothing, a model that does nothing."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sana_streaming.codec import VideoCodec
from sana_streaming.config import CodecConfig, ModelConfig, nano
from sana_streaming.data.bank import Prompts
from sana_streaming.data.edits import EDITS
from sana_streaming.eval.__main__ import table
from sana_streaming.eval.codec import measure_codec
from sana_streaming.eval.edits import at_size, measure, psnr, true_edit
from sana_streaming.model.dit import TextContext


class PassThrough(VideoCodec):
    """Latents are the frames themselves, four to a latent; decoding may add a pulse to every second frame."""

    def __init__(self, pulse: float = 0.0):
        super().__init__()
        self.config, self.pulse = CodecConfig("none", 12, 4, stride=1, first_latent_frames=4), pulse

    def init_encoder(self, batch: int) -> Any:
        return None

    def init_decoder(self, batch: int) -> Any:
        return None

    def frames_of(self, latents: int, first: bool) -> int:
        return 4 * latents

    def encode(self, frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        return frames.unflatten(2, (-1, 4)).transpose(2, 3).flatten(1, 2), state

    def decode(self, latents: Tensor, state: Any) -> tuple[Tensor, Any]:
        frames = latents.unflatten(1, (3, 4)).transpose(2, 3).flatten(2, 3).clone()
        frames[:, :, ::2] += self.pulse
        return frames, state


class DoesNothing(torch.nn.Module):
    """A transformer whose edit is the source: it moves from the noise straight to it."""

    def init_state(self, batch: int, grid: tuple[int, int]) -> Any:
        return None

    def encode_text(self, tokens: Tensor, mask: Tensor) -> TextContext:
        return TextContext((), (), None)

    def forward(self, x: Tensor, sigma: float, state: Any, *, source: Tensor, text: TextContext) -> Any:
        return ((x - source) / sigma if sigma else x), state


PHRASES = [phrase for edit in EDITS.values() for phrase in edit.held_out]
PROMPTS = Prompts(
    {phrase: i for i, phrase in enumerate(PHRASES)}, torch.zeros(len(PHRASES), 4), tuple(range(len(PHRASES) + 1))
)


def sources() -> dict[str, list[Tensor]]:
    return {"photos": [torch.randint(0, 256, (2, 16, 32, 48, 3), dtype=torch.uint8)]}


def run(names: list[str], config: ModelConfig | None = None) -> Any:
    return measure(config or nano(), DoesNothing(), PassThrough(), PROMPTS, sources(), [2], names)  # type: ignore[arg-type]


def test_a_model_that_does_nothing_scores_as_the_unedited_source() -> None:
    scores, samples = run(["sepia", "negative"])
    for score in scores:
        assert score.edited == pytest.approx(score.unedited, abs=0.05)
        assert score.codec > 60
    assert [s.edit for s in samples] == ["sepia", "negative"]


def test_unchanged_is_the_edit_that_doing_nothing_makes() -> None:
    scores, _ = run(["unchanged"])
    assert scores[0].edited > 60


def test_psnr_of_a_known_error() -> None:
    a = torch.full((2, 4, 4), 100, dtype=torch.uint8)
    torch.testing.assert_close(psnr(a, a + 10), torch.full((2,), 28.1308), atol=1e-3, rtol=0)


def test_a_pulsing_codec_is_found_out() -> None:
    assert measure_codec(PassThrough(), sources())["still, change of 255"] == 0
    pulsing = measure_codec(PassThrough(pulse=2 / 255), sources())  # of a range of 2: one level of 255
    assert pulsing["still, change of 255"] == pytest.approx(1, abs=0.05)
    assert pulsing["photos, dB"] < 55


def test_truth_is_the_filter() -> None:
    source = sources()["photos"][0]
    assert torch.equal(true_edit("negative", source), 255 - source)


def test_clips_keep_their_aspect() -> None:
    clip = torch.zeros(3, 3, 90, 160, dtype=torch.uint8)
    assert at_size(clip, 64).shape == (3, 64, 112, 3)


def test_table_has_a_row_for_each_edit_and_the_means() -> None:
    scores, _ = run(["sepia", "negative", "snow"])
    lines = table(scores).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "sepia",
        "negative (strong)",
        "snow (particles)",
        "**mean, one true result**",
        "**mean, strong**",
    ]

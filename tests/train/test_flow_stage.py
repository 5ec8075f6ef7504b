"""The transformer's training stage on made-up pairs: random clips and their negatives."""

import dataclasses
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sana_streaming.codec import build_codec
from sana_streaming.config import ModelConfig, nano
from sana_streaming.data.bank import Prompts
from sana_streaming.data.edits import EDITS
from sana_streaming.train.loop import LoopConfig, save_export, train
from sana_streaming.train.stages import flow as stages
from sana_streaming.train.stages.flow import FlowConfig, FlowStage

CPU = torch.device("cpu")
PHRASES = sorted({phrase for edit in EDITS.values() for phrase in (*edit.phrasings, *edit.held_out)})
PROMPTS = Prompts(
    {phrase: i for i, phrase in enumerate(PHRASES)},
    torch.randn(2 * len(PHRASES), 6, generator=torch.Generator().manual_seed(0)),
    tuple(range(0, 2 * len(PHRASES) + 1, 2)),
)


def small() -> ModelConfig:
    model = nano()
    return dataclasses.replace(
        model,
        codec=dataclasses.replace(model.codec, widths=(8, 8, 8), latent_channels=4),
        dit=dataclasses.replace(model.dit, latent_channels=4, dim=24, heads=2, depth=4, text_dim=6, ffn_dim=16),
    )


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlowStage:
    def render_batch(
        bank: Any, batch: int, frames: int, height: int, width: int, generator: Any, edits: Any = None, **_: Any
    ) -> Any:
        name = edits[0] if edits else "negative"
        source = torch.rand(batch, 1, 3, height, width, generator=generator).expand(-1, frames, -1, -1, -1)
        phrase = EDITS[name].phrasings[0]
        return SimpleNamespace(source=source, target=1 - source, edits=(name,) * batch, phrases=(phrase,) * batch)

    monkeypatch.setattr(stages, "render_batch", render_batch)
    monkeypatch.setattr(stages, "load_bank", lambda *_, **__: SimpleNamespace(prompts=PROMPTS))
    monkeypatch.setitem(stages.presets.PRESETS, "nano", small)
    save_export(tmp_path, {f"codec.{k}": v for k, v in build_codec(small().codec).state_dict().items()})
    config = FlowConfig(
        codec=str(tmp_path), clips=1, latents=4, sizes=((256, 256), (32, 32)), size_shares=(0.0, 1.0), compile=False
    )
    monkeypatch.setattr(FlowStage, "_clips", lambda *_: 12)
    torch.manual_seed(0)
    return FlowStage(config, tmp_path, CPU, seed=0)


def test_chunks_cover_the_clip_and_their_lengths_are_mixed(stage: FlowStage) -> None:
    seen = set()
    for _ in range(60):
        bounds = stage._plan()
        assert bounds[0] == 0
        assert bounds[-1] == stage.config.latents
        seen |= {end - start for start, end in pairwise(bounds)}
    assert seen == {1, 2, 3}


def test_noise_levels(stage: FlowStage) -> None:
    levels = stage._levels(4000, torch.Generator().manual_seed(0))
    assert levels.min() > 0
    assert levels.max() == 1
    assert (levels == 1).float().mean() == pytest.approx(stage.config.pure_noise, abs=0.03)
    assert levels[levels < 1].median() == pytest.approx(0.75, abs=0.03)  # shift 3 of one half


def test_a_fresh_model_is_as_wrong_as_noise_and_data_are_large(stage: FlowStage) -> None:
    loss, parts = stage.loss(0, torch.Generator().manual_seed(0))
    target = stage.pairs[1]  # type: ignore[index]
    assert loss.item() == pytest.approx(1 + target.square().mean().item(), rel=0.15)  # it answers zero
    assert set(parts) == {"first", "last"}


def test_every_weight_is_trained(stage: FlowStage) -> None:
    torch.manual_seed(0)
    for parameter in stage.dit.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    stage.plans.manual_seed(1)
    loss, _ = stage.loss(0, torch.Generator().manual_seed(0))
    loss.backward()
    idle = [name for name, p in stage.dit.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
    assert all(p.grad is None for p in stage.codec.parameters())


def test_rendered_clips_are_used_again_with_other_noise(stage: FlowStage) -> None:
    generator = torch.Generator().manual_seed(0)
    first, _ = stage.loss(0, generator)
    pairs = stage.pairs
    second, _ = stage.loss(1, generator)
    assert stage.pairs is pairs
    assert first.item() != second.item()
    stage.loss(2, generator)
    assert stage.pairs is not pairs


def test_padding_of_prompts_changes_nothing(stage: FlowStage) -> None:
    text = stage.dit.encode_text(torch.randn(2, 3, 6), torch.tensor([[1, 1, 1], [1, 1, 0]]))
    padded = stage._of_one_length(text)
    assert {k.shape[2] for k in padded.keys} == {stage.config.text_tokens}
    x = torch.randn(2, 4, 1, 2, 2)
    state = stage.dit.init_state(2, (2, 2))
    for parameter in stage.dit.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    a, _ = stage.dit(x, 0.5, state, source=x, text=text)
    b, _ = stage.dit(x, 0.5, state, source=x, text=padded)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_validation_scores_every_edit(stage: FlowStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "EDITS", {name: EDITS[name] for name in ("sepia", "snow")})
    scores, picture = stage.validate()
    assert {"sepia 2 steps", "snow 4 steps", "mean unedited"} <= set(scores)
    assert scores["mean 4 steps"] == scores["sepia 4 steps"]  # falling snow has no single truth
    assert picture is not None
    assert picture.dtype == torch.uint8


def test_the_loss_falls(stage: FlowStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "EDITS", {"sepia": EDITS["sepia"]})
    generator = torch.Generator().manual_seed(5)

    def error() -> float:
        stage.plans.manual_seed(0)
        with torch.no_grad():
            return stage.loss(0, generator.manual_seed(5))[0].item()

    before = error()
    out = tmp_path / "out"
    train(stage, out, LoopConfig(lr=4e-3, warmup_steps=5, log_every=0, average=0.9), device=CPU, steps=40)
    assert error() < 0.8 * before


def test_states_resume(stage: FlowStage) -> None:
    kept = stage.state_dict()
    plans = [stage._plan() for _ in range(5)]
    stage.load_state_dict(kept)
    assert [stage._plan() for _ in range(5)] == plans

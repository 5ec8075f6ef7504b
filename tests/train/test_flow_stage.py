"""The transformer's training stage on made-up pairs: random clips and their negatives."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Generator

from sana_streaming.codec import build_codec
from sana_streaming.config import ModelConfig, nano
from sana_streaming.data.batch import Batch
from sana_streaming.state import tensors
from sana_streaming.train.loop import LoopConfig, save_export, train
from sana_streaming.train.stages import clips
from sana_streaming.train.stages import flow as stages
from sana_streaming.train.stages.flow import FlowConfig, FlowStage, Inputs, weighed_error

CPU = torch.device("cpu")
EDITS = {"negative": SimpleNamespace(kind="look"), "snow": SimpleNamespace(kind="weather")}


def small() -> ModelConfig:
    model = nano()
    return replace(
        model,
        codec=replace(model.codec, widths=(8, 8, 8), latent_channels=4),
        text=replace(model.text, dim=6, max_tokens=8),
        dit=replace(model.dit, latent_channels=4, dim=24, heads=2, depth=4, text_dim=6, ffn_dim=16),
    )


def render_batch(
    bank: Any, batch: int, frames: int, height: int, width: int, generator: Any, edits: Any = None, **_: Any
) -> Batch:
    """Negatives of random stills, asked for in the left half; every second clip is called weather."""
    source = torch.rand(batch, 1, 3, height, width, generator=generator).expand(-1, frames, -1, -1, -1)
    region = (torch.arange(width) < width // 2).float().expand(batch, frames, 1, height, width)
    target = torch.where(region > 0, 1 - source, source)
    names = tuple(edits or ("negative", "snow")) * batch
    empty = ("",) * batch
    return Batch(source, target, region, names[:batch], ("invert it",) * batch, empty, empty)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlowStage:
    for module in (stages, clips):
        monkeypatch.setattr(module, "render_batch", render_batch)
        monkeypatch.setattr(module, "EDITS", EDITS)
    monkeypatch.setattr(stages, "load_bank", lambda *_, **__: None)
    monkeypatch.setattr(stages, "load_encoder", lambda _: lambda phrase: torch.ones(len(phrase.split()), 6))
    monkeypatch.setitem(stages.presets.PRESETS, "nano", small)
    save_export(tmp_path, {f"codec.{k}": v for k, v in build_codec(small().codec).state_dict().items()})
    config = FlowConfig(
        codec=str(tmp_path),
        layouts=((32, 32, 12, 4, 1), (32, 48, 4, 3, 1)),
        shares=(0.8, 0.2),
        compile=False,
    )
    torch.manual_seed(0)
    return FlowStage(config, tmp_path, CPU, seed=0)


def inputs_of(stage: FlowStage, seed: int = 0) -> tuple[tuple[int, ...], Inputs]:
    bounds = stage._bounds((1, 2), 4)
    generator = torch.Generator().manual_seed(seed)
    return bounds, stage._inputs(stage.source.render(32, 32, 12, 4, generator), None, bounds, generator)


def loss_of(stage: FlowStage, bounds: tuple[int, ...], inputs: Inputs) -> float:
    return float(stage._accumulate(bounds, inputs)[0][0])


def gradients(stage: FlowStage) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in stage.dit.parameters() if p.grad is not None])


def shake(stage: FlowStage) -> None:
    """Weights away from their start, where many of them have no effect yet."""
    torch.manual_seed(0)
    for parameter in stage.dit.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))


def test_chunks_cover_the_clip() -> None:
    assert FlowStage._bounds((1,), 4) == (0, 1, 2, 3, 4)
    assert FlowStage._bounds((1, 2), 8) == (0, 1, 3, 4, 6, 7, 8)
    assert FlowStage._bounds((3, 1), 3) == (0, 3)


def test_noise_levels(stage: FlowStage) -> None:
    levels = stage._levels(4000, torch.Generator().manual_seed(0))
    assert levels.min() >= stage.config.lowest_level
    assert (levels == 1).float().mean() == pytest.approx(stage.config.pure_noise, abs=0.03)
    assert levels[levels < 1].median() == pytest.approx(0.75, abs=0.03)  # shift 3 of one half


def test_error_is_that_of_the_pixels(stage: FlowStage) -> None:
    """For small random steps of the latents the metric tells the change of the decoded picture."""
    stage.config = replace(stage.config, pixel_metric=1.0)
    stage.metric = stage._metric(torch.Generator().manual_seed(0))
    latents = stage.source.render(64, 64, 48, 2, torch.Generator().manual_seed(1)).source
    codec = stage.codec

    def decoded(latents: torch.Tensor) -> torch.Tensor:
        return codec.decode(latents, codec.init_decoder(len(latents)))[0]

    ratios = []
    for channel in range(4):  # directions that matter differently
        step = torch.zeros_like(latents)
        step[:, channel] = 0.01 * torch.randn(latents[:, 0].shape, generator=torch.Generator().manual_seed(channel))
        change = (decoded(latents + step) - decoded(latents)).square().mean()
        ratios.append(float(change / stage._in_pixels(step).square().mean()))
    assert max(ratios) < 1.2 * min(ratios)
    assert float(stage.metric.square().sum()) == pytest.approx(4, rel=1e-3)  # the mean over directions is 1


def test_cells_that_an_edit_changes_weigh_more(stage: FlowStage) -> None:
    weight = stage.source.render(64, 96, 2, 1, torch.Generator().manual_seed(0)).weight
    assert weight.shape == (2, 1, 4, 6)
    torch.testing.assert_close(weight.mean(dim=(1, 2, 3)), torch.ones(2))
    inside, outside = weight[0, 0, 0, 0], weight[0, 0, 0, -1]
    assert inside / outside == pytest.approx(1.4 / 0.4)
    assert weight[0, 0, 0, 3] == inside  # a neighbour of the region


@pytest.mark.parametrize("kept", [1.0, 3.0])
def test_what_is_kept_may_weigh_more_where_the_background_changes(
    stage: FlowStage, monkeypatch: pytest.MonkeyPatch, kept: float
) -> None:
    monkeypatch.setitem(EDITS, "snow", SimpleNamespace(kind="background"))
    other, plain = stage.source.render(64, 96, 2, 1, torch.Generator().manual_seed(0)).weight
    stage.source.kept = kept
    unlike, weight = stage.source.render(64, 96, 2, 1, torch.Generator().manual_seed(0)).weight
    torch.testing.assert_close(other, unlike)
    assert (plain == 1).all()
    region, rest = weight[0, :, 0], weight[0, :, -1]
    torch.testing.assert_close(rest, kept * region)
    assert weight.mean() == pytest.approx(1)


def test_instructions_are_blurred_a_little_to_train_on(stage: FlowStage) -> None:
    def render() -> clips.Clips:
        return stage.source.render(64, 96, 2, 1, torch.Generator().manual_seed(0))

    noisy, stage.source.text_noise = render(), 0.0
    plain = render()
    change = (noisy.tokens - plain.tokens).square().mean(dim=-1).sqrt()
    assert torch.equal(noisy.source, plain.source)
    assert change[plain.mask].mean() == pytest.approx(0.5, rel=0.5)  # these states have size 1
    assert change[~plain.mask].max() == 0


def test_some_words_are_hidden_but_never_the_first_state(stage: FlowStage) -> None:
    stage.source.text_drop = 0.5
    generator = torch.Generator().manual_seed(0)
    phrases = ["make the scene a winter morning"] * 64
    _, whole = stage.source.prompts(phrases, 8)
    _, mask = stage.source._instructions(phrases, generator)
    assert mask[:, 0].all()
    assert not (mask & ~whole).any()
    untouched = (mask == whole).all(dim=1)
    assert 0.3 < untouched.float().mean() < 0.7
    assert mask[~untouched].sum() / whole[~untouched].sum() == pytest.approx(0.5, abs=0.15)


def test_targets_a_little_aside_are_encoded_where_there_are_some(
    stage: FlowStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, float]] = []

    def rendered(*args: Any, **options: Any) -> Batch:
        batch = render_batch(*args, **options)

        def moved(right: float, down: float) -> torch.Tensor:
            asked.append((right, down))
            return batch.target[1:].roll((round(right), round(down)), (-1, -2))

        return replace(batch, movable=(1,), moved=moved)

    monkeypatch.setattr(clips, "render_batch", rendered)
    stage.source.leeway = 0.25
    made = stage.source.render(64, 96, 2, 1, torch.Generator().manual_seed(0))
    assert made.targets.shape == (2, 9, *made.target.shape[1:])
    assert set(asked) == {(x, y) for x in (-16, 0, 16) for y in (-16, 0, 16)} - {(0, 0)}
    assert torch.equal(made.targets[0], made.target[:1].expand(9, -1, -1, -1, -1))
    assert all(not torch.equal(other, made.target[1]) for other in made.targets[1, 1:])
    assert made.window(0, 1).targets.shape == made.targets.shape
    stage.source.leeway = 0.0
    assert stage.source.render(64, 96, 2, 1, torch.Generator().manual_seed(0)).targets.shape[1] == 1


def test_the_nearest_of_equally_good_targets_counts(stage: FlowStage) -> None:
    shake(stage)
    bounds, inputs = inputs_of(stage)
    inputs = replace(inputs, own=torch.zeros_like(inputs.own), changes=torch.zeros_like(inputs.changes))
    seen = inputs.clips
    true, far = seen.target, seen.target + 3
    inputs = replace(inputs, drafted=torch.ones_like(inputs.drafted), levels=torch.ones_like(inputs.levels))
    nearest, everything, farther = (
        replace(inputs, clips=replace(seen, targets=torch.stack(targets, dim=1)))
        for targets in ((true, true), (far, true), (far, far))
    )
    first = (0, bounds[-1])  # one chunk, which no truth was remembered before
    levels = everything.levels[:, :1]
    near, some, away = (loss_of(stage, first, replace(x, levels=levels)) for x in (nearest, everything, farther))
    assert near == pytest.approx(some, rel=1e-4)
    assert away > 1.5 * near
    still = replace(everything, levels=levels, changes=torch.ones_like(inputs.changes))
    assert loss_of(stage, first, still) == pytest.approx(
        loss_of(stage, first, replace(still, clips=nearest.clips)), rel=1e-4
    )  # what stays as it is has one truth


def test_every_weight_is_trained(stage: FlowStage) -> None:
    shake(stage)
    bounds, inputs = inputs_of(stage)
    stage._accumulate(bounds, inputs)
    idle = [name for name, p in stage.dit.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
    assert all(p.grad is None for p in stage.codec.parameters())


def test_weather_after_a_jump_is_not_asked_for(stage: FlowStage) -> None:
    shake(stage)
    bounds, inputs = inputs_of(stage)
    weight = torch.where(inputs.clips.weather[:, None, None, None], inputs.clips.weight, 0)
    weight[:, [0, 3]] = 0  # of the clips with weather the second chunk alone
    unchanged = torch.zeros_like(inputs.changes)
    inputs = replace(inputs, clips=replace(inputs.clips, weight=weight), changes=unchanged)
    assert loss_of(stage, bounds, replace(inputs, jump=torch.full_like(inputs.jump, 9))) == 0
    assert loss_of(stage, bounds, replace(inputs, jump=torch.zeros_like(inputs.jump))) > 0


@pytest.mark.parametrize("jump", [0, 9])
def test_weather_after_a_jump_remembers_the_truth(stage: FlowStage, jump: int) -> None:
    """And not an estimate that could not know where the particles are."""
    shake(stage)
    bounds = (0, 1, 2, 3)
    inputs = stage._inputs(inputs_of(stage)[1].clips.window(0, 3), None, bounds, torch.Generator().manual_seed(0))
    weight = torch.zeros_like(inputs.clips.weight)
    weight[:, 2] = 1
    inputs = replace(
        inputs,
        clips=replace(inputs.clips, weight=weight, weather=torch.ones_like(inputs.own)),
        jump=torch.full_like(inputs.jump, jump),
        own=torch.ones_like(inputs.own),
        changes=torch.zeros_like(inputs.changes),
    )
    other = inputs.noise.clone()
    other[:, :, 1] = 0  # another estimate of the second chunk
    same = loss_of(stage, bounds, inputs) == loss_of(stage, bounds, replace(inputs, noise=other))
    assert same == (jump > 0)


def test_clips_whose_prompt_changes_stay_as_they_are_at_first(stage: FlowStage) -> None:
    bounds, inputs = inputs_of(stage)
    clips = inputs.clips
    perfect = replace(clips, targets=clips.source[:, None], weight=torch.ones_like(clips.weight))
    for parameter in stage.dit.output.parameters():
        parameter.data.zero_()
    stage.dit.output.bias.data[4:] = -30  # the gate is shut: the estimate is the source
    (_, first, _), _ = stage._accumulate(bounds, replace(inputs, clips=perfect))
    assert first == pytest.approx(0, abs=1e-8)
    (_, first, last), _ = stage._accumulate(bounds, replace(inputs, changes=torch.ones(12, dtype=torch.bool)))
    assert first == pytest.approx(0, abs=1e-8)
    assert last > 0.01


def test_a_draft_of_its_own_takes_the_place_of_the_truth(stage: FlowStage) -> None:
    shake(stage)
    bounds, inputs = inputs_of(stage)
    everywhere = torch.ones(12, dtype=torch.bool)
    halfway = replace(inputs, drafted=everywhere, own=~everywhere, levels=torch.full_like(inputs.levels, 0.5))
    stage.config = replace(stage.config, own_draft=0.0)
    truth = loss_of(stage, bounds, halfway)
    stage.config = replace(stage.config, own_draft=1.0)
    assert loss_of(stage, bounds, replace(halfway, drafted=~everywhere)) == truth
    assert loss_of(stage, bounds, halfway) != truth
    pure = replace(halfway, levels=torch.ones_like(inputs.levels))  # where noise is all that there is
    assert loss_of(stage, bounds, pure) == loss_of(stage, bounds, replace(pure, drafted=~everywhere))


def test_rendered_clips_are_used_again_with_other_noise(stage: FlowStage) -> None:
    generator = torch.Generator().manual_seed(0)
    stage.backward(0, generator)
    clips, before = stage.clips, gradients(stage)
    stage.backward(1, generator)
    assert stage.clips is clips
    assert not torch.equal(gradients(stage), 2 * before)
    for step in range(2, stage.config.uses + 1):
        stage.backward(step, generator)
    assert stage.clips is not clips


def test_windows_follow_each_other(stage: FlowStage) -> None:
    """A long clip, window by window, ends with the memory that it leaves in one go."""
    shake(stage)
    _, inputs = inputs_of(stage)
    clips = inputs.clips
    calm = replace(
        inputs,
        own=torch.zeros_like(inputs.own),
        first_tokens=clips.tokens,
        first_mask=clips.mask,
        changes=torch.zeros_like(inputs.changes),
        jump=torch.zeros_like(inputs.jump),
    )
    _, whole = stage._accumulate((0, 1, 2, 3, 4), calm_levels(calm, 4))
    first, second = (
        replace(calm_levels(calm, 2), clips=clips.window(start, start + 2), noise=calm.noise[:, :, start : start + 2])
        for start in (0, 2)
    )
    _, past = stage._accumulate((0, 1, 2), first)
    _, parted = stage._accumulate((0, 1, 2), replace(second, past=past))
    for one, other in zip(tensors(whole), tensors(parted), strict=True):
        torch.testing.assert_close(one, other)
        assert not other.requires_grad


def calm_levels(inputs: Inputs, chunks: int) -> Inputs:
    return replace(inputs, levels=torch.full((len(inputs.own), chunks), 0.5))


def test_long_clips_are_met_window_by_window(stage: FlowStage) -> None:
    stage.config = replace(stage.config, layouts=((32, 32, 12, 2, 3),), shares=(1.0,), jumps=1.0)
    generator = torch.Generator().manual_seed(0)
    positions, clips = [], set()
    for step in range(4):
        stage.backward(step, generator)
        assert stage.past is not None
        positions.append(stage.past.position)
        clips.add(id(stage.clips))
    assert len(clips) == 2
    assert (positions[0] > 2).all()  # the clock jumps where a clip begins, and only there
    assert torch.equal(positions[2] - positions[0], torch.full((12,), 4))
    assert stage.clips is not None
    assert stage.clips.source.shape[2] == 6


def test_windows_of_a_clip_are_cut_in_one_way(stage: FlowStage) -> None:
    """What one recorded step remembers is what the next one was recorded for, whatever plans are drawn."""
    stage.config = replace(stage.config, layouts=((32, 32, 4, 4, 2),), shares=(1.0,), window_shares=(0.5, 0.5), uses=2)
    generator = torch.Generator().manual_seed(0)
    for step in range(16):
        stage.backward(step, generator)
    assert {key[5:] for key in stage.recorded} == {(0, 1, 2, 3, 4), (0, 2, 4)}


def test_gradients_add_up(stage: FlowStage) -> None:
    bounds, inputs = inputs_of(stage)
    stage._accumulate(bounds, inputs)
    once = gradients(stage)
    stage._accumulate(bounds, inputs)
    torch.testing.assert_close(gradients(stage), 2 * once)


def test_validation_scores_every_edit(stage: FlowStage) -> None:
    scores, picture = stage.validate()
    assert {"negative edited", "snow unedited", "mean look edited", "mean weather unedited"} <= set(scores)
    assert picture is not None
    assert picture.dtype == torch.uint8


def test_without_clips_there_is_no_validation(stage: FlowStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "config", replace(stage.config, validation_clips=0))
    assert stage.validate() == ({}, None)


def test_the_loss_falls(stage: FlowStage, tmp_path: Path) -> None:
    bounds, inputs = inputs_of(stage, seed=5)

    def error() -> float:
        return loss_of(stage, bounds, inputs)

    before = error()
    for p in stage.dit.parameters():
        p.grad = None
    loop = LoopConfig(lr=1e-2, muon="blocks", warmup_steps=5, log_every=0, average=0.9)
    train(stage, tmp_path / "out", loop, device=CPU, steps=40)
    assert error() < 0.8 * before


def test_states_resume(stage: FlowStage) -> None:
    kept = stage.state_dict()
    plans = [stage._pick(range(9), [1.0] * 9) for _ in range(5)]
    stage.load_state_dict(kept)
    assert [stage._pick(range(9), [1.0] * 9) for _ in range(5)] == plans


def test_an_error_that_comes_and_goes_counts_more_than_one_that_stays():
    steady = torch.randn(2, 3, 1, 4, 5, generator=Generator().manual_seed(0)).expand(-1, -1, 3, -1, -1)
    restless = steady * torch.tensor([1.0, -1.0, 1.0])[:, None, None]
    weight = torch.rand(2, 3, 4, 5, generator=Generator().manual_seed(1))
    plain = (weight * steady.square().mean(dim=1)).mean(dim=(2, 3))
    assert torch.allclose(weighed_error(steady, weight, 0.5, 0.0), plain)
    assert torch.allclose(weighed_error(restless, weight, 0.0, 0.0), plain)
    assert torch.allclose(weighed_error(restless, weight, 0.5, 0.0), plain * torch.tensor([1.0, 3.0, 3.0]))


def test_a_cell_that_is_all_wrong_counts_less_than_by_its_square():
    weight = torch.ones(1, 1, 1, 1)
    for size, counts in ((0.01, 0.01**2), (100.0, 2 * 0.3 * 100.0)):
        residual = torch.full((1, 4, 1, 1, 1), size)
        assert weighed_error(residual, weight, 0.0, 0.3).item() == pytest.approx(counts, rel=0.01)

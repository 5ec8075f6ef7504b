from dataclasses import replace

import pytest
import torch
from torch import Generator

from sana_streaming.data import particles
from sana_streaming.data.particles import LAYERS, LOOP, particle_field
from sana_streaming.data.whole import WHOLE

KINDS = tuple(LAYERS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_moves_as_one(kind: str, layer: int, monkeypatch: pytest.MonkeyPatch):
    only = LAYERS[kind][layer]
    monkeypatch.setitem(LAYERS, kind, (replace(only, sway=0),))
    field = particle_field.__wrapped__(kind, 9, 256, 256)[:, 0]
    down, right = only.down * only.height * 8 // LOOP, only.right * only.width * 8 // LOOP
    torch.testing.assert_close(field[8, down:, right:], field[0, : 256 - down, : 256 - right], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_field_is_a_loop(kind: str):
    field = particle_field(kind, LOOP + 2, 64, 64)
    torch.testing.assert_close(field[LOOP:], field[:2], atol=1e-6, rtol=0)
    assert ((field[1 : LOOP // 2] - field[0]).abs().amax(dim=(1, 2, 3)) > 0.2).all()
    torch.testing.assert_close(particle_field(kind, 2, 64, 64, first=160 * LOOP), field[:2], atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_no_layer_jumps_where_the_loop_closes(kind: str):
    field = particle_field(kind, 2 * LOOP, 64, 64)
    steps = (field[1:] - field[:-1]).abs().mean(dim=(1, 2, 3))
    assert steps.max() < 1.3 * steps.mean()


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_goes_on_where_the_one_before_ended(kind: str):
    whole = particle_field(kind, 40, 64, 96)
    torch.testing.assert_close(particle_field(kind, 7, 64, 96, first=30), whole[30:37])


@pytest.mark.parametrize("kind", KINDS)
def test_wide_and_tall_frames_show_more_of_the_same(kind: str):
    square, wide, tall = (particle_field(kind, 3, *size) for size in ((64, 64), (64, 112), (96, 64)))
    torch.testing.assert_close(wide[..., :64], square)
    torch.testing.assert_close(tall[..., :64, :], square)
    for layer in LAYERS[kind]:
        assert layer.width <= 256
        assert layer.height <= 256


@pytest.mark.parametrize("kind", KINDS)
def test_degrees_are_parts_of_one_field(kind: str):
    few, some, many = (particle_field(kind, 2, 128, 128, degree) for degree in ("slightly", "", "heavily"))
    assert (few <= some + 1e-5).all()
    assert (some <= many + 1e-5).all()
    assert 1.4 < some.mean() / few.mean() < 2.5
    assert 1.3 < many.mean() / some.mean() < 2.5
    assert 0.02 < some.mean() < 0.25


@pytest.mark.parametrize("kind", KINDS)
def test_weather_ignores_the_generator_and_knows_the_time(kind: str):
    apply = WHOLE[kind].apply
    assert apply is not None
    clip = torch.rand(1, 6, 3, 64, 64, generator=Generator().manual_seed(0))
    whole = apply(clip, Generator().manual_seed(1))
    assert torch.equal(whole, apply(clip, Generator().manual_seed(2)))
    later = apply(clip[:, 2:], Generator(), "", 2)  # type: ignore[call-arg]
    torch.testing.assert_close(later, whole[:, 2:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_scene_stays_visible_behind_particles(kind: str):
    ramp = torch.linspace(0, 1, 128).expand(1, 2, 3, 128, 128)
    apply = WHOLE[kind].apply
    assert apply is not None
    both = torch.stack([ramp.mean(2).flatten(), apply(ramp, Generator()).mean(2).flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.75


def test_what_does_not_fall_is_refused():
    with pytest.raises(ValueError, match="kind: expected one of"):
        particle_field("frogs", 1, 32, 32)
    with pytest.raises(ValueError, match="degree: expected one of"):
        particle_field("rain", 1, 32, 32, "gently")
    assert set(particles.SEEDS) == set(LAYERS)

import pytest
import torch
from torch import Generator

from sana_streaming.data import particles
from sana_streaming.data.particles import LAYERS, particle_field
from sana_streaming.data.whole import WHOLE

KINDS = tuple(LAYERS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_moves_as_one(kind: str, layer: int, monkeypatch: pytest.MonkeyPatch):
    only = LAYERS[kind][layer]
    monkeypatch.setitem(LAYERS, kind, (only,))
    field = particle_field.__wrapped__(kind, 21, 256, 256)[:, 0]
    for frames in (4, 20):  # 20 move every layer by whole pixels, 4 the nearest by whole cells of 16
        if (frames * only.down) % 1 == (frames * only.right) % 1 == 0:
            step = (round(frames * only.down), round(frames * only.right))
            torch.testing.assert_close(field[frames], field[0].roll(step, (0, 1)), atol=1e-4, rtol=0)
    assert (20 * only.down) % 1 == (20 * only.right) % 1 == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_field_comes_back(kind: str):
    """It is a torus, and every layer goes round it in a whole number of frames."""
    torch.testing.assert_close(
        particle_field(kind, 2, 64, 64, first=5120), particle_field(kind, 2, 64, 64), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_goes_on_where_the_one_before_ended(kind: str):
    whole = particle_field(kind, 40, 64, 96)
    torch.testing.assert_close(particle_field(kind, 7, 64, 96, first=30), whole[30:37])


@pytest.mark.parametrize("kind", KINDS)
def test_wide_and_tall_frames_repeat_the_square(kind: str):
    square, wide, tall = (particle_field(kind, 3, *size) for size in ((64, 64), (64, 112), (96, 64)))
    torch.testing.assert_close(wide, torch.cat([square, square], -1)[..., :112])
    torch.testing.assert_close(tall, torch.cat([square, square], -2)[..., :96, :])


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

"""The sampling loop, the noise levels and guidance, on models that are a line of arithmetic."""

import pytest
import torch
from torch import Tensor

from sana_streaming.config import nano, two_b
from sana_streaming.diffusion.dpm_solver import dpm_sigmas, sample_clip
from sana_streaming.diffusion.flow import guided, interpolate, shifted, sigmas
from sana_streaming.diffusion.sampler import sample_chunk

DATA = torch.linspace(-1, 1, 12).view(1, 2, 2, 1, 3)


def denoise(x: Tensor, sigma: float, state: tuple[float, ...]) -> tuple[Tensor, tuple[float, ...]]:
    """Knows the data: velocity = noise - data = (x - data) / sigma."""
    velocity = (x - DATA) / sigma if sigma else torch.zeros_like(x)
    return velocity, (*state, sigma)


@pytest.mark.parametrize("steps", [1, 2, 4, 7])
def test_a_perfect_model_is_followed_to_the_data(steps: int) -> None:
    latents, _ = sample_chunk(denoise, torch.randn(DATA.shape), sigmas(nano().sampler, steps), ())
    torch.testing.assert_close(latents, DATA, atol=1e-6, rtol=0)


def test_only_the_clean_pass_is_remembered() -> None:
    _, state = sample_chunk(denoise, torch.randn(DATA.shape), (1.0, 0.5, 0.0), (9.0,))
    assert state == (9.0, 0.0)


def test_second_order_sampler_reaches_the_data() -> None:
    latents = sample_clip(denoise, torch.randn(DATA.shape), dpm_sigmas(5, shift=8.0), ())
    torch.testing.assert_close(latents, DATA, atol=1e-5, rtol=0)


def test_published_schedules() -> None:
    assert sigmas(two_b().sampler, 4) == (1.0, 0.961, 0.893, 0.743, 0.0)
    assert sigmas(two_b().sampler, 2) == (1.0, 0.743, 0.0)
    five = sigmas(two_b().sampler, 5)
    assert five[0] == 1
    assert five[-2] == pytest.approx(0.0602, abs=1e-4)  # a shift of a grid whose end was already shifted


def test_schedules_fall_to_zero() -> None:
    for steps in range(1, 9):
        levels = sigmas(nano().sampler, steps)
        assert len(levels) == steps + 1
        assert levels[0] == 1
        assert levels[-1] == 0
        assert list(levels) == sorted(levels, reverse=True)
    with pytest.raises(ValueError, match="1 to 1000"):
        sigmas(nano().sampler, 0)


def test_nano_decides_alike_in_two_steps_and_in_four() -> None:
    """The first steps settle what a word means: a stream that is given fewer of them should not change its mind."""
    assert sigmas(nano().sampler, 4)[:2] == sigmas(nano().sampler, 2)[:2]


def test_shift() -> None:
    assert shifted(0.5, 1.0) == 0.5
    assert shifted(0.5, 3.0) == 0.75
    assert (shifted(0.0, 8.0), shifted(1.0, 8.0)) == (0, 1)


def test_interpolation_ends_at_data_and_noise() -> None:
    noise = torch.randn(DATA.shape)
    for sigma, expected in ((0.0, DATA), (1.0, noise)):
        torch.testing.assert_close(interpolate(DATA, noise, torch.tensor(sigma)), expected)


def test_guidance_extrapolates_from_the_negative_prompt() -> None:
    def two_prompts(x: Tensor, sigma: float, state: None) -> tuple[Tensor, None]:
        return torch.cat([torch.full_like(x[:1], 1.0), torch.full_like(x[:1], 3.0)]), state

    velocity, _ = guided(two_prompts, 4.0)(DATA, 0.5, None)
    assert torch.equal(velocity, torch.full_like(DATA, 9.0))

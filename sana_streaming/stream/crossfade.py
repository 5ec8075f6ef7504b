"""A new sink comes in little by little, so that the picture does not jump when attention no longer sees the former one.

For some latent frames two memories go on side by side, one with the new sink and one with the former. Both make the
same latents: the velocity goes over from the one's to the other's. What is mixed are velocities, as in guidance, and
not pictures, so that nothing is seen twice. Costs a second set of passes for as long as it lasts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sana_streaming.diffusion.flow import Denoise, S
from sana_streaming.model.dit import DiTState

FADE = 3  # latent frames: one chunk of the 2 B model
Sample = Callable[[Denoise[S], Tensor, Sequence[float], S], tuple[Tensor, S]]


@dataclass(frozen=True)
class Fade:
    """What is remembered besides while a new sink comes in."""

    former: DiTState  # with the former sink; of as many rows as the new one
    done: Tensor  # int64 [B]: latent frames since the new sink


def sample_faded(
    sample: Sample, denoise: Denoise[DiTState], noise: Tensor, sigmas: Sequence[float], state: DiTState, fade: Fade
) -> tuple[Tensor, DiTState, Fade | None]:
    """As `sample` does it, but with both memories -> latents, the state after them, and the fade, if it goes on."""
    frames = noise.shape[2]
    ramp = fade.done[:, None] + torch.arange(1, frames + 1, device=noise.device)  # [B, T]
    share = (ramp / (FADE + 1)).clamp(max=1)[:, None, :, None, None]
    latents, (state, former) = sample(crossfaded(denoise, share), noise, sigmas, (state, fade.former))
    done = fade.done + frames
    return latents, state, Fade(former, done) if bool((done < FADE).any()) else None


def crossfaded(denoise: Denoise[S], share: Tensor) -> Denoise[tuple[S, S]]:
    """`denoise` under two states at once; `share` is how much the first one counts."""

    def both(x: Tensor, sigma: float, states: tuple[S, S]) -> tuple[Tensor, tuple[S, S]]:
        (velocity, after), (former_velocity, former_after) = (denoise(x, sigma, state) for state in states)
        return torch.lerp(former_velocity, velocity, share.to(velocity.dtype)), (after, former_after)

    return both

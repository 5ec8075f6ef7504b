"""Short clips, each denoised as a whole: the bidirectional mode of the released model.

A clip is one chunk after the initial state, and its frames see each other in both directions. It is sampled by
DPM-Solver++ in many steps.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from sana_streaming.codec import VideoCodec
from sana_streaming.diffusion.dpm_solver import dpm_sigmas, sample_clip
from sana_streaming.diffusion.flow import Denoise, S, Sampling
from sana_streaming.model.dit import DiT, TextContext

from .editor import Editor
from .road import edit_clip
from .session import Session

ONE_PIECE = "this model edits a clip as a whole: "


def edit_whole(
    codec: VideoCodec,
    dit: DiT,
    frames: Tensor,
    text: TextContext,
    generator: torch.Generator,
    sampling: Sampling,
    guidance: float = 1.0,
) -> Tensor:
    """Clips, RGB uint8 [B, F, H, W, 3], F of whole latents -> edited, same shape. Text as in `edit_chunk`."""
    one_chunk = frames.shape[1]  # there are no more latents than frames
    return edit_clip(codec, dit, frames, text, generator, sampling, one_chunk, guidance, sample_once)


def sample_once(denoise: Denoise[S], noise: Tensor, sigmas: Sequence[float], state: S) -> tuple[Tensor, S]:
    """Of a clip nothing is remembered: no chunk comes after it."""
    return sample_clip(denoise, noise, sigmas, state), state


class ClipSession(Session):
    """A clip that comes latent by latent and is edited when it has ended: nothing comes out before `flush`."""

    def __init__(self, editor: Editor, prompt: str, *, steps: int | None = None, **options: Any):
        sampler = editor.config.sampler
        if not sampler.clip:
            raise ValueError(f"the model {editor.config.name} edits streams, not clips as a whole: use a session")
        if options.get("chunk") is not None:
            raise ValueError(ONE_PIECE + "it takes no length of chunks")
        if options.get("cuts", "ignore") != "ignore":
            raise ValueError(ONE_PIECE + "it cannot begin anew at cuts")
        super().__init__(editor, prompt, steps=steps, **options)
        levels = dpm_sigmas(sampler.steps if steps is None else steps, sampler.shift)
        self.sampling = Sampling(levels, sampler.temperature, sampler.repeat_noise)
        self.frames: tuple[Tensor, ...] = ()

    def step(self, frames: Tensor) -> Tensor:
        """RGB uint8 [F, H, W, 3], F == chunk_frames -> no frames yet. ValueError for a clip that grows too long."""
        self._check(frames)
        if self.chunks == self.editor.config.sampler.clip[1]:
            raise ValueError(f"{self._expected()}, got more")
        height, width = frames.shape[1:3]
        self.frames, self.size, self.chunks = (*self.frames, frames), (height, width), self.chunks + 1
        return frames[:0]

    def flush(self) -> Tensor:
        """The clip, edited, on the CPU. ValueError for one that is too short, MemoryError for one that does not fit.
        Changes nothing."""
        if self.chunks < self.editor.config.sampler.clip[0]:
            raise ValueError(f"{self._expected()}, got fewer")
        editor, generator = self.editor, self.generator.clone_state()
        height, width = self.size
        with editor.memory_told((width, height), self.guidance), torch.inference_mode():
            clip = torch.cat(self.frames)[None].to(editor.device)
            edited = edit_whole(editor.codec, editor.dit, clip, self.text, generator, self.sampling, self.guidance)
        return edited[0].cpu()

    def edit(self, frames: Tensor) -> Tensor:
        """A clip of any number of frames: `step` and `flush`. It is filled up to whole latents with its last frame."""
        start = 0
        while start < len(frames):
            wanted = self.chunk_frames
            piece = frames[start : start + wanted]
            self.step(torch.cat([piece, *[piece[-1:]] * (wanted - len(piece))]))
            start += wanted
        return self.flush()[: len(frames)]

    def set_prompt(self, prompt: str, policy: str | None = None) -> NoReturn:
        raise ValueError(ONE_PIECE + "its prompt cannot change on the way")

    def anchor(self) -> NoReturn:
        raise ValueError(ONE_PIECE + "there is nothing to anchor")

    def reset(self) -> NoReturn:
        raise ValueError(ONE_PIECE + "there is nothing to forget")

    def _lengths(self) -> dict[int, int]:
        return {self.editor.codec.frames_of(1, self.chunks == 0): 1}

    def _expected(self) -> str:
        fewest, most = self.editor.config.sampler.clip
        frames_of = self.editor.codec.frames_of
        shortest = frames_of(fewest - 1, True) + 1 if fewest > 1 else 1  # what does not fill a latent is filled up
        return f"expected a clip of {shortest} to {frames_of(most, True)} frames"

"""One viewer's stream."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sana_streaming.diffusion.flow import sampling
from sana_streaming.model.dit import DiTState, TextContext
from sana_streaming.model.rebase import anchor

from .prompt_policy import POLICIES, PromptRequest, Receipt, reset
from .road import EditState, begin_fade, edit_chunk, in_range, init_state, to_uint8
from .scene_cuts import Cut, Watch, find_cuts

if TYPE_CHECKING:
    from .editor import Editor

ON_CUT = ("ignore", "anchor", "reset")
REMEMBERED_CUTS = 64


@dataclass(frozen=True)
class Prepared:
    """All that a session's next chunk reads, and what it carries out."""

    frames: Tensor  # [1, F, H, W, 3], where the model is
    text: TextContext
    state: EditState
    generator: torch.Generator  # that the session goes on with
    past: DiTState | None  # with the former sink, to fade from; None: nothing to fade from
    change: PromptRequest | None
    anchoring: Receipt | None
    resetting: Receipt | None
    found: tuple[int, ...]  # frames at which a scene begins
    watch: Watch


class Session:
    """One viewer's stream: a state, a random generator and a prompt. Sessions of one editor do not touch each other."""

    def __init__(
        self,
        editor: Editor,
        prompt: str,
        *,
        seed: int = 0,
        steps: int | None = None,
        chunk: int | None = None,
        guidance: float | None = None,
        negative_prompt: str | None = None,
        cuts: str = "ignore",
    ):
        """steps: denoising steps; chunk: latent frames per chunk; guidance: above 1, and at twice the work, how far the
        result is led away from the negative prompt; the model's own if not given.

        cuts: what to do where the source shows a new scene: "ignore", "anchor" or "reset", as the methods of that name
        do it, for the first chunk that lies in the new scene as a whole and with whose frames it is certain, which
        takes four of them. `cuts_found` lists the latest."""
        if cuts not in ON_CUT:
            raise ValueError(f"cuts: expected {', '.join(ON_CUT)}, got '{cuts}'")
        sampler = editor.config.sampler
        guidance = sampler.guidance if guidance is None else guidance
        if not 1 <= guidance < math.inf:
            raise ValueError(f"expected guidance of 1 or more, got {guidance}")
        if guidance == 1 and negative_prompt is not None:
            raise ValueError("a negative prompt has no effect without guidance above 1")
        if chunk is not None and chunk < 1:
            raise ValueError(f"expected at least 1 latent frame per chunk, got {chunk}")
        if not 0 <= seed < 2**64:
            raise ValueError(f"expected a seed from 0 to 2**64 - 1, got {seed}")
        self.editor = editor
        self.sampling = sampling(sampler, steps)
        self.lengths = (sampler.first_chunk, sampler.chunk) if chunk is None else (chunk, chunk)
        self.generator = torch.Generator().manual_seed(seed)
        self.state: EditState | None = None  # until the first frames tell their size
        self.size = (0, 0)
        self.chunks = 0
        self.guidance = guidance
        negative = sampler.negative_prompt if negative_prompt is None else negative_prompt
        self.negative = None if guidance == 1 else negative
        self.text = editor.prompt(prompt, self.negative)
        self.change: PromptRequest | None = None  # waits for the next chunk, as the following ones do
        self.anchoring: Receipt | None = None
        self.resetting: Receipt | None = None
        self.on_cut = cuts
        self.watch = Watch()
        self.cuts_found: tuple[Cut, ...] = ()

    @property
    def chunk_frames(self) -> int:
        """How many frames the next chunk takes."""
        return next(iter(self._lengths()))

    def set_prompt(self, prompt: str, policy: str | None = None) -> Receipt:
        """Accepted at once, takes effect at the next chunk, whose number the receipt then tells; if another prompt
        comes before that, this one never does (but a reset stays one). ValueError if it is empty or the policy unknown.

        policy: what becomes of the past, see `prompt_policy`: "keep" (it stays), "recache" (the last chunk is
        remembered again under the new prompt) or "reset" (all is forgotten, and the next chunk is a first one, with
        the length of a first one: ask `chunk_frames` again; one of the usual length, already gathered, is taken too);
        the model's own if not given.
        """
        policy = self.editor.config.prompt_policy if policy is None else policy
        if policy not in POLICIES:
            raise ValueError(f"unknown policy '{policy}': expected {', '.join(POLICIES)}")
        if self.change is not None and self.change.policy == "reset":
            policy = "reset"  # a chunk of a first one's length may already be gathering
        self.change = PromptRequest(self.editor.prompt(prompt, self.negative), policy, Receipt())
        return self.change.receipt

    def anchor(self) -> Receipt:
        """Make the next chunk the sink, which softmax attention then always sees in place of the first chunk: after a
        cut in the source, or for a fresh start of a long stream. The receipt tells which chunk it became.

        The chunks after it go over to the new sink little by little, see `crossfade`: for three latent frames the work
        is twice as much, and one pass more. A new prompt ends this early, since it changes the picture anyway."""
        self.anchoring = Receipt()
        return self.anchoring

    def reset(self) -> Receipt:
        """Forget everything before the next chunk, as the policy of that name does. It then is a first one."""
        self.resetting = Receipt()
        return self.resetting

    def step(self, frames: Tensor) -> Tensor:
        """RGB uint8 [F, H, W, 3], F == chunk_frames -> edited frames of the same shape, on the CPU.

        A codec that looks ahead gives fewer at first, then as many as come in, and the rest in `flush`. MemoryError and
        FloatingPointError say in a line which chunk failed; the session is then as it was before. Streams that share a
        pass: `batch.step_together`."""
        self._check(frames)
        editor, (height, width) = self.editor, frames.shape[1:3]
        with editor.memory_told((width, height), self.guidance, f"chunk {self.chunks}: "), torch.inference_mode():
            ready = self.prepare(frames)
            edited, state = edit_chunk(
                *(editor.codec, editor.dit, ready.frames, ready.text, ready.state, ready.generator),
                *(self.sampling, self.guidance),
            )
            return self.finish(ready, edited, state)

    def prepare(self, frames: Tensor) -> Prepared:
        """All that the next chunk reads, with what was asked for carried out. Changes nothing."""
        lengths = self._check(frames)
        height, width = frames.shape[1:3]
        editor, change = self.editor, self.change
        text = self.text if change is None else change.text
        found, watch = ((), self.watch) if self.on_cut == "ignore" else find_cuts(frames, self.watch)
        on_cut = self.on_cut if any(frame <= self.watch.frames for frame in found) else "ignore"
        state = self.state or init_state(editor.codec, editor.dit, 1, height, width, self.guidance)
        if change is not None:
            state = POLICIES[change.policy](editor.dit, state, text)
        if self.resetting is not None or on_cut == "reset":
            state = reset(editor.dit, state, text)
        state = in_range(state, lengths[len(frames)], editor.dit.config)
        past, anchors = state.denoiser, self.anchoring is not None or on_cut == "anchor"
        if anchors:
            state = replace(state, denoiser=anchor(past))
        return Prepared(
            frames=frames[None].to(editor.device),
            text=text,
            state=state,
            generator=self.generator.clone_state(),
            past=past if anchors and past.sink is not None else None,
            change=change,
            anchoring=self.anchoring,
            resetting=self.resetting,
            found=found,
            watch=watch,
        )

    def finish(self, ready: Prepared, edited: Tensor, state: EditState) -> Tensor:
        """The chunk that was prepared is edited: [1, F, H, W, 3] and the state after it -> [F, H, W, 3], on the CPU."""
        if state.last is not None and not bool(state.last.latents.isfinite().all()):
            raise FloatingPointError(
                f"chunk {self.chunks}: expected finite latents, got NaN or infinity; the weights may be damaged or "
                f"{str(state.last.latents.dtype).removeprefix('torch.')} too coarse for them"
            )
        if ready.past is not None:
            state = replace(state, fade=begin_fade(self.editor.dit, state, ready.past, ready.text, self.guidance))
        shown = edited[0].cpu()
        # Only now, so that a chunk that fails leaves everything as it was.
        height, width = ready.frames.shape[2:4]
        begin = self.watch.frames  # number of the chunk's first frame
        self.state, self.generator, self.size = state, ready.generator, (height, width)
        self.text, self.watch = ready.text, ready.watch
        for receipt in (None if ready.change is None else ready.change.receipt, ready.anchoring, ready.resetting):
            if receipt is not None:
                receipt.applied = self.chunks
        self.change = None if self.change is ready.change else self.change  # else another one came meanwhile
        self.anchoring = None if self.anchoring is ready.anchoring else self.anchoring
        self.resetting = None if self.resetting is ready.resetting else self.resetting
        cuts = (Cut(frame, self.chunks + (frame > begin)) for frame in ready.found)
        self.cuts_found = (*self.cuts_found, *cuts)[-REMEMBERED_CUTS:]
        if any(frame > begin for frame in ready.found):
            self._at_next_chunk(self.on_cut)
        self.chunks += 1
        return shown

    def flush(self) -> Tensor:
        """The edited frames of a stream that has ended which `step` still holds back, [F, H, W, 3]; often there are
        none. Changes nothing."""
        with torch.inference_mode():
            rest = None if self.state is None else self.editor.codec.flush(self.state.decoder)
            return torch.empty(0, *self.size, 3, dtype=torch.uint8) if rest is None else to_uint8(rest)[0].cpu()

    def _at_next_chunk(self, action: str) -> None:
        """Anchor or reset at the next chunk, for a cut; a request for the same may already wait."""
        if action == "anchor":
            self.anchoring = self.anchoring or Receipt()
        else:
            self.resetting = self.resetting or Receipt()

    def _check(self, frames: Tensor) -> dict[int, int]:
        """ValueError for frames that may not come next; else what may."""
        lengths = self._lengths()
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) not in lengths:
            raise ValueError(
                f"expected {self.chunk_frames} RGB frames, uint8 [F, H, W, 3], got {frames.dtype} {tuple(frames.shape)}"
            )
        height, width, stride = frames.shape[1], frames.shape[2], self.editor.stride
        if height % stride or width % stride:
            raise ValueError(f"expected height and width in multiples of {stride}, got {height}x{width}")
        if self.chunks and (height, width) != self.size:
            raise ValueError(f"expected frames of {self.size[0]}x{self.size[1]} as before, got {height}x{width}")
        return lengths

    def _lengths(self) -> dict[int, int]:
        """Frames -> latent frames of what may come next; the preferred length comes first."""
        first, (opening, usual) = self.chunks == 0, self.lengths
        forgets = self.resetting is not None or (self.change is not None and self.change.policy == "reset")
        latents = [opening] if first else [opening, usual] if forgets else [usual]
        return {self.editor.codec.frames_of(n, first): n for n in latents}

    def fork(self) -> Session:
        """A second stream that goes on from here, bit for bit as this one would: for undo and to compare prompts."""
        twin = copy.copy(self)
        twin.generator = self.generator.clone_state()
        # Receipts tell of this stream only.
        twin.change = self.change and replace(self.change, receipt=Receipt())
        twin.anchoring = self.anchoring and Receipt()
        twin.resetting = self.resetting and Receipt()
        return twin

"""The road of a chunk through the model, and the object that holds one set of weights for many streams."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sana_streaming import checkpoint
from sana_streaming.codec import VideoCodec
from sana_streaming.config import CodecConfig, DiTConfig, ModelConfig, TaughtEdit
from sana_streaming.diffusion.flow import Denoise, Sampling, guided, sampling
from sana_streaming.diffusion.sampler import sample_chunk
from sana_streaming.model.dit import DiT, DiTState, TextContext
from sana_streaming.model.rebase import anchor, keep_in_range
from sana_streaming.text import load_encoder

from .crossfade import Fade, Sample, sample_faded
from .prompt_policy import POLICIES, PromptRequest, Receipt, reset
from .scene_cuts import Cut, Watch, find_cuts

if TYPE_CHECKING:
    from sana_streaming.stream.run import Report

ON_CUT = ("ignore", "anchor", "reset")
REMEMBERED_CUTS = 64


@dataclass(frozen=True)
class LastChunk:
    """What it takes to remember the last chunk once more, under another prompt; of twice the batch with guidance."""

    source: Tensor  # latents [B, C, T, h, w]
    latents: Tensor  # the edited ones
    past: DiTState  # what the chunk read; most of its tensors are those of the state after it


@dataclass(frozen=True)
class EditState:
    """All that is remembered of one stream (or of a batch of streams). With guidance the transformer's part has two
    rows for each stream, the negative prompt's first."""

    encoder: Any  # of the codec
    denoiser: DiTState
    decoder: Any  # of the codec
    noise: Tensor | None = None  # [B, C, 1, h, w]: what every latent frame begins from, where a model repeats it
    last: LastChunk | None = None  # None before the first chunk
    fade: Fade | None = None  # while a new sink comes in


def init_state(codec: VideoCodec, dit: DiT, batch: int, height: int, width: int, guidance: float = 1.0) -> EditState:
    """The beginning of `batch` streams of frames of that size."""
    stride = codec.config.stride
    grid = (height // stride, width // stride)
    denoiser = dit.init_state(batch * halves(guidance), grid)
    return EditState(codec.init_encoder(batch), denoiser, codec.init_decoder(batch))


def edit_chunk(
    codec: VideoCodec,
    dit: DiT,
    frames: Tensor,
    text: TextContext,
    state: EditState,
    generator: torch.Generator | Sequence[torch.Generator],
    sampling: Sampling,
    guidance: float = 1.0,
    sample: Sample = sample_chunk,
) -> tuple[Tensor, EditState]:
    """RGB uint8 [B, F, H, W, 3], the prompt, the past, a CPU generator (or one for each stream) and how to sample
    -> edited frames of the same shape, and the state after them. Carries no `no_grad`: the caller decides.

    A codec that looks ahead gives fewer frames at first, and the rest when it is flushed. With guidance above 1 text
    and state are those of `Editor.prompt` with a negative prompt and of `init_state` with guidance."""
    source, encoder = codec.encode(to_signed(frames), state.encoder)
    noise, kept = draw_noise(source, state.noise, generator, sampling)
    denoise = conditioned(dit, source, text, guidance)
    if state.fade is None:
        (latents, denoiser), fade = sample(denoise, noise, sampling.levels, state.denoiser), None
    else:
        latents, denoiser, fade = sample_faded(sample, denoise, noise, sampling.levels, state.denoiser, state.fade)
    edited, decoder = codec.decode(latents, state.decoder)
    last = LastChunk(rows(source, guidance), rows(latents, guidance), state.denoiser)
    return to_uint8(edited), EditState(encoder, denoiser, decoder, kept, last, fade)


def conditioned(dit: DiT, source: Tensor, text: TextContext, guidance: float) -> Denoise[DiTState]:
    """The transformer as samplers call it. In its state the two rows of a stream are neighbours, so that streams join
    and part as all others do; `guided` has all negative rows first."""
    both = partial(dit, source=rows(source, guidance), text=text)
    if guidance == 1:
        return both

    def denoise(x: Tensor, sigma: float, state: DiTState) -> tuple[Tensor, DiTState]:
        velocity, after = both(rows(x[: len(source)], guidance), sigma, state)
        return torch.cat([velocity[0::2], velocity[1::2]]), after

    return guided(denoise, guidance)


def halves(guidance: float) -> int:
    """Rows of a stream in the transformer's batch: with guidance it runs under the negative prompt, too."""
    return 1 if guidance == 1 else 2


def rows(x: Tensor, guidance: float) -> Tensor:
    """What belongs to a stream, for each of its rows."""
    return x if guidance == 1 else x.repeat_interleave(2, dim=0)


def draw_noise(
    source: Tensor,
    kept: Tensor | None,
    generator: torch.Generator | Sequence[torch.Generator],
    sampling: Sampling,
) -> tuple[Tensor, Tensor | None]:
    """What sampling begins from, in the shape of the source latents [B, C, T, h, w], and what to keep of it."""
    if not sampling.repeat_noise:
        return sampling.temperature * gaussian(source.shape, generator).to(source.device), None
    if kept is None:
        one_frame = (*source.shape[:2], 1, *source.shape[3:])
        kept = sampling.temperature * gaussian(one_frame, generator).to(source.device)
    return kept.expand(source.shape), kept


def gaussian(shape: Sequence[int], generator: torch.Generator | Sequence[torch.Generator]) -> Tensor:
    """Noise of a shape [B, ...], from one generator or from one for each of the B streams."""
    if isinstance(generator, torch.Generator):
        return torch.randn(shape, generator=generator)
    if len(generator) != shape[0]:
        raise ValueError(f"expected one generator for each of {shape[0]} streams, got {len(generator)}")
    return torch.cat([torch.randn(1, *shape[1:], generator=g) for g in generator])


def in_range(state: EditState, frames: int, config: DiTConfig) -> EditState:
    """The state for a chunk of `frames` latent frames, at positions that the transformer knows."""
    fade = state.fade and replace(state.fade, former=keep_in_range(state.fade.former, frames, config))
    return replace(state, denoiser=keep_in_range(state.denoiser, frames, config), fade=fade)


def begin_fade(dit: DiT, state: EditState, past: DiTState, text: TextContext, guidance: float) -> Fade:
    """The state after a chunk that became the sink, and what it would have read if it had not: that goes on as well."""
    assert state.last is not None
    _, former = dit(state.last.latents, 0.0, past, source=state.last.source, text=text)
    return Fade(former, torch.zeros_like(past.position[:: halves(guidance)]))


def edit_stream(
    codec: VideoCodec,
    dit: DiT,
    pieces: Iterable[Tensor],
    text: TextContext,
    generator: torch.Generator,
    sampling: Sampling,
    guidance: float = 1.0,
    sample: Sample = sample_chunk,
) -> Iterator[Tensor]:
    """New streams side by side, as sessions run theirs: the frames of one chunk after the other, RGB uint8
    [B, F, H, W, 3] -> edited ones as they come, and last those that the codec still held back."""
    state = None
    for frames in pieces:
        latents = latents_of(codec.config, frames.shape[1], first=state is None)
        state = state or init_state(codec, dit, len(frames), frames.shape[2], frames.shape[3], guidance)
        state = in_range(state, latents, dit.config)
        edited, state = edit_chunk(codec, dit, frames, text, state, generator, sampling, guidance, sample)
        yield edited
    rest = None if state is None else codec.flush(state.decoder)
    if rest is not None:
        yield to_uint8(rest)


def latents_of(config: CodecConfig, frames: int, first: bool) -> int:
    """The latent frames that so many frames become; `first`: they open the stream."""
    opening = config.first_latent_frames if first else 0
    return -(-(frames - opening) // config.frames_per_latent) + first


def edit_clip(
    codec: VideoCodec,
    dit: DiT,
    frames: Tensor,
    text: TextContext,
    generator: torch.Generator,
    sampling: Sampling,
    chunk: int,
    guidance: float = 1.0,
    sample: Sample = sample_chunk,
) -> Tensor:
    """Whole clips, RGB uint8 [B, F, H, W, 3], as new streams in chunks of `chunk` latent frames -> edited, same shape.

    F must be what a number of whole latents stands for.
    """
    edges = [0]
    while edges[-1] < frames.shape[1]:
        edges.append(edges[-1] + codec.frames_of(chunk, first=len(edges) == 1))
    pieces = (frames[:, start:end] for start, end in pairwise(edges))
    return torch.cat(list(edit_stream(codec, dit, pieces, text, generator, sampling, guidance, sample)), dim=1)


def to_signed(frames: Tensor) -> Tensor:
    """RGB uint8 [B, F, H, W, 3] -> [B, 3, F, H, W] in [-1, 1], float32"""
    return (frames.float() / 127.5 - 1).permute(0, 4, 1, 2, 3)


def to_uint8(frames: Tensor) -> Tensor:
    """[B, 3, F, H, W], about [-1, 1] -> RGB uint8 [B, F, H, W, 3]"""
    return ((frames.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()


class Editor:
    """A model, ready to edit. Holds weights and nothing of any stream; sessions hold the rest."""

    def __init__(
        self,
        config: ModelConfig,
        dit: DiT,
        codec: VideoCodec,
        encode_text: Callable[[str], Tensor],
        encode_negative: Callable[[str], Tensor] | None = None,
    ):
        """encode_text: prompt -> token states [L, E]; ValueError for a prompt it cannot take.
        encode_negative: the same for negative prompts; if not given, these are read like all others."""
        self.config = config
        self.dit = dit
        self.codec = codec
        self.encode_text = encode_text
        self.encode_negative = encode_negative or encode_text
        self.device = next(dit.parameters()).device

    @classmethod
    def load(cls, model: str | Path = "nano", device: str | torch.device | None = None) -> Editor:
        """A shipped model by name, or a folder; on the GPU if there is one. ValueError for what does not exist,
        MemoryError for what does not fit."""
        folder = checkpoint.find(model)
        target = pick_device(device)
        dtype = pick_dtype(target)
        config = checkpoint.load_config(folder)
        with memory_told(config, config.frame_size or (config.size, config.size), dtype, target):
            config, dit, codec = checkpoint.load(folder, target, dtype)
        encoder = load_encoder(config.text, target)
        return cls(config, dit, codec, encoder, encoder.negative)

    def memory_told(self, size: Sequence[int], guidance: float, where: str = "") -> AbstractContextManager[None]:
        """See `memory_told`; for a stream of (width, height)."""
        return memory_told(self.config, size, next(self.dit.parameters()).dtype, self.device, guidance, where)

    @property
    def stride(self) -> int:
        """Height and width of frames must be multiples of this many pixels."""
        return self.config.codec.stride

    @property
    def edits(self) -> dict[str, TaughtEdit]:
        """What the model was taught, by name; empty for a model that came without a list."""
        return self.config.edits

    def prompt(self, text: str, negative: str | None = None) -> TextContext:
        """What the transformer reads of an instruction; with `negative`, as guidance asks for, of that prompt first.
        ValueError if the instruction is empty."""
        score = self.config.sampler.motion_score
        if score and text.strip():
            text = f"{text.strip()} motion score: {score}."
        with torch.inference_mode():
            states = self.encode_text(text).to(self.device)
            if negative is None:
                return self.dit.encode_text(states[None])
            pair = [self.encode_negative(negative).to(self.device), states]
            mask = [torch.ones(len(tokens), device=self.device) for tokens in pair]
            return self.dit.encode_text(pad_sequence(pair, batch_first=True), pad_sequence(mask, batch_first=True))

    def session(self, prompt: str, **options: Any) -> Session:
        """A new stream; of a model that edits short clips whole, a `ClipSession`. Options: those of `Session`."""
        from sana_streaming.stream.clip import ClipSession

        return (ClipSession if self.config.sampler.clip else Session)(self, prompt, **options)

    def edit_clip(self, frames: Tensor, prompt: str, **options: Any) -> Tensor:
        """A short clip as a whole, RGB uint8 [F, H, W, 3] -> edited frames of the same shape, on the CPU; for models
        that do this, such as 2b-bidirectional. Options: seed, steps, guidance, negative_prompt, as in `session`."""
        from sana_streaming.stream.clip import ClipSession

        return ClipSession(self, prompt, **options).edit(frames)

    def edit(self, source: str | Path, edited: str | Path, prompt: str, **options: Any) -> Report:
        """Edit a video file. Options and result: `sana_streaming.stream.run.edit_file`."""
        from sana_streaming.stream.run import edit_file

        return edit_file(self, source, edited, prompt, **options)


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
        FloatingPointError say in a line which chunk failed; the session is then as it was before."""
        lengths = self._check(frames)
        height, width = frames.shape[1:3]
        editor, change, anchoring, resetting = self.editor, self.change, self.anchoring, self.resetting
        text = self.text if change is None else change.text
        found, watch = ((), self.watch) if self.on_cut == "ignore" else find_cuts(frames, self.watch)
        begin = self.watch.frames  # number of the chunk's first frame
        on_cut = self.on_cut if any(frame <= begin for frame in found) else "ignore"
        with editor.memory_told((width, height), self.guidance, f"chunk {self.chunks}: "), torch.inference_mode():
            state = self.state or init_state(editor.codec, editor.dit, 1, height, width, self.guidance)
            if change is not None:
                state = POLICIES[change.policy](editor.dit, state, text)
            if resetting is not None or on_cut == "reset":
                state = reset(editor.dit, state, text)
            state = in_range(state, lengths[len(frames)], editor.dit.config)
            past, anchors = state.denoiser, anchoring is not None or on_cut == "anchor"
            if anchors:
                state = replace(state, denoiser=anchor(past))
            batch, generator = frames[None].to(editor.device), self.generator.clone_state()
            edited, state = edit_chunk(
                editor.codec, editor.dit, batch, text, state, generator, self.sampling, self.guidance
            )
            if state.last is not None and not bool(state.last.latents.isfinite().all()):
                raise FloatingPointError(
                    f"chunk {self.chunks}: expected finite latents, got NaN or infinity; the weights may be damaged or "
                    f"{str(state.last.latents.dtype).removeprefix('torch.')} too coarse for them"
                )
            if anchors and past.sink is not None:
                state = replace(state, fade=begin_fade(editor.dit, state, past, text, self.guidance))
        # Only now, so that a chunk that fails leaves everything as it was.
        self.state, self.generator, self.size, self.text, self.watch = state, generator, (height, width), text, watch
        for receipt in (None if change is None else change.receipt, anchoring, resetting):
            if receipt is not None:
                receipt.applied = self.chunks
        self.change = None if self.change is change else self.change  # else another one came meanwhile
        self.anchoring = None if self.anchoring is anchoring else self.anchoring
        self.resetting = None if self.resetting is resetting else self.resetting
        cuts = (Cut(frame, self.chunks + (frame > begin)) for frame in found)
        self.cuts_found = (*self.cuts_found, *cuts)[-REMEMBERED_CUTS:]
        if any(frame > begin for frame in found):
            self._at_next_chunk(self.on_cut)
        self.chunks += 1
        return edited[0].cpu()

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


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, else a GPU if there is one. ValueError if it is not there."""
    count = torch.cuda.device_count()
    if device is None:
        return torch.device("cuda" if count else "cpu")
    known = ["cpu", "cuda", *(f"cuda:{i}" for i in range(count))] if count else ["cpu"]
    if str(device) not in known:
        raise ValueError(f"device '{device}' cannot be used here: expected {' or '.join(known)}")
    return torch.device(device)


@contextmanager
def memory_told(
    config: ModelConfig,
    size: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
    guidance: float = 1.0,
    where: str = "",
) -> Iterator[None]:
    """A GPU that is out of memory inside ends as MemoryError, with a line that says what was needed."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        from sana_streaming.stream.memory import out_of_memory  # which goes the road of a chunk itself

        width, height = size
        raise MemoryError(where + out_of_memory(config, (width, height), dtype, device, guidance)) from error


def pick_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where it is fast: GPUs, and CPUs with instructions for it; else float32."""
    if device.type == "cuda":
        return torch.bfloat16
    fast = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return torch.bfloat16 if fast else torch.float32

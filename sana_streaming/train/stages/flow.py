"""Flow matching on rendered pairs, chunk by chunk, with a past that is trained and not only used.

A clip is cut into chunks. Each chunk is denoised from a random noise level and reads the state that the chunks before
it left; gradients flow through those commits. What is committed is, for some clips, the clean edit, for the others the
model's own estimate, so that the model meets its own mistakes. After the first chunk the clock of some clips jumps
ahead, so that short clips show every distance to the sink and to old memories that a long stream can have; and some
clips are left as they are at first, as in a stream whose prompt changes.

Long clips are trained on window by window, each from the state that the window before left: a model that only met the
first seconds of streams goes on well for as long and no longer.

The error is that of the estimated data, in the metric of pixels (how much each direction of a latent cell changes the
decoded picture), and weighs more where the instruction asks for a change. How much it changes from one latent frame to
the next counts, too: an error that stays is hardly seen, one that comes and goes flickers. A cell that is all wrong
counts less than by its square, for where nothing tells what should be there it would drown the others. And where the
place of something new is not told to the pixel, it may be at any of nine places, of which the nearest counts: one
picture a little aside is better than the mean of many.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor, nn

from sana_streaming import config as presets
from sana_streaming.codec import VideoCodec, build_codec
from sana_streaming.data.bank import load_bank
from sana_streaming.data.batch import render_batch
from sana_streaming.data.edits import EDITS
from sana_streaming.data.phrasings import UNCHANGED
from sana_streaming.data.prompts import Prompts
from sana_streaming.diffusion.flow import interpolate, sampling
from sana_streaming.metrics import psnr
from sana_streaming.model.dit import DiT, DiTState, TextContext
from sana_streaming.state import detach, map_state
from sana_streaming.stream.road import edit_clip, to_uint8
from sana_streaming.text import load_encoder
from sana_streaming.train import parallel
from sana_streaming.train.ahead import Ahead
from sana_streaming.train.loop import load_export, load_weights
from sana_streaming.train.recorded import Memory, Recorded
from sana_streaming.train.stages.clips import Clips, ClipSource, encoded, pixel_metric

P = TypeVar("P")
Layout = tuple[int, int, int, int, int]  # height, width, clips, latents of a window, windows


@dataclass(frozen=True)
class FlowConfig:
    codec: str  # folder of the codec's export
    layouts: tuple[Layout, ...] = (  # only the first is compiled; the others need more memory for each clip
        (256, 256, 64, 4, 1), (256, 256, 64, 4, 3), (256, 448, 18, 4, 1), (448, 256, 18, 4, 1), (128, 224, 72, 4, 1),
        (384, 384, 14, 4, 1)
    )  # fmt: skip
    shares: tuple[float, ...] = (0.48, 0.34, 0.08, 0.04, 0.03, 0.03)  # how often each layout is drawn
    plans: tuple[tuple[int, ...], ...] = ((1,), (2,), (1, 2))  # lengths of chunks, repeated to the window's end
    plan_shares: tuple[float, ...] = (0.7, 0.15, 0.15)  # of clips of one window
    window_shares: tuple[float, ...] = (0.65, 0.35)  # the same of longer clips, for the first plans
    uses: int = 3  # how often clips of one window are trained on, each time with other chunks and noise
    pure_noise: float = 0.5  # share of chunks that start from noise alone, where sampling begins
    lowest_level: float = 0.3  # no schedule of the preset goes lower
    own_draft: float = 0.7  # share of clips that begin from the model's own first estimate, as the second step does
    own_past: float = 0.6  # share of clips whose past is the model's own estimate
    jumps: float = 0.3  # share of clips whose clock jumps
    longest_jump: int = 512  # latent frames
    prompt_changes: float = 0.1  # share of clips that stay as they are at first
    outside: float = 0.4  # weight of what the instruction leaves alone, against 1 + this for what it changes
    kept: float = 1.0  # weight of the foreground where the background changes, against 1 for the rest
    text_noise: float = 0.5  # of the size of token states
    text_drop: float = 0.15  # share of the token states hidden from half of the clips
    leeway: float = 0.024  # of the short side, by which what is new may be aside where its place is not told exactly
    emphasis: dict[str, float] = field(default_factory=dict)  # edits that are drawn so many times as often
    steadiness: float = 0.5  # weight of the error's change from one latent frame to the next, which is seen as flicker
    charbonnier: float = 0.3  # from where on errors of a cell count less than by their square; 0: nowhere
    pixel_metric: float = 0.85  # share of the pixels' metric in the error; the rest counts all directions alike
    compile: bool = True
    record: bool = True  # as CUDA graphs, where there is a GPU
    validation_clips: int = 4  # per edit; 0: train without validation
    film_frames: int | None = None
    preset: str = "nano"


@dataclass(frozen=True)
class Inputs:
    """All that a step's arithmetic reads, with everything random drawn. B clips, K chunks."""

    clips: Clips
    past: DiTState | None  # None: the clips begin here
    first_tokens: Tensor  # [B, L, E], of the prompt of the first chunk
    first_mask: Tensor  # bool [B, L]
    changes: Tensor  # bool [B]: the first chunk is to stay as it is, for the prompt changes after it
    jump: Tensor  # int64 [B], latent frames by which the clock jumps after the first chunk
    drafted: Tensor  # bool [B]: begins from the model's own first estimate
    own: Tensor  # bool [B]: remembers the model's own estimates
    noise: Tensor  # [B, C, T, h, w]
    levels: Tensor  # [B, K]


class FlowStage:
    config_type = FlowConfig

    def __init__(self, config: FlowConfig, pack: Path, device: torch.device, seed: int):
        self.config, self.device = config, device
        self.model = presets.PRESETS[config.preset]()
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.codec: VideoCodec = self._load_codec(Path(config.codec), dtype)
        self.dit = DiT(self.model.dit).to(device, dtype)
        self.modules: dict[str, nn.Module] = {"dit": self.dit}
        self.prompts = Prompts(load_encoder(self.model.text), device)
        self.bank = load_bank(pack, "train", device, film_frames=config.film_frames)
        self.held_out = load_bank(pack, "val", device, film_frames=config.film_frames)
        if config.compile:
            self._compile()
        self.plans = torch.Generator().manual_seed(seed)  # decides shapes, alike in all processes
        at_once = math.prod(config.layouts[0][:4]) * self.model.codec.frames_per_latent
        self.source = ClipSource(
            self.codec, self.bank, self.prompts, self.model.text.max_tokens, config.outside, config.kept,
            config.text_noise, config.text_drop, config.leeway, at_once, config.emphasis,
        )  # fmt: skip
        self.metric = self._metric(torch.Generator(device).manual_seed(0))
        self.renderer: Ahead[Clips] = Ahead(device)
        self.clips: Clips | None = None
        self.turn = 0  # of these clips
        self.past: DiTState | None = None  # before their next window; None before the first
        self.layout, self.plan = config.layouts[0], config.plans[0]
        self.next_layout: Layout | None = None
        self.recorded: dict[tuple[int, ...], Recorded] = {}
        records = config.record and device.type == "cuda"
        self.memory = Memory() if records else None

    def backward(self, step: int, generator: Generator) -> dict[str, Tensor | float]:
        began = time.perf_counter()
        if self.clips is None or self.turn == max(self.layout[4], self.config.uses):
            self._next_clips()
        waited = time.perf_counter() - began  # much of a step: rendering holds the training up
        assert self.clips is not None
        latents, windows = self.layout[3:]
        window = self.turn % windows
        start = window * latents
        if window == 0:  # the later windows keep it, for what is remembered has another shape after another plan
            shares = self.config.plan_shares if windows == 1 else self.config.window_shares
            self.plan = self._pick(self.config.plans, shares)
        bounds = self._bounds(self.plan, latents)
        clips, past = self.clips.window(start, start + latents), self.past if window else None
        inputs = self._inputs(clips, past, bounds, generator)
        key = (*self.layout[:4], window, *bounds)
        if key not in self.recorded:
            parameters = list(self.dit.parameters())
            self.renderer.wait()  # cuDNN, trying its algorithms, waits for the whole GPU, which ends a recording
            self.recorded[key] = Recorded(partial(self._accumulate, bounds), inputs, parameters, self.memory)
        (loss, first_error, last_error), self.past = self.recorded[key](inputs)
        self.turn += 1
        told = {"loss": loss, "first": first_error, "last": last_error}
        counted = {"clips": float(len(clips.source)), "waited": waited}
        return {name: value.clone() for name, value in told.items()} | counted

    def _next_clips(self) -> None:
        """Take the clips that were rendered while the last ones were trained on, and have the next ones rendered."""
        if self.next_layout is None:
            self._start_rendering()
        assert self.next_layout is not None
        self.layout, self.clips, self.turn = self.next_layout, self.renderer.take(), 0
        self._start_rendering()

    def _start_rendering(self) -> None:
        self.next_layout = self._pick(self.config.layouts, self.config.shares)
        seed = int(torch.randint(2**62, (1,), generator=self.plans)) + parallel.rank()
        generator = torch.Generator(self.device).manual_seed(seed)
        height, width, clips, latents, windows = self.next_layout
        self.renderer.start(partial(self.source.render, height, width, clips, latents * windows, generator))

    def _inputs(self, clips: Clips, past: DiTState | None, bounds: Sequence[int], generator: Generator) -> Inputs:
        """Clips of one window, what is remembered before it, and the edges of its chunks."""
        config, source = self.config, clips.source
        batch, device = len(source), self.device
        before, before_mask = self.prompts([UNCHANGED], self.model.text.max_tokens)
        begins = 1.0 if past is None else 0.0  # only there the prompt changes or the clock jumps
        changes = self._chance(begins * config.prompt_changes, batch, generator) & ~clips.weather
        jump = torch.randint(1, config.longest_jump + 1, (batch,), generator=generator, device=device)
        noise = torch.randn(source.shape, generator=generator, device=device)
        alike = self._chance(0.5, batch, generator)[:, None, None, None, None]  # as streams of some presets begin
        return Inputs(
            clips=clips,
            past=past,
            first_tokens=torch.where(changes[:, None, None], before, clips.tokens),
            first_mask=torch.where(changes[:, None], before_mask, clips.mask),
            changes=changes,
            jump=torch.where(self._chance(begins * config.jumps, batch, generator), jump, 0),
            drafted=self._chance(config.own_draft, batch, generator),
            own=self._chance(config.own_past, batch, generator),
            noise=self.model.sampler.temperature * torch.where(alike, noise[:, :, :1], noise),
            levels=torch.stack([self._levels(batch, generator) for _ in bounds[1:]], dim=1),
        )

    def _accumulate(self, bounds: Sequence[int], inputs: Inputs) -> tuple[tuple[Tensor, Tensor, Tensor], DiTState]:
        """Add the gradient of one batch -> the loss and the mean error of the first and of the last latent frames; and
        what is remembered after them."""
        clips, changes, jump, noise = inputs.clips, inputs.changes, inputs.jump, inputs.noise
        text, residuals, weights = self._text(clips.tokens, clips.mask), [], []
        state = self._first_state(clips.source) if inputs.past is None else self._as_first(inputs.past)
        wide = (slice(None), None, None, None, None)
        for i, (start, end) in enumerate(pairwise(bounds)):
            data, beside = clips.target[:, :, start:end], clips.source[:, :, start:end]
            weigh, prompt, own = clips.weight[:, start:end], text, inputs.own
            if i == 0:
                data = torch.where(changes[wide], beside, data)
                weigh = torch.where(changes[wide[:4]], 1.0, weigh)
                prompt = self._text(inputs.first_tokens, inputs.first_mask)
            sigma, begin = inputs.levels[:, i], data
            if self.config.own_draft:
                draft = self._draft(noise[:, :, start:end], beside, state, prompt)
                begin = torch.where(inputs.drafted[wide], draft, data)
            noisy = interpolate(begin, noise[:, :, start:end], sigma[wide])
            velocity, _ = self.dit(noisy, sigma, state, source=beside, text=prompt)
            estimate = noisy - sigma[wide] * velocity
            residual = self._in_pixels(estimate - data)
            if i == 1:  # after a jump nothing tells where in the picture the particles are by now
                lost = clips.weather & (jump > 0)
                residual, weigh = torch.where(lost[wide], 0.0, residual), torch.where(lost[wide[:4]], 0.0, weigh)
                own = own & ~lost
            residuals.append(residual)
            weights.append(weigh)
            past = torch.where(own[wide], estimate.detach(), data)
            _, state = self.dit(past, torch.zeros_like(sigma), state, source=beside, text=prompt)
            if i == 0:
                state = replace(state, position=state.position + jump)
            state = map_state(Tensor.contiguous, state)  # the layout that the blocks were compiled for
        weight = torch.cat(weights, dim=1)
        error = self._error(self._to_nearest(torch.cat(residuals, dim=2), weight, inputs, bounds[1]), weight)
        loss = error.mean()
        loss.backward()
        told = (loss.detach(), error[:, 0].mean().detach(), error[:, -1].mean().detach())
        return told, detach(state)

    def _draft(self, noise: Tensor, source: Tensor, state: DiTState, text: TextContext) -> Tensor:
        """The model's estimate from noise alone; not under `no_grad`, for which blocks would be compiled once more."""
        sigma = noise.new_ones(len(noise))
        return noise - self.dit(noise, sigma, state, source=source, text=text)[0].detach()

    def _to_nearest(self, residual: Tensor, weight: Tensor, inputs: Inputs, first: int) -> Tensor:
        """Residuals [B, C, T, h, w] to the truth -> those to the nearest target, clip by clip; of clips whose prompt
        changes, the `first` latent frames have but one."""
        targets = inputs.clips.targets
        apart = targets[:, :1] - targets
        apart[:, :, :, :first].masked_fill_(inputs.changes[:, None, None, None, None, None], 0.0)
        apart = self._in_pixels(apart.flatten(0, 1)).view_as(apart)
        choices = apart.shape[1]
        each = (residual.detach()[:, None] + apart).flatten(0, 1)
        error = self._error(each, weight.repeat_interleave(choices, dim=0)).mean(dim=1).view(-1, choices)
        return residual + apart[torch.arange(len(apart), device=apart.device), error.argmin(dim=1)]

    def _error(self, residual: Tensor, weight: Tensor) -> Tensor:
        return weighed_error(residual, weight, self.config.steadiness, self.config.charbonnier)

    def _in_pixels(self, difference: Tensor) -> Tensor:
        """[B, C, T, h, w] in the metric, where the mean square tells the change of the decoded picture"""
        return torch.einsum("bcthw,cd->bdthw", difference.float(), self.metric)

    def measure(self) -> None:
        """Nothing here depends on the weights."""

    @torch.no_grad()
    def validate(self) -> tuple[dict[str, float], Tensor | None]:
        """PSNR to the true edit where the instruction asks for one, on held-out material and phrasings, chunk by chunk
        as in use, and a picture with a column for each edit: source, truth, edited. Nothing without clips."""
        clips = self.config.validation_clips
        if not clips:
            return {}, None
        generator = torch.Generator(self.device).manual_seed(1)
        height, width = self.config.layouts[0][:2]
        frames = 3 * self.model.sampler.chunk * self.model.codec.frames_per_latent
        scores: dict[str, float] = {}
        means: dict[str, list[float]] = {}
        columns = []
        for name, edit in EDITS.items():
            batch = render_batch(self.held_out, clips, frames, height, width, generator, edits=[name], held_out=True)
            source, truth = (to_uint8(video.transpose(1, 2) * 2 - 1) for video in (batch.source, batch.target))
            edited = self._edit(source, batch.phrases, self.model.sampler.steps)
            asked = batch.region[:, :, 0]
            asked = torch.where(asked.sum(dim=(1, 2, 3), keepdim=True) > 0, asked, 1.0)  # "unchanged" asks for nothing
            for kind, video in {"edited": edited, "unedited": source}.items():
                value = float(psnr(video, truth, asked).mean())
                scores[f"{name} {kind}"] = value
                means.setdefault(f"mean {edit.kind} {kind}", []).append(value)
            columns.append(torch.cat([video[0, -1] for video in (source, truth, edited)]))
        scores |= {name: sum(values) / len(values) for name, values in means.items()}
        return scores, torch.cat(columns, dim=1).cpu()

    def _edit(self, source: Tensor, phrases: Sequence[str], steps: int) -> Tensor:
        """RGB uint8 [B, F, H, W, 3] -> the same, edited as a session would."""
        sampler = self.model.sampler
        text = self.dit.encode_text(*self.prompts(phrases))
        noise = torch.Generator().manual_seed(0)
        return edit_clip(self.codec, self.dit, source, text, noise, sampling(sampler, steps), sampler.chunk)

    def state_dict(self) -> dict[str, Any]:
        return {"plans": self.plans.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.plans.set_state(state["plans"])

    def _metric(self, generator: Generator) -> Tensor:
        height, width, clips = self.config.layouts[0][:3]
        frames = 2 * self.model.codec.frames_per_latent
        batch = render_batch(self.bank, min(16, clips), frames, height, width, generator)
        with torch.no_grad():
            latents = torch.cat(list(encoded(self.codec, batch.source, batch.target)))
        return pixel_metric(self.codec, latents, self.config.pixel_metric, generator)

    def _pick(self, choices: Sequence[P], shares: Sequence[float]) -> P:
        return choices[int(torch.multinomial(torch.tensor(shares, dtype=torch.float32), 1, generator=self.plans))]

    @staticmethod
    def _bounds(plan: Sequence[int], latents: int) -> tuple[int, ...]:
        """Where the chunks of a clip begin and end: a plan's lengths, repeated, the last one cut."""
        bounds = [0]
        while bounds[-1] < latents:
            bounds.append(min(latents, bounds[-1] + plan[(len(bounds) - 1) % len(plan)]))
        return tuple(bounds)

    def _levels(self, clips: int, generator: Generator) -> Tensor:
        """Noise levels [B]: logit-normal, shifted towards noise; some exactly 1."""
        u = torch.randn(clips, generator=generator, device=self.device).sigmoid()
        shift = self.model.sampler.shift
        sigma = (shift * u / (1 + (shift - 1) * u)).clamp_min(self.config.lowest_level)
        return torch.where(self._chance(self.config.pure_noise, clips, generator), 1.0, sigma)

    def _chance(self, share: float, clips: int, generator: Generator) -> Tensor:
        """True for about that share of the clips, [B]."""
        return torch.rand(clips, generator=generator, device=self.device) < share

    def _compile(self) -> None:
        """Compile the blocks for the first size and every length of its chunks: half a minute for each. What comes in
        other shapes runs uncompiled; so does softmax attention, whose keys grow."""
        torch._dynamo.config.recompile_limit = 64
        for index, block in enumerate(self.dit.blocks):
            (block.ffn if index in self.model.dit.softmax_blocks else block).compile()
        height, width, clips = self.config.layouts[0][:3]
        stride = self.model.codec.stride
        tokens = torch.zeros(clips, self.model.text.max_tokens, self.model.text.dim, device=self.device)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=self.device)
        for length in sorted({length for plan in self.config.plans for length in plan}):
            shape = (clips, self.model.dit.latent_channels, length, height // stride, width // stride)
            latents = torch.zeros(shape, device=self.device)
            state = map_state(Tensor.contiguous, self._first_state(latents))
            text, sigma = self._text(tokens, mask), torch.ones(clips, device=self.device)
            velocity, _ = self.dit(latents, sigma, state, source=latents, text=text)
            velocity.sum().backward()
        self.dit.zero_grad()
        torch.compiler.set_stance("eager_on_recompile")

    def _text(self, tokens: Tensor, mask: Tensor) -> TextContext:
        """Token states [B, L, E] and mask bool [B, L], of one length for all batches."""
        return replace(self.dit.encode_text(tokens), mask=mask[:, None, None])

    def _first_state(self, latents: Tensor) -> DiTState:
        return self._as_first(self.dit.init_state(len(latents), (latents.shape[-2], latents.shape[-1])))

    @staticmethod
    def _as_first(state: DiTState) -> DiTState:
        """It takes gradients as all later states do, so that a compiled block meets one kind of input."""
        return map_state(lambda x: x.detach().requires_grad_() if x.is_floating_point() else x, state)

    def _load_codec(self, folder: Path, dtype: torch.dtype) -> VideoCodec:
        codec = build_codec(self.model.codec)
        load_weights({"codec": codec}, load_export(folder))
        return codec.to(self.device, dtype).eval().requires_grad_(False)


def weighed_error(residual: Tensor, weight: Tensor, steadiness: float, charbonnier: float) -> Tensor:
    """Residuals [B, C, T, h, w] and weights [B, T, h, w] -> [B, T], the weighed mean of the cells' errors.

    The error of a cell is its mean square, and `steadiness` times that of the change since the latent frame before; far
    above the square of `charbonnier`, if that is not 0, it counts in proportion to its root (Charbonnier's penalty)."""
    error = residual.square().mean(dim=1)
    change = residual.diff(dim=2).square().mean(dim=1)
    error = error + steadiness * nn.functional.pad(change, (0, 0, 0, 0, 1, 0))
    if charbonnier:
        error = 2 * charbonnier * ((error + charbonnier**2).sqrt() - charbonnier)
    return (weight * error).mean(dim=(2, 3))

"""What is measured of a stream of the released model: its stages, the whole road, memory, and whether it ends."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from sana_streaming.bench import machine
from sana_streaming.bench.watch import Watch, WatchedCodec
from sana_streaming.checkpoint.folder import FLOAT32
from sana_streaming.codec import build_codec
from sana_streaming.config import ModelConfig, two_b
from sana_streaming.diffusion.flow import sampling
from sana_streaming.diffusion.sampler import sample_chunk
from sana_streaming.model.dit import DiT
from sana_streaming.model.rebase import keep_in_range
from sana_streaming.state import nbytes, tensors
from sana_streaming.stream.editor import Editor
from sana_streaming.stream.road import to_signed, to_uint8

DTYPE = torch.bfloat16
WARM_UP = 4  # chunks: memory is claimed, kernels are compiled, and the windows of the model fill
FULL = 6  # chunks after which a stream no longer grows, in all presets
STAGES = ("in", "encode", "noise", "transformer", "decode", "out")
CONSTANTS = {"A_log": 0.0, "dt_bias": -8.0, "gate_bias": 1.0, "latents_mean": 0.0, "latents_std": 1.0}


def tiny() -> ModelConfig:
    """The released model, small: of 4 blocks the last is a softmax block."""
    config = two_b()
    return replace(
        config,
        name="tiny",
        dit=replace(config.dit, latent_channels=4, dim=24, heads=2, depth=4, text_dim=6, ffn_dim=16, max_position=32),
        codec=replace(
            config.codec,
            latent_channels=4,
            widths=(4, 8, 16, 32, 64),
            blocks=(1, 1, 1, 1, 1),
            decoder_widths=(4, 8, 16, 32),
            decoder_blocks=(1, 1, 1, 1),
        ),
        text=replace(config.text, dim=6),
    )


def random_editor(config: ModelConfig, device: torch.device) -> Editor:
    """Weights are made on the device, one after the other, and placed as a checkpoint's are."""
    with torch.device("meta"):
        dit, codec = DiT(config.dit), build_codec(config.codec)
    generator = torch.Generator(device).manual_seed(0)
    for module in (dit, codec):
        weights = {name: random_weight(name, like.shape, generator) for name, like in module.state_dict().items()}
        module.load_state_dict(weights, assign=True)
        module.eval().requires_grad_(False)
    return Editor(config, dit, codec, partial(random_text, config))


def random_weight(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Matrices that keep the scale of what they multiply, norms near 1; the past is forgotten as slowly as before
    training."""
    dtype = torch.float32 if name.endswith(FLOAT32) else DTYPE
    *_, owner, last = ("", *name.split("."))
    if last in CONSTANTS:
        return torch.full(shape, CONSTANTS[last], dtype=dtype, device=generator.device)
    x = torch.randn(shape, dtype=dtype, device=generator.device, generator=generator)
    if len(shape) > 1:
        return x.mul_(shape[1:].numel() ** -0.5)
    return x.mul_(0.02).add_(1.0 if "norm" in owner and last == "weight" else 0.0)


def random_text(config: ModelConfig, prompt: str) -> Tensor:
    """Token states [L, E] of the longest instruction there can be."""
    return torch.randn(config.text.max_tokens, config.text.dim, generator=torch.Generator().manual_seed(len(prompt)))


@contextmanager
def noting(module: nn.Module, watch: Watch) -> Iterator[None]:
    """Inside, it is noted when a pass through the module begins and ends."""
    hooks = module.register_forward_pre_hook(watch.note), module.register_forward_hook(watch.note)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def stages(editor: Editor, video: Tensor, *, steps: int, chunks: int, kind: str) -> dict[str, float]:
    """Milliseconds of a chunk, the median over chunks of a stream in full flow; "pass": one pass of the transformer."""
    watch = Watch(editor.device, kind)
    watched = Editor(editor.config, editor.dit, WatchedCodec(editor.codec, watch), editor.encode_text)
    session, rows = watched.session("edit", steps=steps), []
    with noting(editor.dit, watch):
        for index in range(WARM_UP + chunks):
            frames = video[: session.chunk_frames]
            watch.note()
            session.step(frames)
            watch.note()
            spans = watch.milliseconds()
            if index >= WARM_UP:
                enter, encode, noise, *passes, decode, leave = spans  # between two passes lies the step
                rows.append([enter, encode, noise, sum(passes), decode, leave, median(passes[::2])])
    return {name: median(column) for name, column in zip((*STAGES, "pass"), zip(*rows, strict=True), strict=True)}


def whole_road(editor: Editor, video: Tensor, *, steps: int, chunks: int) -> dict[str, Any]:
    """From frames in memory to frames in memory, in chunks of a stream in full flow. Nothing is noted in between."""
    session, times = editor.session("edit", steps=steps), []
    for index in range(WARM_UP + chunks):
        frames = video[: session.chunk_frames]
        begin = time.perf_counter()
        session.step(frames)
        if index >= WARM_UP:
            times.append(1000 * (time.perf_counter() - begin))
    count = editor.codec.frames_of(editor.config.sampler.chunk, False)
    return {"milliseconds": median(times), "frames_per_second": 1000 * count / median(times), "of_each_chunk": times}


def conversions(editor: Editor, video: Tensor, *, chunks: int, kind: str) -> dict[str, float]:
    """Milliseconds for the frames of a chunk: to the device and back, from uint8 and back."""
    watch = Watch(editor.device, kind)
    frames = video[: editor.codec.frames_of(editor.config.sampler.chunk, False)]
    rows = []
    for _ in range(WARM_UP + chunks):
        watch.note()
        batch = frames[None].to(editor.device)
        watch.note()
        signed = to_signed(batch)
        watch.note()
        decoded = signed.contiguous()  # as decoders leave it
        watch.note()
        edited = to_uint8(decoded)
        watch.note()
        edited[0].cpu()
        watch.note()
        upload, from_uint8, _, back, download = watch.milliseconds()
        rows.append((upload, from_uint8, back, download))
    names = ("upload", "from uint8", "to uint8", "download")
    return {name: median(column) for name, column in zip(names, zip(*rows[WARM_UP:], strict=True), strict=True)}


def device_memory(editor: Editor, video: Tensor, weights: int) -> dict[str, Any]:
    """Bytes that a stream takes on a GPU, from its first chunk to where it no longer grows. Weights: those measured.

    Activations are what a chunk needs at most besides weights and state, as in `memory.estimate`; in them are the text
    and the workspaces of libraries."""
    device, peaks = editor.device, []
    torch.cuda.empty_cache()
    session = editor.session("edit")
    for _ in range(WARM_UP + 2):
        torch.cuda.reset_peak_memory_stats(device)
        session.step(video[: session.chunk_frames])
        peaks.append(torch.cuda.max_memory_allocated(device))
    state, text = nbytes(session.state), nbytes(session.text)
    held = torch.cuda.memory_allocated(device)
    free, total = torch.cuda.mem_get_info(device)
    return {
        "total": max(peaks),
        "weights": weights,
        "state": state,
        "activations": max(peaks) - weights - state,
        "text": text,
        "held_between_chunks_besides": held - weights - state - text,
        "peak_of_each_chunk": peaks,
        "reserved": torch.cuda.max_memory_reserved(device),
        "driver_used": total - free,
        "driver_total": total,
    }


@dataclass(frozen=True)
class Reading:
    chunks: int
    state_bytes: int
    requested: int | None  # bytes of all tensors on the GPU, exact; None on a CPU, as the following
    allocated: int | None  # the same in blocks of the allocator, which are a little larger, now more, now less
    reserved: int | None
    driver_used: int | None
    position: int
    sink: int
    finite: bool
    milliseconds: float  # of a chunk, the median since the reading before

    @property
    def size(self) -> tuple[int, int | None]:
        """What must not change."""
        return self.state_bytes, self.requested


def endless(
    config: ModelConfig, dit: DiT, grid: tuple[int, int], chunks: int, stop_at: float = float("inf")
) -> Iterator[Reading]:
    """Random source latents through the transformer, one step and the commit for each chunk; a reading every now and
    then, and after the last chunk, which is the first that is not finite or ends later than `stop_at` by the clock."""
    device, sampler = dit.input.weight.device, config.sampler
    draw = partial(torch.randn, generator=torch.Generator(device).manual_seed(0), device=device)
    text = dit.encode_text(draw(1, config.text.max_tokens, config.text.dim))
    state, levels, times = dit.init_state(1, grid), sampling(sampler, 1).levels, []
    for i in range(1, chunks + 1):
        begin = time.perf_counter()
        frames = sampler.chunk if i > 1 else sampler.first_chunk
        shape = (1, config.dit.latent_channels, frames, *grid)
        source, noise = draw(shape, dtype=dit.input.weight.dtype), draw(shape)
        state = keep_in_range(state, frames, config.dit)
        latents, state = sample_chunk(partial(dit, source=source, text=text), noise, levels, state)
        finite = bool(latents.isfinite().all())  # waits for the device
        times.append(1000 * (time.perf_counter() - begin))
        stops = i == chunks or not finite or time.perf_counter() > stop_at
        if stops or i in (20, max(FULL, chunks // 2)) or i % 100 == 0:
            yield reading(i, state, finite, median(times), device)
            times = []
        if stops:
            return


def reading(chunks: int, state: Any, finite: bool, milliseconds: float, device: torch.device) -> Reading:
    requested = allocated = reserved = used = None
    if device.type == "cuda":
        requested = torch.cuda.memory_stats(device)["requested_bytes.all.current"]
        allocated, reserved = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
        free, total = torch.cuda.mem_get_info(device)
        used = total - free
    return Reading(
        chunks=chunks,
        state_bytes=nbytes(state),
        requested=requested,
        allocated=allocated,
        reserved=reserved,
        driver_used=used,
        position=int(state.position),
        sink=int(state.sink),
        finite=finite and all(bool(t.isfinite().all()) for t in tensors(state)),
        milliseconds=milliseconds,
    )


def verdict(readings: list[Reading]) -> str | None:
    """What is wrong with an endless stream; None if nothing is."""
    for now in readings:
        if not now.finite:
            return f"not finite any more by chunk {now.chunks}"
        if now.size != (first := readings[0]).size:
            return f"memory changed: {first.size} bytes after {first.chunks} chunks, {now.size} after {now.chunks}"
    return None


def product_rate(device: torch.device) -> float:
    """TFLOP/s of a large matrix product, so that a slow or busy machine can be told from slow code."""
    probe = machine.matrix_product(device, DTYPE)
    return median([probe() for _ in range(12)][2:]) / 1000

"""The object that holds one set of weights for many streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sana_streaming import checkpoint
from sana_streaming.codec import VideoCodec
from sana_streaming.config import ModelConfig, TaughtEdit
from sana_streaming.model.dit import DiT, TextContext
from sana_streaming.text import load_encoder

from .batch import step_together
from .session import Session

if TYPE_CHECKING:
    from sana_streaming.stream.run import Report


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

    def step_together(self, sessions: Sequence[Session], frames: Sequence[Tensor]) -> list[Tensor | Exception]:
        """The next chunks of several streams in one pass, see `batch.step_together`."""
        return step_together(sessions, frames)

    def edit_clip(self, frames: Tensor, prompt: str, **options: Any) -> Tensor:
        """A short clip as a whole, RGB uint8 [F, H, W, 3] -> edited frames of the same shape, on the CPU; for models
        that do this, such as 2b-bidirectional. Options: seed, steps, guidance, negative_prompt, as in `session`."""
        from sana_streaming.stream.clip import ClipSession

        return ClipSession(self, prompt, **options).edit(frames)

    def edit(self, source: str | Path, edited: str | Path, prompt: str, **options: Any) -> Report:
        """Edit a video file. Options and result: `sana_streaming.stream.run.edit_file`."""
        from sana_streaming.stream.run import edit_file

        return edit_file(self, source, edited, prompt, **options)


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

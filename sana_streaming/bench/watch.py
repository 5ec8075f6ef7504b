"""When the parts of a chunk begin and end."""

from collections.abc import Callable
from itertools import pairwise
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from sana_streaming.bench import machine
from sana_streaming.codec import VideoCodec


class Watch:
    """Notes moments, either when the GPU gets there ("gpu") or, having waited for it, by the clock ("wall")."""

    def __init__(self, device: torch.device, kind: str = "wall"):
        self.device, self.kind = device, kind
        self._noted: list[Any] = []

    def note(self, *_: Any) -> None:
        if self.kind == "gpu":
            self._noted.append(torch.cuda.Event(enable_timing=True))
            self._noted[-1].record(torch.cuda.current_stream(self.device))
        else:
            machine.synchronise(self.device)
            self._noted.append(perf_counter())

    def milliseconds(self) -> list[float]:
        """From each moment to the next. Forgets them."""
        machine.synchronise(self.device)
        noted, self._noted = self._noted, []
        if self.kind == "gpu":
            return [begin.elapsed_time(end) for begin, end in pairwise(noted)]
        return [1000 * (end - begin) for begin, end in pairwise(noted)]


class WatchedCodec(VideoCodec):
    """A codec that has noted when its work begins and ends. Between encoding and decoding lies the denoising."""

    def __init__(self, codec: VideoCodec, watch: Watch):
        super().__init__()
        self._codec, self._watch, self.config = codec, watch, codec.config

    def init_encoder(self, batch: int) -> Any:
        return self._codec.init_encoder(batch)

    def init_decoder(self, batch: int) -> Any:
        return self._codec.init_decoder(batch)

    def frames_of(self, latents: int, first: bool) -> int:
        return self._codec.frames_of(latents, first)

    def encode(self, frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self._noting(self._codec.encode, frames, state)

    def decode(self, latents: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self._noting(self._codec.decode, latents, state)

    def flush(self, state: Any) -> Tensor | None:
        return self._codec.flush(state)

    def _noting(self, work: Callable[[Tensor, Any], tuple[Tensor, Any]], x: Tensor, state: Any) -> tuple[Tensor, Any]:
        self._watch.note()
        result = work(x, state)
        self._watch.note()
        return result

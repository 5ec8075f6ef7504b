"""How much device memory a model takes, told from its config alone: nothing is loaded, downloaded or computed.

A stream of tensors without contents goes the usual road, `edit_chunk`, until its memory of the past no longer grows;
what is counted are the tensors alive at once. Weights and state are exact. Activations are those of the operators'
definitions, with attention and normalisation in one piece, as GPUs have them. Not in them are the workspaces of
libraries and the gaps that an allocator leaves between tensors.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sana_streaming.checkpoint.folder import FLOAT32
from sana_streaming.codec import CODECS, build_codec
from sana_streaming.config import ModelConfig
from sana_streaming.diffusion.flow import sampling
from sana_streaming.model.dit import DiT
from sana_streaming.state import nbytes

from .road import edit_chunk, halves, init_state

META = torch.device("meta")
LONGEST = 64  # chunks after which a stream that still grows is taken as it is


@dataclass(frozen=True)
class Estimate:
    """Bytes of one stream on one device."""

    weights: int
    state: int  # what a stream in full flow remembers
    activations: int  # the most that a chunk needs besides

    @property
    def total(self) -> int:
        return self.weights + self.state + self.activations


def estimate(config: ModelConfig, size: tuple[int, int], dtype: torch.dtype, guidance: float = 1.0) -> Estimate:
    """A stream of (width, height) in a model whose weights have that type; the longest instruction, and of a model
    that edits clips as a whole the longest clip."""
    width, height = size
    with META:
        dit, codec = DiT(config.dit), build_codec(config.codec)
    for module in (dit, codec):
        _cast(module, dtype)
    weights = sum(_bytes(module) for module in (dit, codec))
    # The number of steps does not matter: one after the other reads the same past and leaves nothing behind.
    sampler, steps, generator = config.sampler, sampling(config.sampler, 1), torch.Generator().manual_seed(0)
    first = sampler.clip[1] if sampler.clip else sampler.first_chunk
    with torch.inference_mode(), FusedOperators(), Tally(META) as tally:
        text = dit.encode_text(torch.empty(halves(guidance), config.text.max_tokens, config.text.dim, device=META))
        state, remembered = init_state(codec, dit, 1, height, width, guidance), 0
        for index in range(1 if sampler.clip else LONGEST):
            latents = sampler.chunk if index else first
            shape = (1, codec.frames_of(latents, index == 0), height, width, 3)
            frames = torch.empty(shape, dtype=torch.uint8, device=META)
            edited, state = edit_chunk(codec, dit, frames, text, state, generator, steps, guidance)
            del edited, frames
            if index and nbytes(state) == remembered:
                break
            remembered = nbytes(state)
    remembered = nbytes(state)
    return Estimate(weights, remembered, tally.peak - remembered)


def out_of_memory(
    config: ModelConfig, size: tuple[int, int], dtype: torch.dtype, device: torch.device, guidance: float = 1.0
) -> str:
    """For people, in one line: what a stream of (width, height) would have needed, what there is, and what to try."""
    told = f"out of memory: {config.name} at {size[0]}x{size[1]} in {str(dtype).removeprefix('torch.')}"
    if config.codec.kind in CODECS:  # one of somebody else's cannot be estimated
        told += f" needs about {_text(estimate(config, size, dtype, guidance).total)}"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        told += f", the GPU has {_text(total)} ({_text(free)} free of what this and other programs took)"
    hints = ["a smaller size", *(["no guidance"] if guidance > 1 else []), "fewer programs beside this one"]
    return f"{told}; try {' or '.join(hints)}"


class Tally(TorchDispatchMode):
    """Counts the bytes of a device's tensors that were made under it and are alive, and the most there were."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and x.device == self.device and id(x.untyped_storage()) not in inputs:
                self._count(x.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return

        def free(_: Any) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, free)
        self.now += size
        self.peak = max(self.peak, self.now)


class FusedOperators(TorchFunctionMode):
    """Operators that GPUs have in one piece, without the intermediate tensors of their definition."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            q, _, v = args
            return q.new_empty(*q.shape[:2], q.shape[2], v.shape[3]).transpose(1, 2).contiguous().transpose(1, 2)
        if func in (F.rms_norm, torch.rms_norm):
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    """The types that weights are loaded in."""
    weights = module.state_dict()
    cast = {k: v.to(torch.float32 if k.endswith(FLOAT32) else dtype) for k, v in weights.items()}
    module.load_state_dict(cast, assign=True)
    module.eval().requires_grad_(False)


def _bytes(module: nn.Module) -> int:
    return sum(x.numel() * x.element_size() for x in module.state_dict().values())


def _text(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"

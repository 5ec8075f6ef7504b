"""Functions of tensors as CUDA graphs: a step of a small model is bound by launching its kernels, a replay is not."""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from sana_streaming.state import map_state, tensors

Inputs = TypeVar("Inputs")
Outputs = TypeVar("Outputs")


class Memory:
    """What recordings share, on the current GPU: the memory that they work in, and the stream that they are made on,
    for memory is used again only on the stream that it was first used on."""

    def __init__(self) -> None:
        self.pool, self.stream = torch.cuda.MemPool(), torch.cuda.Stream()
        self.handle: Any = self.pool.id


class Recorded(Generic[Inputs, Outputs]):
    """`function(inputs) -> outputs`, both built of tensors as states are, for inputs of the shapes at hand (ValueError
    for others, also where nothing is recorded); it may add to the gradients of `parameters`.

    On a GPU it is run a few times, recorded, and from then on replayed; while it is recorded, no other thread may wait
    for the whole GPU. All recordings of one `memory` work in it, so that outputs are valid until the next replay of any
    of them. Without one the function is simply called.
    """

    def __init__(
        self,
        function: Callable[[Inputs], Outputs],
        inputs: Inputs,
        parameters: Sequence[nn.Parameter],
        memory: Memory | None,
    ):
        self.function, self.graph = function, None
        self.shapes = [tuple(x.shape) for x in tensors(inputs)]
        if memory is None:
            return
        self.inputs = map_state(Tensor.clone, inputs)
        gradients = [p.grad for p in parameters if p.grad is not None]
        kept = [g.clone() for g in gradients]
        current = torch.cuda.current_stream()
        memory.stream.wait_stream(current)
        with (
            torch.cuda.stream(memory.stream),
            torch.cuda.use_mem_pool(memory.pool),
            torch.autograd.set_multithreading_enabled(False),  # the pool takes what this thread allocates
        ):
            for _ in range(2):
                self.function(self.inputs)
        current.wait_stream(memory.stream)
        torch._foreach_copy_(gradients, kept)
        self.graph = torch.cuda.CUDAGraph()
        mode = "thread_local"  # threads of NCCL may ask for their own events meanwhile
        with torch.cuda.graph(self.graph, memory.handle, memory.stream, capture_error_mode=mode):
            self.outputs = self.function(self.inputs)

    def __call__(self, inputs: Inputs) -> Outputs:
        shapes = [tuple(x.shape) for x in tensors(inputs)]
        if shapes != self.shapes:
            first, now = next((a, b) for a, b in zip_longest(self.shapes, shapes) if a != b)
            raise ValueError(f"inputs: expected the shapes of the first call, {first} among them, got {now}")
        if self.graph is None:
            return self.function(inputs)
        torch._foreach_copy_(list(tensors(self.inputs)), list(tensors(inputs)))
        self.graph.replay()
        return self.outputs

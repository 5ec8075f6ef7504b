"""Functions of tensors as CUDA graphs: a step of a small model is bound by launching its kernels, a replay is not."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from sana_streaming.state import map_state, tensors

Inputs = TypeVar("Inputs")
Outputs = TypeVar("Outputs")


class Recorded(Generic[Inputs, Outputs]):
    """`function(inputs) -> outputs`, both built of tensors as states are, for inputs of the shapes at hand; it may add
    to the gradients of `parameters`.

    On a GPU it is run a few times, recorded, and from then on replayed. All recordings of one `pool` share their
    memory, so that outputs are valid until the next replay of any of them. Without a pool it is simply called.
    """

    def __init__(
        self, function: Callable[[Inputs], Outputs], inputs: Inputs, parameters: Sequence[nn.Parameter], pool: Any
    ):
        self.function, self.graph = function, None
        if pool is None:
            return
        self.inputs = map_state(Tensor.clone, inputs)
        gradients = [p.grad for p in parameters if p.grad is not None]
        kept = [g.clone() for g in gradients]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self.function(self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        torch._foreach_copy_(gradients, kept)
        torch.cuda.empty_cache()  # a recording takes memory of its own
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool, capture_error_mode="thread_local"):  # others may render meanwhile
            self.outputs = self.function(self.inputs)

    def __call__(self, inputs: Inputs) -> Outputs:
        if self.graph is None:
            return self.function(inputs)
        torch._foreach_copy_(list(tensors(self.inputs)), list(tensors(inputs)))
        self.graph.replay()
        return self.outputs

"""Functions of tensors as CUDA graphs: a step of a small model is bound by launching its kernels, a replay is not."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Recorded:
    """`function(**inputs) -> outputs` with inputs of the shapes at hand; it may add to the gradients of `parameters`.

    On a GPU it is run a few times, recorded, and from then on replayed. All recordings of one `pool` share their
    memory, so that outputs are valid until the next replay of any of them. Without a pool it is simply called.
    """

    def __init__(
        self,
        function: Callable[..., Sequence[Tensor]],
        inputs: Mapping[str, Tensor],
        parameters: Sequence[nn.Parameter],
        pool: Any,
    ):
        self.function, self.graph = function, None
        if pool is None:
            return
        self.inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        gradients = [p.grad for p in parameters if p.grad is not None]
        kept = [g.clone() for g in gradients]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self.function(**self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        torch._foreach_copy_(gradients, kept)
        torch.cuda.empty_cache()  # a recording takes memory of its own
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool, capture_error_mode="thread_local"):  # others may render meanwhile
            self.outputs = self.function(**self.inputs)

    def __call__(self, inputs: Mapping[str, Tensor]) -> Sequence[Tensor]:
        if self.graph is None:
            return self.function(**inputs)
        torch._foreach_copy_(list(self.inputs.values()), [inputs[name] for name in self.inputs])
        self.graph.replay()
        return self.outputs

"""A linear layer that is quick on a CPU, too, in bfloat16.

There PyTorch hands the weights to oneDNN as rows, and oneDNN lays them out anew for the matrix units of the processor
at each call. For the few hundred tokens of a small model that takes as long as the product itself. Here they are laid
out once, and the layout is kept. The product is the same.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

LARGEST = 2**22  # weights; of larger layers the product takes so long that the layout does not count
ROWS = 256  # that the layout is made for; always the same, so that numbers do not depend on what came before


class Linear(nn.Linear):
    """x [..., K] -> [..., N], as nn.Linear. The layout is no parameter, and neither saved nor copied."""

    _laid_out: tuple[tuple[int, int], Tensor] | None = None  # which weights, and they

    def forward(self, x: Tensor) -> Tensor:
        if not self._gains(x):
            return super().forward(x)
        which = (self.weight.data_ptr(), self.weight._version)
        if self._laid_out is None or self._laid_out[0] != which:
            self._laid_out = which, torch.ops.mkldnn._reorder_linear_weight(self.weight, ROWS)
        return torch.ops.mkldnn._linear_pointwise(x, self._laid_out[1], self.bias, "none", [], "")

    def _gains(self, x: Tensor) -> bool:
        return (
            x.device.type == "cpu"
            and not torch.is_grad_enabled()
            and x.dtype == self.weight.dtype == torch.bfloat16
            and self.weight.numel() <= LARGEST
            and x.numel() > 0
            and not self.weight.is_inference()  # nobody counts their changes
            and not torch.compiler.is_compiling()
            and available()
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_laid_out"}


@cache
def available() -> bool:
    """Not in every build of PyTorch, nor on every processor."""
    try:
        weight = torch.ops.mkldnn._reorder_linear_weight(torch.ones(16, 16, dtype=torch.bfloat16), 16)
        torch.ops.mkldnn._linear_pointwise(torch.ones(16, 16, dtype=torch.bfloat16), weight, None, "none", [], "")
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return True

"""SiLU, a depthwise 3x3 convolution and a gate, in plain PyTorch: the definition that the kernel is held to.

Shapes: M pictures, H, W cells, C channels after the gate.
"""

from torch import Tensor
from torch.nn import functional as F


def glu_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [M, H, W, 2 C], weight [2 C, 1, 3, 3], bias [2 C] -> value * silu(gate) [M, H, W, C], where value and gate are
    the halves of the convolved silu(x), zero outside the picture."""
    hidden = F.silu(x).permute(0, 3, 1, 2)  # channels-last memory, so that nothing is copied
    convolved = F.conv2d(hidden, weight, bias, padding=1, groups=weight.shape[0])
    value, gate = convolved.permute(0, 2, 3, 1).chunk(2, dim=-1)
    return value * F.silu(gate)

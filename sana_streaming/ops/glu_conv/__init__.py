"""SiLU, depthwise 3x3 convolution and gate of the feed-forward part: `glu_conv(x, weight, bias)`."""

from torch import Tensor

from sana_streaming.ops.glu_conv import reference


def glu_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `reference.glu_conv`."""
    if x.is_cuda:
        from sana_streaming.ops.glu_conv import kernel  # Triton loads on the first call on a GPU

        return kernel.glu_conv(x, weight, bias)
    return reference.glu_conv(x, weight, bias)


__all__ = ["glu_conv"]

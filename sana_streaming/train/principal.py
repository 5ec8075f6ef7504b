"""Start the nano codec from principal components: before its first step it is nearly the best linear one.

Each level of the encoder keeps the directions that hold most of what reaches it, and the decoder undoes them in turn.
The blocks beside this linear road start silent, and learn what it cannot do.
"""

import torch
from einops import rearrange
from torch import Generator, Tensor, nn

from sana_streaming.codec.nano import PATCH, Block, NanoCodec, Upsample


@torch.no_grad()
def start_from_principal_components(codec: NanoCodec, frames: Tensor, generator: Generator) -> None:
    """Set a codec's linear layers from examples, frames [B, 3, F, H, W] in [-1, 1]; `generator` is on the CPU."""
    for block in codec.modules():
        if isinstance(block, Block):
            block.conv2.weight.zero_()
    count = codec.config.frames_per_latent
    x = rearrange(frames.float(), "b c (t f) (h p) (w q) -> (b t) h w (f c p q)", f=count, p=PATCH, q=PATCH)
    mean = x.mean(dim=(0, 1, 2))
    x, forth, back = _keep(x - mean, codec.encoder.patch.out_channels, generator)
    codec.encoder.patch.weight.copy_(forth[:, :, None, None])
    codec.encoder.patch.bias.copy_(-forth @ mean)  # type: ignore[union-attr]
    each = torch.cat([back, mean[:, None]], dim=1).unflatten(0, (count, -1))  # [F, pixels, C + 1]
    each = torch.cat([each.mean(0, keepdim=True), each - each.mean(0, keepdim=True)]).flatten(0, 1)
    _fill_centre(codec.decoder.out, each[:, :-1])
    codec.decoder.out.bias.copy_(each[:, -1])  # type: ignore[union-attr]

    downs = [layer for layer in codec.encoder.layers if isinstance(layer, nn.Conv2d)]
    ups = [layer for layer in codec.decoder.layers if isinstance(layer, Upsample)]
    for down, up in zip(downs, ups[::-1], strict=True):
        x = rearrange(x, "n (h p) (w q) c -> n h w (p q c)", p=2, q=2)
        x, forth, back = _keep(x, down.out_channels, generator)
        down.weight.copy_(rearrange(forth, "o (p q c) -> o c p q", p=2, q=2))
        up.conv.weight.copy_(back[:, :, None, None])
    _, forth, back = _keep(x, codec.config.latent_channels, generator, levelling=0.5)
    codec.encoder.out.weight.copy_(forth[:, :, None, None])
    _fill_centre(codec.decoder.entry, back)


def _keep(x: Tensor, width: int, generator: Generator, levelling: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """x [N, h, w, C] without mean -> what is kept [N, h, w, width], of unit variance per channel, and both matrices.

    The directions are rotated at random, so that all channels carry alike. `levelling` in [0, 1] first brings their
    variances nearer to each other: 0 keeps distances as they are, 1 makes all equal.
    """
    flat = x.flatten(0, 2)
    values, vectors = torch.linalg.eigh((flat.T @ flat).double().cpu() / len(flat))
    values, vectors = values[-width:].clamp_min(1e-8), vectors[:, -width:]
    rotation, _ = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
    gain = values ** (-levelling / 2)
    forth = rotation @ (gain[:, None] * vectors.T)
    std = ((forth @ vectors) ** 2 @ values).sqrt()
    back = (vectors / gain) @ rotation.T * std
    forth = (forth / std[:, None]).to(x)
    return x @ forth.T, forth, back.to(x)


def _fill_centre(conv: nn.Conv2d, matrix: Tensor) -> None:
    """A 3x3 convolution that does what a matrix [out, in] does to each cell."""
    conv.weight.zero_()
    conv.weight[:, :, 1, 1] = matrix.to(conv.weight)

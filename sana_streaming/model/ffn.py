"""The feed-forward part of a block: gated, convolving over the picture and over time."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sana_streaming.config import DiTConfig
from sana_streaming.ops.glu_conv import glu_conv
from sana_streaming.ops.linear import Linear


@dataclass(frozen=True)
class FeedForwardState:
    """What the temporal convolution reads of the past."""

    last: Tensor  # [B, H, W, D]: the last latent frame of the chunk before; zeros at the start of a stream


class FeedForward(nn.Module):
    def __init__(self, config: DiTConfig):
        super().__init__()
        dim, hidden = config.dim, config.ffn_dim
        self.up = Linear(dim, 2 * hidden)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.down = Linear(hidden, dim, bias=False)
        self.temporal = Linear(3 * dim, dim, bias=False)  # taps: the frame before, the frame itself, the frame after
        nn.init.zeros_(self.temporal.weight)

    def init_state(self, batch: int, grid: tuple[int, int]) -> FeedForwardState:
        return FeedForwardState(self.down.weight.new_zeros(batch, *grid, self.down.out_features))

    def forward(self, x: Tensor, state: FeedForwardState) -> tuple[Tensor, FeedForwardState]:
        """x [B, T, H, W, D] and the state before this chunk -> y [B, T, H, W, D] and the state after it."""
        assert self.depthwise.bias is not None
        gated = glu_conv(self.up(x).flatten(0, 1), self.depthwise.weight, self.depthwise.bias)
        u = self.down(gated.unflatten(0, x.shape[:2]))

        after = torch.zeros_like(u[:, :1])  # the frame after the chunk is not there yet
        frames = torch.cat([state.last[:, None], u, after], dim=1)
        y = u + self.temporal(torch.cat([frames[:, :-2], u, frames[:, 2:]], dim=-1))
        return y, FeedForwardState(u[:, -1].clone())  # a view would keep the whole chunk in memory

"""One transformer layer: self-attention, text, feed-forward."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sana_streaming.config import DiTConfig
from sana_streaming.model.cross_attention import CrossAttention
from sana_streaming.model.embed import modulate
from sana_streaming.model.ffn import FeedForward, FeedForwardState
from sana_streaming.model.gated_delta import GatedDeltaAttention, GatedDeltaState
from sana_streaming.model.heads import SelfAttention
from sana_streaming.model.rope import Rotary
from sana_streaming.model.softmax_attention import SoftmaxAttention, SoftmaxState

MIXERS = {"gated_delta": GatedDeltaAttention, "softmax": SoftmaxAttention}


@dataclass(frozen=True)
class BlockState:
    attention: GatedDeltaState | SoftmaxState
    ffn: FeedForwardState


class Block(nn.Module):
    def __init__(self, config: DiTConfig, mixer: str):
        super().__init__()
        self.eps = config.norm_eps
        self.scale_shift_table = nn.Parameter(torch.randn(6, config.dim) / config.dim**0.5)
        self.attention: SelfAttention = MIXERS[mixer](config)
        self.cross_attention = CrossAttention(config)
        self.ffn = FeedForward(config)

    def init_state(self, batch: int, grid: tuple[int, int]) -> BlockState:
        return BlockState(self.attention.init_state(batch, grid), self.ffn.init_state(batch, grid))

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        rotary: Rotary,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        state: BlockState,
    ) -> tuple[Tensor, BlockState]:
        """x [B, T, H, W, D], modulation [B, T or 1, 6, D], of the text keys and values [B, N, L, K] and mask
        bool [B, 1, 1, L] -> x and the state after this chunk."""
        table = (self.scale_shift_table + modulation)[:, :, None, None].to(x.dtype)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = table.unbind(-2)
        y, attention = self.attention(modulate(x, shift_a, scale_a, self.eps), rotary, state.attention)
        x = x + gate_a * y
        x = x + self.cross_attention(x, keys, values, mask)
        y, ffn = self.ffn(modulate(x, shift_m, scale_m, self.eps), state.ffn)
        return x + gate_m * y, BlockState(attention, ffn)

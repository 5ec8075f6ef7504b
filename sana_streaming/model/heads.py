"""What both kinds of self-attention share: one projection to q, k, v and gate, and the gated way out."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sana_streaming.config import DiTConfig
from sana_streaming.ops.linear import Linear


class SelfAttention(nn.Module):
    """Base of the two token mixers. Tokens come and go on their grid, [B, T, H, W, D]."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.qkvg = Linear(dim, 4 * dim, bias=False)
        self.q_norm = nn.RMSNorm(dim, eps=config.attention_norm_eps)
        self.k_norm = nn.RMSNorm(dim, eps=config.attention_norm_eps)
        self.gate_bias = nn.Parameter(torch.ones(dim))
        self.out = Linear(dim, dim)
        nn.init.zeros_(self.qkvg.weight[3 * dim :].detach())  # the gate starts open and alike for all tokens

    @abstractmethod
    def init_state(self, batch: int, grid: tuple[int, int]) -> Any:
        """What the mixer remembers at the start of `batch` streams of latents with height and width `grid`."""

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[B, T, H, W, D] -> q, k (normalised over all heads jointly) and v [B, N, L, K], gate [B, T, H, W, D]"""
        q, k, v, gate = self.qkvg(x).chunk(4, dim=-1)
        return self.split(self.q_norm(q)), self.split(self.k_norm(k)), self.split(v), F.silu(gate + self.gate_bias)

    def split(self, x: Tensor) -> Tensor:
        """[B, T, H, W, D] -> [B, N, L, K]"""
        return x.flatten(1, 3).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def merge(self, o: Tensor, gate: Tensor) -> Tensor:
        """o [B, N, L, V] and the gate -> [B, T, H, W, D]"""
        return self.out(o.transpose(1, 2).flatten(2).view_as(gate) * gate)

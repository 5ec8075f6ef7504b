"""Attention from tokens to the instruction. Its keys and values depend on the prompt alone and are computed once."""

from torch import Tensor, nn
from torch.nn import functional as F

from sana_streaming.config import DiTConfig
from sana_streaming.ops.linear import Linear


class CrossAttention(nn.Module):
    def __init__(self, config: DiTConfig):
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.q = Linear(dim, dim)
        self.kv = Linear(dim, 2 * dim)
        self.q_norm = nn.RMSNorm(dim, eps=config.cross_norm_eps)
        self.k_norm = nn.RMSNorm(dim, eps=config.cross_norm_eps)
        self.out = Linear(dim, dim)

    def keys_values(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """text [B, L, D] -> keys, values [B, N, L, K]"""
        k, v = self.kv(text).chunk(2, dim=-1)
        return self._split(self.k_norm(k)), self._split(v).contiguous()  # a view would keep k in memory, too

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """x [B, T, H, W, D], keys and values [B, N, L, K], mask bool [B, 1, 1, L], true where there is text
        -> [B, T, H, W, D]"""
        q = self._split(self.q_norm(self.q(x.flatten(1, 3))))
        o = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return self.out(o.transpose(1, 2).flatten(2)).view_as(x)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

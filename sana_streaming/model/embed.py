"""What conditions every block: the noise level and the instruction."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FREQUENCIES = 256


def timestep_frequencies(sigma: Tensor) -> Tensor:
    """sigma [...] in [0, 1] -> sinusoids of the integer timestep, float32 [..., 256].

    The model was trained on integer timesteps in [0, 1000], truncated; the small addend keeps 0.961 at 961 in float32.
    """
    timestep = torch.floor(1000 * sigma.double() + 1e-3).float()
    half = FREQUENCIES // 2
    rates = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=sigma.device) / half)
    angles = timestep[..., None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """Noise level -> the embedding for the output layer and the six modulations that all blocks share."""

    def __init__(self, dim: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.modulation = nn.Linear(dim, 6 * dim)

    def forward(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """sigma [B, T] (T may be 1: one level for all frames) -> [B, T, D], [B, T, 6, D]."""
        embedding = self.mlp(timestep_frequencies(sigma).to(self.modulation.weight.dtype))
        return embedding, self.modulation(F.silu(embedding)).unflatten(-1, (6, -1))


class TextEmbedding(nn.Module):
    """Token states of the text encoder -> the width of the model."""

    def __init__(self, text_dim: int, dim: int, eps: float):
        super().__init__()
        self.fc1 = nn.Linear(text_dim, dim)
        self.fc2 = nn.Linear(dim, dim)
        self.norm = nn.RMSNorm(dim, eps=eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, L, E] -> [B, L, D]"""
        return self.norm(self.fc2(F.gelu(self.fc1(tokens), approximate="tanh")))


def modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Layer norm without parameters, then scale and shift: x [B, T, H, W, D], shift and scale [B, T or 1, 1, 1, D]."""
    return F.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale) + shift

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


class PlaceEmbedding(nn.Module):
    """Where in the picture a token lies -> the width of the model. For small models, whose few layers would need many
    of their steps to tell it from the borders."""

    OCTAVES = 3

    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.Linear(2 * (1 + 2 * self.OCTAVES), dim, bias=False)

    def forward(self, height: int, width: int) -> Tensor:
        """-> [H, W, D], of coordinates from -1 to 1 at the borders and their sines and cosines"""
        weight = self.linear.weight
        y, x = ((torch.arange(n, device=weight.device) * 2 + 1) / n - 1 for n in (height, width))
        rows, columns = (self._waves(p) for p in (y, x))
        places = torch.cat([rows[:, None].expand(-1, width, -1), columns.expand(height, -1, -1)], dim=-1)
        return self.linear(places.to(weight.dtype))

    def _waves(self, p: Tensor) -> Tensor:
        """[n] -> [n, 1 + 2 * OCTAVES]"""
        angles = math.pi * p[:, None] * 2.0 ** torch.arange(self.OCTAVES, device=p.device)
        return torch.cat([p[:, None], angles.sin(), angles.cos()], dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Layer norm without parameters, then scale and shift: x [B, T, H, W, D], shift and scale [B, T or 1, 1, 1, D]."""
    return F.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale) + shift

"""Self-attention with a memory: the frame-wise gated delta rule (paper section 3.1)."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sana_streaming.config import DiTConfig
from sana_streaming.model.heads import SelfAttention
from sana_streaming.model.rope import Rotary, rotate
from sana_streaming.ops.gated_delta import gated_delta


@dataclass(frozen=True)
class GatedDeltaState:
    """The whole past of a block. Its size is the same after one chunk and after a million."""

    memory: Tensor  # [B, N, K, V], float32: it is summed into for the whole life of a stream
    normalizer: Tensor  # [B, N, K], float32

    def moved(self, shift: Rotary, sink_shift: Rotary) -> "GatedDeltaState":
        """The same memory at other positions in time. There is no sink in it, and its normalizer knows no positions."""
        return GatedDeltaState(rotate(self.memory.mT, shift).mT.contiguous(), self.normalizer)


class GatedDeltaAttention(SelfAttention):
    def __init__(self, config: DiTConfig):
        super().__init__(config)
        self.contractive = config.contractive
        self.beta = nn.Linear(config.dim, config.heads)
        self.decay = nn.Linear(config.dim, config.heads)
        self.A_log = nn.Parameter(torch.zeros(config.heads))
        self.dt_bias = nn.Parameter(torch.full((config.heads,), -8.0))
        for gate, bias in (
            (self.beta, 5.0),
            (self.decay, 0.0),
        ):  # at first linear attention that forgets next to nothing
            nn.init.zeros_(gate.weight)
            nn.init.constant_(gate.bias, bias)

    def init_state(self, batch: int, grid: tuple[int, int]) -> GatedDeltaState:
        dim = self.out.in_features // self.heads
        zeros = partial(torch.zeros, dtype=torch.float32, device=self.A_log.device)
        return GatedDeltaState(zeros(batch, self.heads, dim, dim), zeros(batch, self.heads, dim))

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, H, W, D] -> how strongly each token writes, [B, N, T, S], and what each frame keeps of
        the past, [B, N, T]; both float32: a bfloat16 decay above 0.998 would be 1."""
        beta = torch.sigmoid(self.beta(x).float()).flatten(2, 3).permute(0, 3, 1, 2)
        rate = F.softplus(self.decay(x.mean(dim=(2, 3))).float() + self.dt_bias.float())  # [B, T, N]
        return beta, torch.exp(-self.A_log.float().exp() * rate).transpose(1, 2)

    def forward(self, x: Tensor, rotary: Rotary, state: GatedDeltaState) -> tuple[Tensor, GatedDeltaState]:
        """x [B, T, H, W, D] and the state before this chunk -> y [B, T, H, W, D] and the state after it."""
        frames, tokens = x.shape[1], x.shape[2] * x.shape[3]
        q, k, v, gate = self.project(x)
        q, k = F.relu(q), F.relu(k) * (k.shape[-1] * tokens) ** -0.5
        beta, decay = self.gates(x)
        if self.contractive:
            by_frame = k.unflatten(2, (frames, tokens))
            k = (by_frame * shortening(by_frame, beta)).flatten(2, 3)
        q_rotated, k_rotated = rotate(q, rotary), rotate(k, rotary)
        q, k, v, q_rotated, k_rotated = (t.unflatten(2, (frames, tokens)) for t in (q, k, v, q_rotated, k_rotated))
        o, memory, normalizer = gated_delta(q, k, v, q_rotated, k_rotated, beta, decay, state.memory, state.normalizer)
        return self.merge(o.flatten(2, 3), gate), GatedDeltaState(memory, normalizer)


def shortening(k: Tensor, beta: Tensor) -> Tensor:
    """Keys [B, N, T, S, K] and how strongly they write [B, N, T, S] -> factors in (0, 1] for the keys of each frame,
    [B, N, T, 1, 1], that keep the trace of P = sum beta k k^T, and so its eigenvalues, at 1 or below: the past is then
    never multiplied by a number outside of [0, 1], however long the stream. What is read is a ratio, in which the
    factor cancels."""
    trace = (beta * k.float().square().sum(dim=-1)).sum(dim=-1)
    return trace.clamp_min(1).rsqrt().to(k.dtype)[..., None, None]

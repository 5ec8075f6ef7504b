"""Self-attention by softmax over the sink, the recent chunks and the current one (paper section 3.1)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sana_streaming.config import DiTConfig
from sana_streaming.model.heads import SelfAttention
from sana_streaming.model.rope import Rotary, rotate


@dataclass(frozen=True)
class KeysValues:
    """Keys, already rotated, and values of one chunk: [B, N, L, K], [B, N, L, V]."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class SoftmaxState:
    """The first chunk, kept until the stream is anchored anew, and the most recent ones."""

    sink: KeysValues | None
    recent: tuple[KeysValues, ...]

    def moved(self, shift: Rotary, sink_shift: Rotary) -> "SoftmaxState":
        """The same keys at other positions in time; the sink may go another way than the rest."""
        sink = self.sink and KeysValues(rotate(self.sink.keys, sink_shift), self.sink.values)
        return SoftmaxState(sink, tuple(KeysValues(rotate(c.keys, shift), c.values) for c in self.recent))

    def without_sink(self) -> "SoftmaxState":
        """The next chunk becomes the sink. Until then the former one is still seen, as the oldest of the recent."""
        return SoftmaxState(None, (*((self.sink,) if self.sink else ()), *self.recent))


class SoftmaxAttention(SelfAttention):
    def __init__(self, config: DiTConfig):
        super().__init__(config)
        self.sink = config.sink
        self.window = config.window

    def init_state(self, batch: int, grid: tuple[int, int]) -> SoftmaxState:
        return SoftmaxState(sink=None, recent=())

    def forward(self, x: Tensor, rotary: Rotary, state: SoftmaxState) -> tuple[Tensor, SoftmaxState]:
        """x [B, T, H, W, D] and the state before this chunk -> y [B, T, H, W, D] and the state after it."""
        q, k, v, gate = self.project(x)
        current = KeysValues(rotate(k, rotary), v.contiguous())  # a view would keep q, k and gate in memory
        visible = (*((state.sink,) if state.sink else ()), *state.recent, current)
        keys = torch.cat([c.keys for c in visible], dim=2)
        values = torch.cat([c.values for c in visible], dim=2)
        o = F.scaled_dot_product_attention(rotate(q, rotary), keys, values)
        return self.merge(o, gate), self._remember(state, current, tokens=x.shape[2] * x.shape[3])

    def _remember(self, state: SoftmaxState, current: KeysValues, tokens: int) -> SoftmaxState:
        """A missing sink is filled; of the other chunks stay as many of the latest as fit into the window, whole."""
        becomes_sink = self.sink and state.sink is None
        recent = state.recent if becomes_sink else (*state.recent, current)
        while self.window is not None and sum(c.keys.shape[2] for c in recent) > self.window * tokens:
            recent = recent[1:]
        return SoftmaxState(current if becomes_sink else state.sink, recent)

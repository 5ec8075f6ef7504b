"""The hybrid diffusion transformer (paper section 3.1): noisy and source latents and an instruction in, velocity out.

One class for offline and live, bidirectional and streaming: a clip on its own is a chunk after the initial state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sana_streaming.config import DiTConfig
from sana_streaming.model.block import Block, BlockState
from sana_streaming.model.embed import PlaceEmbedding, TextEmbedding, TimeEmbedding, modulate
from sana_streaming.model.rope import rotary


@dataclass(frozen=True)
class TextContext:
    """What the blocks read of a prompt, computed once: for each block keys and values [B, N, L, K]."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor | None  # bool [B, 1, 1, L], true where there is text; None: everywhere


@dataclass(frozen=True)
class DiTState:
    """All that the transformer remembers of a stream."""

    position: Tensor  # int64 [B]: of the next latent frame; re-basing moves it down, else it counts those committed
    sink: Tensor | None  # int64 [B]: position of the sink's first latent frame
    blocks: tuple[BlockState, ...]


LOWEST_SIGMA = 0.1  # below it the velocity that leads to an estimate of the data is not scaled up any further


class DiT(nn.Module):
    def __init__(self, config: DiTConfig):
        super().__init__()
        self.config = config
        self.input = nn.Linear(2 * config.latent_channels, config.dim)
        self.place = PlaceEmbedding(config.dim) if config.coordinates else None
        self.time = TimeEmbedding(config.dim)
        self.text = TextEmbedding(config.text_dim, config.dim, config.attention_norm_eps)
        softmax = config.softmax_blocks
        self.blocks: Sequence[Block] = nn.ModuleList(  # type: ignore[assignment]
            Block(config, "softmax" if i in softmax else "gated_delta") for i in range(config.depth)
        )
        self.scale_shift_table = nn.Parameter(torch.randn(2, config.dim) / config.dim**0.5)
        self.output = nn.Linear(config.dim, config.latent_channels * (2 if config.blend else 1))
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def init_state(self, batch: int, grid: tuple[int, int]) -> DiTState:
        """The beginning of `batch` streams of latents with height and width `grid`."""
        position = torch.zeros(batch, dtype=torch.int64, device=self.input.weight.device)
        return DiTState(position, None, tuple(block.init_state(batch, grid) for block in self.blocks))

    def encode_text(self, tokens: Tensor, mask: Tensor | None = None) -> TextContext:
        """Token states [B, L, E] and mask [B, L], non-zero where there is text -> what the blocks read of them.

        Padding that no prompt of the batch needs is dropped; that changes nothing, for masked tokens have no weight.
        """
        if mask is not None:
            used = mask.bool().any(dim=0)
            tokens, kept = tokens[:, used], mask.bool()[:, used]
            mask = None if bool(kept.all()) else kept[:, None, None]
        text = self.text(tokens.to(self.input.weight.dtype))
        keys, values = zip(*(block.cross_attention.keys_values(text) for block in self.blocks), strict=True)
        return TextContext(keys, values, mask)

    def forward(
        self, x: Tensor, sigma: float | Tensor, state: DiTState, *, source: Tensor, text: TextContext
    ) -> tuple[Tensor, DiTState]:
        """x and source [B, C, T, h, w]; sigma in [0, 1], 1 = noise: a number, [B], or [B, T] for one per latent frame
        -> velocity = noise - data [B, C, T, h, w] in x's dtype, and the state after this chunk."""
        batch, _, *grid = x.shape
        tokens = torch.cat([x, source], dim=1).to(self.input.weight.dtype).permute(0, 2, 3, 4, 1)
        h = self.input(tokens)
        if self.place is not None:
            h = h + self.place(grid[1], grid[2])
        levels = self._levels(sigma, batch, x.device)
        embedding, modulation = self.time(levels)
        turn = rotary(state.position, (grid[0], grid[1], grid[2]), self.config.head_dim, self.config.rope_theta)

        after = []
        for block, keys, values, past in zip(self.blocks, text.keys, text.values, state.blocks, strict=True):
            h, remembered = block(h, modulation, turn, keys, values, text.mask, past)
            after.append(remembered)

        table = (self.scale_shift_table + embedding[:, :, None])[:, :, None, None].to(h.dtype)
        shift, scale = table.unbind(-2)
        output = self.output(modulate(h, shift, scale, self.config.norm_eps)).permute(0, 4, 1, 2, 3)
        velocity = self._blended(output, x, source, levels) if self.config.blend else output
        sink = state.position if self.config.sink and state.sink is None else state.sink
        return velocity.to(x.dtype), DiTState(state.position + grid[0], sink, tuple(after))

    def _blended(self, output: Tensor, x: Tensor, source: Tensor, levels: Tensor) -> Tensor:
        """The velocity that leads from x to the blend of source and the model's own picture. A gate for each channel of
        each token lets what an edit leaves alone pass exactly, noise and all layers notwithstanding."""
        own, gate = output.float().chunk(2, dim=1)  # float32: the difference to x is divided by sigma
        estimate = torch.lerp(source.float(), own, gate.sigmoid())
        return (x.float() - estimate) / levels.clamp_min(LOWEST_SIGMA).float()[:, None, :, None, None]

    def _levels(self, sigma: float | Tensor, batch: int, device: torch.device) -> Tensor:
        """Any accepted form of sigma -> [B, T or 1], float64: the timestep is truncated to an integer."""
        if not isinstance(sigma, Tensor):  # filled in there: a copy to a GPU would wait for it
            return torch.full((batch, 1), sigma, dtype=torch.float64, device=device)
        levels = sigma.to(device, torch.float64)
        return levels.reshape(-1, 1).expand(batch, 1) if levels.ndim < 2 else levels

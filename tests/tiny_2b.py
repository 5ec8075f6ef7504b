"""The released model, small: its codec's published config, and its own."""

from dataclasses import replace
from typing import Any

from sana_streaming.config import ModelConfig, two_b

VAE: dict[str, Any] = {
    "latent_channels": 4,
    "block_out_channels": [8, 16, 32, 64],
    "layers_per_block": [1, 1, 1, 1, 1],
    "decoder_block_out_channels": [8, 16, 32],
    "decoder_layers_per_block": [1, 1, 1, 1],
}
CAUSAL_VAE = VAE | {"decoder_causal": True}


def tiny_2b(**changes: Any) -> ModelConfig:
    """Of 4 blocks the last is a softmax block."""
    small = {"latent_channels": 4, "dim": 24, "heads": 2, "depth": 4, "text_dim": 6, "ffn_dim": 16}
    return replace(two_b(), dit=replace(two_b().dit, **small | changes))

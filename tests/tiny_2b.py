"""The released model, small: its config, and the files that it would be published in."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sana_streaming import checkpoint
from sana_streaming.checkpoint.folder import write_tensors
from sana_streaming.codec import build_codec
from sana_streaming.codec.ltx2 import published_config
from sana_streaming.config import DiTConfig, ModelConfig, two_b

VAE: dict[str, Any] = {
    "latent_channels": 4,
    "block_out_channels": [8, 16, 32, 64],
    "layers_per_block": [1, 1, 1, 1, 1],
    "decoder_block_out_channels": [8, 16, 32],
    "decoder_layers_per_block": [1, 1, 1, 1],
}
CAUSAL_VAE = VAE | {"decoder_causal": True}
PUBLISHED_VAE = CAUSAL_VAE | {"_class_name": "AutoencoderKLCausalLTX2Video"}


def tiny_2b(**changes: Any) -> ModelConfig:
    """Of 4 blocks the last is a softmax block."""
    small = {"latent_channels": 4, "dim": 24, "heads": 2, "depth": 4, "text_dim": 6, "ffn_dim": 16}
    return replace(two_b(), dit=replace(two_b().dit, **small | changes))


def published_shapes(config: DiTConfig, variant: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released files, without the buffers that nothing reads."""
    d, f, n, c, e = config.dim, config.ffn_dim, config.heads, config.latent_channels, config.text_dim
    top = {
        "x_embedder.proj": (d, 2 * c, 1, 1, 1),
        "t_embedder.mlp.0": (d, 256),
        "t_embedder.mlp.2": (d, d),
        "t_block.1": (6 * d, d),
        "y_embedder.y_proj.fc1": (d, e),
        "y_embedder.y_proj.fc2": (d, d),
        "final_layer.linear": (c, d),
    }
    with_bias = {
        "attn.output_gate": (d, d),
        "attn.proj": (d, d),
        "cross_attn.q_linear": (d, d),
        "cross_attn.kv_linear": (2 * d, d),
        "cross_attn.proj": (d, d),
        "mlp.inverted_conv.conv": (2 * f, d, 1, 1),
        "mlp.depth_conv.conv": (2 * f, 1, 3, 3),
    }
    shapes = both(top) | {"attention_y_norm.weight": (d,), "final_layer.scale_shift_table": (2, d)}
    for i in range(config.depth):
        softmax = i in config.softmax_blocks
        taps = ((3,) if variant == "streaming" else ()) if softmax else (1,)
        block = both(with_bias) | {
            "scale_shift_table": (6, d),
            "attn.q.weight": (d, d, *taps),
            "attn.k.weight": (d, d, *taps),
            "attn.v.weight": (d, d),
            "mlp.point_conv.conv.weight": (d, f, 1, 1),
            "mlp.t_conv.weight": (d, d, 3, 1),
        }
        block |= {f"{a}.{q}_norm.weight": (d,) for a in ("attn", "cross_attn") for q in "qk"}
        if not softmax:
            block |= both({"attn.beta_proj": (n, d), "attn.gate_proj": (n, d)})
            block |= {"attn.A_log": (n,), "attn.dt_bias": (n,)}
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return shapes


def both(weights: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {f"{k}.weight": v for k, v in weights.items()} | {f"{k}.bias": v[:1] for k, v in weights.items()}


def published(variant: str = "streaming", dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = published_shapes(tiny_2b().dit, variant)
    weights = {k: torch.randn(s, generator=generator).to(dtype) for k, s in shapes.items()}
    unused = {"pos_embed": torch.zeros(1, 5, 24), "y_embedder.y_embedding": torch.zeros(3, 6)}
    return weights | unused


def published_codec(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(PUBLISHED_VAE))
    torch.manual_seed(2)
    codec = build_codec(published_config(PUBLISHED_VAE)[0])
    write_tensors(folder / "diffusion_pytorch_model.safetensors", codec.state_dict())
    return folder


def published_model(folder: Path) -> Path:
    """A model folder, whole, made of published files, which lie beside it."""
    torch.save(published(), folder / "dit.pth")
    vae = published_codec(folder / "vae")
    checkpoint.import_published(folder / "dit.pth", folder / "model", tiny_2b(), template="be brief: ", vae=vae)
    return folder / "model"

"""The published folders of the LTX-2 codec: their config names, their weights, and a causal start from either."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sana_streaming.codec.ltx2.codec import FRAMES, STRIDE, Ltx2Codec, check
from sana_streaming.codec.ltx2.layers import DOWN, PATCH, UPS
from sana_streaming.config import CodecConfig

# What this codec takes for granted, and what a config means that does not name it.
_FIXED: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "patch_size": PATCH,
    "patch_size_t": 1,
    "spatio_temporal_scaling": [True] * len(DOWN),
    "downsample_type": ["spatial", "temporal", "spatiotemporal", "spatiotemporal"],
    "decoder_spatio_temporal_scaling": [True] * UPS,
    "decoder_inject_noise": [False] * (UPS + 1),
    "upsample_type": ["spatiotemporal"] * UPS,
    "upsample_residual": [True] * UPS,
    "upsample_factor": [2] * UPS,
    "timestep_conditioning": False,
    "scaling_factor": 1.0,
    "encoder_causal": True,
    "encoder_spatial_padding_mode": "zeros",
}


def read_published(folder: Path, decode: str | None = None) -> tuple[CodecConfig, dict[str, Tensor]]:
    """Config and weights of a published folder: LTX-2 (its `vae` lies inside) or a causal artifact.

    decode: "causal" or "chunk_tile"; the way that the decoder was trained if not given. A decoder that was trained to
    see the future is made causal by `fold_future`: a start for training, not yet a good decoder. ValueError names the
    first key that does not fit.
    """
    folder = next((f for f in (folder / "vae", folder) if (f / "config.json").is_file()), folder)
    path = folder / "diffusion_pytorch_model.safetensors"
    for file in (folder / "config.json", path):
        if not file.is_file():
            raise ValueError(f"{folder}: expected {file.name} in it, or in a folder 'vae' inside")
    config, trained = published_config(json.loads((folder / "config.json").read_text()), decode)
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    with torch.device("meta"):
        expected = Ltx2Codec(config).state_dict()
    for key, value in expected.items():
        if key not in weights:
            raise ValueError(f"{path}: '{key}' is missing; expected shape {tuple(value.shape)}")
        if weights[key].shape != value.shape:
            raise ValueError(f"{path}: '{key}' has shape {tuple(weights[key].shape)}, expected {tuple(value.shape)}")
    if unknown := sorted(weights.keys() - expected.keys()):
        raise ValueError(f"{path}: '{unknown[0]}' is not part of this codec ({len(unknown)} such keys)")
    return config, weights if config.decode == trained else fold_future(weights)


def published_config(published: Mapping[str, Any], decode: str | None = None) -> tuple[CodecConfig, str]:
    """Our config, and the way that the decoder was trained ("causal" or "chunk_tile"), from a published config.json."""
    values = dict(published)
    if (types := values.pop("decoder_upsample_type", None)) is not None:  # the causal class's name; fine to coarse
        values["upsample_type"] = types[::-1]
    for name, expected in _FIXED.items():
        if (got := values.get(name, expected)) != expected:
            raise ValueError(f"LTX-2 codec: expected {name} {expected}, got {got}")
    trained = "causal" if values.get("decoder_causal", "Causal" in values.get("_class_name", "")) else "chunk_tile"
    if trained == "causal" and decode == "chunk_tile":
        raise ValueError("LTX-2 codec: a decoder that was trained causal cannot decode in windows ('chunk_tile')")
    try:
        channels, decoder_widths = values["latent_channels"], values["decoder_block_out_channels"]
        config = CodecConfig(
            "ltx2",
            latent_channels=channels,
            frames_per_latent=FRAMES,
            stride=STRIDE,
            first_latent_frames=1,
            widths=(channels, *values["block_out_channels"]),
            blocks=tuple(values["layers_per_block"]),
            decoder_widths=(decoder_widths[0] // 2, *decoder_widths),
            decoder_blocks=tuple(values["decoder_layers_per_block"]),
            decoder_padding=values.get("decoder_spatial_padding_mode", "reflect"),
            decode=decode or trained,
        )
    except KeyError as missing:
        raise ValueError(f"LTX-2 codec: the published config lacks {missing}") from None
    check(config)
    return config, trained


def fold_future(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights whose decoder is causal: what it would read of the next frame it reads of this one."""

    def fold(weight: Tensor) -> Tensor:
        past, now, future = weight.float().unbind(2)
        return torch.stack([torch.zeros_like(past), past, now + future], dim=2).to(weight.dtype)

    return {k: fold(v) if k.startswith("decoder.") and v.ndim == 5 else v for k, v in weights.items()}

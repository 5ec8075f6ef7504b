"""Models on disk: a folder of safetensors and config.json, and the names of the published weights."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sana_streaming.codec import VideoCodec, build_codec
from sana_streaming.config import DiTConfig, ModelConfig, from_dict, to_dict
from sana_streaming.model.dit import DiT

SHIPPED = Path(__file__).parent / "weights"  # models inside the package: a folder each
FLOAT32 = (".A_log", ".dt_bias", "latents_mean", "latents_std")  # small, and read in float32


def find(model: str | Path) -> Path:
    """The folder of a model: the name of a shipped one, or a path. ValueError says what was expected."""
    shipped = sorted(p.parent.name for p in SHIPPED.glob("*/config.json"))
    folder = SHIPPED / model if str(model) in shipped else Path(model)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"unknown model '{model}': expected {' or '.join(shipped)}, or a folder that holds config.json"
        )
    return folder


def load(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[ModelConfig, DiT, VideoCodec]:
    """Config, transformer and codec, ready to run in `dtype`. ValueError names the first key that does not fit."""
    config = load_config(folder)
    with torch.device("meta"):
        dit, codec = DiT(config.dit), build_codec(config.codec)
    for module, name in ((dit, "dit"), (codec, "codec")):
        weights = load_file(folder / f"{name}.safetensors")
        check_keys(module.state_dict(), weights, folder / f"{name}.safetensors")
        cast = {k: v.to(device, torch.float32 if k.endswith(FLOAT32) else dtype) for k, v in weights.items()}
        module.load_state_dict(cast, assign=True)
        module.eval().requires_grad_(False)
    return config, dit, codec


def load_config(folder: Path) -> ModelConfig:
    try:
        return from_dict(ModelConfig, json.loads((folder / "config.json").read_text()))
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / 'config.json'} is not valid JSON: {error}") from error


def save(folder: Path, config: ModelConfig, dit: Mapping[str, Tensor], codec: Mapping[str, Tensor]) -> None:
    """Write a model folder; matrices in float16, which every device casts from, the rest in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, weights in (("dit", dit), ("codec", codec)):
        stored = {k: (v.half() if v.ndim > 1 else v.float()).cpu().contiguous() for k, v in weights.items()}
        save_file(stored, folder / f"{name}.safetensors")
    (folder / "config.json").write_text(json.dumps(to_dict(config), indent=2) + "\n")


def check_keys(expected: Mapping[str, Tensor], got: Mapping[str, Tensor], where: Path | str) -> None:
    """ValueError naming the first key that is missing, unknown or of another shape."""
    for key, value in expected.items():
        if key not in got:
            raise ValueError(f"{where}: '{key}' is missing; expected shape {tuple(value.shape)}")
        if got[key].shape != value.shape:
            raise ValueError(f"{where}: '{key}' has shape {tuple(got[key].shape)}, expected {tuple(value.shape)}")
    if unknown := sorted(got.keys() - expected.keys()):
        raise ValueError(f"{where}: '{unknown[0]}' is not part of this model ({len(unknown)} such keys)")


# Ours <- published, for tensors that only change their name or lose axes of length 1.
_TOP = {
    "input": "x_embedder.proj",
    "time.mlp.0": "t_embedder.mlp.0",
    "time.mlp.2": "t_embedder.mlp.2",
    "time.modulation": "t_block.1",
    "text.fc1": "y_embedder.y_proj.fc1",
    "text.fc2": "y_embedder.y_proj.fc2",
    "text.norm": "attention_y_norm",
    "output": "final_layer.linear",
    "scale_shift_table": "final_layer.scale_shift_table",
}
_BLOCK = {
    "scale_shift_table": "scale_shift_table",
    "attention.q_norm": "attn.q_norm",
    "attention.k_norm": "attn.k_norm",
    "attention.out": "attn.proj",
    "attention.beta": "attn.beta_proj",
    "attention.decay": "attn.gate_proj",
    "attention.A_log": "attn.A_log",
    "attention.dt_bias": "attn.dt_bias",
    "attention.gate_bias": "attn.output_gate.bias",
    "cross_attention.q_norm": "cross_attn.q_norm",
    "cross_attention.k_norm": "cross_attn.k_norm",
    "cross_attention.q": "cross_attn.q_linear",
    "cross_attention.kv": "cross_attn.kv_linear",
    "cross_attention.out": "cross_attn.proj",
    "ffn.up": "mlp.inverted_conv.conv",
    "ffn.depthwise": "mlp.depth_conv.conv",
    "ffn.down": "mlp.point_conv.conv",
}


def from_published(published: Mapping[str, Tensor], config: DiTConfig) -> dict[str, Tensor]:
    """The weights of the released checkpoints, streaming or bidirectional, under our names.

    q, k, v and gate become one matrix; the three temporal taps stand side by side; the outer taps of the streaming
    variant's 3-tap q and k, which nothing reads, are dropped, as are the unused buffers.
    """
    with torch.device("meta"):
        expected = DiT(config).state_dict()
    result = {}
    for key, like in expected.items():
        try:
            result[key] = _published_tensor(published, key).reshape(like.shape)
        except KeyError as missing:
            raise ValueError(f"published weights: {missing} is missing") from None
        except RuntimeError as error:
            raise ValueError(f"published weights do not fit '{key}' of shape {tuple(like.shape)}: {error}") from None
    return result


def _published_tensor(published: Mapping[str, Tensor], key: str) -> Tensor:
    if not key.startswith("blocks."):
        return published[_rename(key, _TOP)]
    _, index, name = key.split(".", 2)
    prefix = f"blocks.{index}."
    if name == "attention.qkvg.weight":
        parts = [published[f"{prefix}attn.{part}.weight"] for part in ("q", "k", "v", "output_gate")]
        return torch.cat([_centre_tap(part) for part in parts])
    if name == "ffn.temporal.weight":
        return torch.cat(published[f"{prefix}mlp.t_conv.weight"][..., 0].unbind(-1), dim=1)
    return published[prefix + _rename(name, _BLOCK)]


def _rename(key: str, names: Mapping[str, str]) -> str:
    if key in names:
        return names[key]
    stem, _, leaf = key.rpartition(".")
    return f"{names[stem]}.{leaf}"


def _centre_tap(weight: Tensor) -> Tensor:
    return weight if weight.ndim == 2 else weight[..., weight.shape[-1] // 2]

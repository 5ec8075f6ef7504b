"""Model folders in the style of diffusers: a folder for each part, with its own config.json and the names used there.

Our own config.json lies beside model_index.json: it holds what diffusers has no place for, and is what is read back.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sana_streaming.checkpoint.folder import check_free, check_keys, load_config, read, write, write_tensors
from sana_streaming.checkpoint.names import DIFFUSERS, gather, scatter
from sana_streaming.codec import build_codec
from sana_streaming.config import CodecConfig, ModelConfig
from sana_streaming.model.dit import DiT

WEIGHTS = "diffusion_pytorch_model.safetensors"
TRANSFORMER = "SanaStreamingTransformer3DModel"
LTX2 = "AutoencoderKLLTX2Video"


def export_diffusers(folder: Path, out: Path) -> ModelConfig:
    """Write a model folder in diffusers' style, every number as it is. The text encoder, which has a repository of its
    own, is not copied."""
    check_free(out)
    config = load_config(folder)
    with torch.device("meta"):
        ours = DiT(config.dit).state_dict(), build_codec(config.codec).state_dict()
    dit, codec = (read(folder / f"{n}.safetensors", like) for n, like in zip(("dit", "codec"), ours, strict=True))
    write_tensors(out / "transformer" / WEIGHTS, scatter(dit, DIFFUSERS))
    write_tensors(out / "vae" / WEIGHTS, codec)
    vae, scheduler = vae_config(config.codec), scheduler_config(config)
    _write_json(out / "transformer" / "config.json", {"_class_name": TRANSFORMER, **asdict(config.dit)})
    _write_json(out / "vae" / "config.json", vae)
    _write_json(out / "scheduler" / "scheduler_config.json", scheduler)
    shutil.copyfile(folder / "config.json", out / "config.json")
    index = {
        "_class_name": "SanaStreamingPipeline",
        "transformer": ["sana_streaming", TRANSFORMER],
        "vae": ["diffusers" if vae["_class_name"] == LTX2 else "sana_streaming", vae["_class_name"]],
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "text_encoder": [None, None],
        "tokenizer": [None, None],
    }
    _write_json(out / "model_index.json", index)
    return config


def import_diffusers(folder: Path, out: Path) -> ModelConfig:
    """Make a model folder of one that `export_diffusers` wrote. ValueError names the first key that does not fit."""
    check_free(out)
    config = load_config(folder)
    with torch.device("meta"):
        ours, codec = DiT(config.dit).state_dict(), build_codec(config.codec).state_dict()
    path = folder / "transformer" / WEIGHTS
    theirs = read(path)
    dit = gather(theirs, ours, DIFFUSERS, path)
    shapes = {k: v.shape for k, v in theirs.items()}
    check_keys({k: v.shape for k, v in scatter(ours, DIFFUSERS).items()}, shapes, path)  # and nothing besides
    write(out, config, {"dit": dit, "codec": read(folder / "vae" / WEIGHTS, codec)})
    return config


def vae_config(config: CodecConfig) -> dict[str, Any]:
    """The codec's config under the names of diffusers; what is not named has the value that LTX-2 has by default."""
    if config.kind != "ltx2":
        return {"_class_name": f"{config.kind.capitalize()}Codec", **asdict(config)}
    causal = config.decode == "causal"
    return {
        "_class_name": "AutoencoderKLCausalLTX2Video" if causal else LTX2,
        "latent_channels": config.latent_channels,
        "block_out_channels": config.widths[1:],
        "layers_per_block": config.blocks,
        "decoder_block_out_channels": config.decoder_widths[1:],
        "decoder_layers_per_block": config.decoder_blocks,
        "decoder_spatial_padding_mode": config.decoder_padding,
        "encoder_causal": True,
        "decoder_causal": causal,
        "scaling_factor": 1.0,
        "timestep_conditioning": False,
    }


def scheduler_config(config: ModelConfig) -> dict[str, Any]:
    if not config.sampler.clip:
        return {
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "num_train_timesteps": 1000,
            "shift": config.sampler.shift,
        }
    return {
        "_class_name": "DPMSolverMultistepScheduler",
        "algorithm_type": "dpmsolver++",
        "solver_order": 2,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "num_train_timesteps": 1000,
        "flow_shift": config.sampler.shift,
    }


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n")

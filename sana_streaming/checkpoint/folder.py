"""A model as a folder: config.json, dit.safetensors and codec.safetensors."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sana_streaming.codec import VideoCodec, build_codec
from sana_streaming.config import ModelConfig, from_dict, to_dict
from sana_streaming.model.dit import DiT

SHIPPED = Path(__file__).parents[1] / "weights"  # models inside the package: a folder each
MODELS = Path.home() / ".cache" / "sana-streaming" / "models"  # downloaded ones, likewise
FLOAT32 = (".A_log", ".dt_bias", "latents_mean", "latents_std")  # small, and read in float32


def find(model: str | Path) -> Path:
    """The folder of a model: the name of a shipped or a downloaded one, or a path. ValueError says what is known."""
    named = {path.parent.name: path.parent for home in (MODELS, SHIPPED) for path in home.glob("*/config.json")}
    folder = named.get(str(model), Path(model))
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"unknown model '{model}': expected {' or '.join(sorted(named))}, or a folder that holds config.json"
        )
    return folder


def load(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[ModelConfig, DiT, VideoCodec]:
    """Config, transformer and codec, ready to run in `dtype`. ValueError names the first key that does not fit."""
    config = load_config(folder)
    with torch.device("meta"):
        dit, codec = DiT(config.dit), build_codec(config.codec)

    def place(key: str, value: Tensor) -> Tensor:
        return value.to(device, torch.float32 if key.endswith(FLOAT32) else dtype)

    for module, name in ((dit, "dit"), (codec, "codec")):
        module.load_state_dict(read(folder / f"{name}.safetensors", module.state_dict(), place), assign=True)
        module.eval().requires_grad_(False)
    return config, dit, codec


def load_config(folder: Path) -> ModelConfig:
    return from_dict(ModelConfig, read_json(folder / "config.json"))


def read_json(path: Path) -> dict[str, Any]:
    """ValueError if the file is not there or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path.parent}: there is no {path.name}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def read(
    path: Path,
    expected: Mapping[str, Tensor] | None = None,
    place: Callable[[str, Tensor], Tensor] = lambda _, value: value,
) -> dict[str, Tensor]:
    """The tensors of a file, each through `place`. The file is mapped into memory: no second copy of it is ever held,
    and nothing of it is read before its keys and shapes are known to be those of `expected`."""
    try:
        with safe_open(path, framework="pt") as file:
            keys = file.keys()
            if expected is not None:
                shapes = {key: torch.Size(file.get_slice(key).get_shape()) for key in keys}
                check_keys({key: value.shape for key, value in expected.items()}, shapes, path)
            return {key: place(key, file.get_tensor(key)) for key in keys}
    except FileNotFoundError:
        raise ValueError(
            f"{path.parent}: there is no {path.name}, so that this model is not whole; import or download it again"
        ) from None
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None


def save(folder: Path, config: ModelConfig, dit: Mapping[str, Tensor], codec: Mapping[str, Tensor]) -> None:
    """Write a model folder; matrices in float16, which every device casts from, the rest in float32."""

    def compact(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {k: v.half() if v.ndim > 1 else v.float() for k, v in weights.items()}

    write(folder, config, {"dit": compact(dit), "codec": compact(codec)})


def write(folder: Path, config: ModelConfig, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write a model folder, every tensor as it is. The config comes last: a folder that has one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in weights.items():
        write_tensors(folder / f"{name}.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(to_dict(config), indent=2) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file; another process never sees a part of it, not even where it takes the place of one in use."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    save_file({k: _alone(v.cpu()) for k, v in tensors.items()}, part, metadata={"format": "pt"})
    os.replace(part, path)


def _alone(tensor: Tensor) -> Tensor:
    """A tensor that shares its memory with no other, in the order in which it is written."""
    tensor = tensor.contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def check_keys(expected: Mapping[str, torch.Size], got: Mapping[str, torch.Size], where: Path | str) -> None:
    """ValueError naming the first key that is missing, unknown or of another shape."""
    for key, shape in expected.items():
        if key not in got:
            raise ValueError(f"{where}: '{key}' is missing; expected shape {tuple(shape)}")
        if got[key] != shape:
            raise ValueError(f"{where}: '{key}' has shape {tuple(got[key])}, expected {tuple(shape)}")
    if unknown := sorted(got.keys() - expected.keys()):
        raise ValueError(f"{where}: '{unknown[0]}' is not part of this model ({len(unknown)} such keys)")


def check_free(folder: Path) -> None:
    """ValueError if there is something in the way of a new model folder; one that was left half-written is not."""
    half = {f"{name}.safetensors{end}" for name in ("dit", "codec") for end in ("", ".part")}
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - half):
        raise ValueError(f"expected a new or an empty folder to write to, got {folder}")

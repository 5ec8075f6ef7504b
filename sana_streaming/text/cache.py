"""Token states of prompts on disk, so that a prompt that was read once costs no text encoder again.

One file per prompt, named by a digest of all that its states depend on; the prompt itself is not written down.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

FOLDER = Path.home() / ".cache" / "sana-streaming" / "prompts"
MOST = 4096  # prompts, about 0.2 MB each


class PromptCache:
    """A folder that any number of processes read and write at once: a file appears whole or not at all."""

    def __init__(self, folder: Path = FOLDER, most: int = MOST):
        self.folder = folder
        self.most = most

    def get(self, key: tuple[str | int, ...]) -> Tensor | None:
        """The states kept under a key. None if there are none, or if the file is damaged: it is then written anew."""
        path = self._path(key)
        try:
            states = load(path.read_bytes())["states"]
        except (OSError, SafetensorError, KeyError):
            return None
        with contextlib.suppress(OSError):  # a folder that may only be read serves as well
            os.utime(path)
        return states

    def put(self, key: tuple[str | int, ...], states: Tensor) -> None:
        """Keep states. Where they cannot be written, nothing happens: the cache saves time and is not needed."""
        data = save({"states": states.contiguous()})
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as part:
                part.write(data)
            os.replace(part.name, self._path(key))
            self._forget_oldest()

    def _path(self, key: tuple[str | int, ...]) -> Path:
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        return self.folder / f"{digest}.safetensors"

    def _forget_oldest(self) -> None:
        """Keep the prompts that were asked for last."""
        files = [(path.stat().st_mtime_ns, path) for path in self.folder.iterdir()]
        for _, path in sorted(files)[: -self.most]:
            path.unlink(missing_ok=True)


def fingerprint(folder: Path) -> str:
    """Tells one state of a folder from another by the names, sizes and times of its files, without reading them."""
    files = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir() if p.is_file())
    return hashlib.sha256(json.dumps([str(folder.resolve()), files]).encode()).hexdigest()


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

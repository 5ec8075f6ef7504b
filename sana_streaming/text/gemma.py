"""Token states of Gemma-2, the text encoder of the 2 B model, through transformers.

The published model reads the user's words behind an instruction template, which comes with its checkpoint. Of the
states, those of the first token and of the user's words are kept, at most `max_tokens`.
"""

import functools
import textwrap
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sana_streaming.config import TextConfig
from sana_streaming.text.cache import PromptCache, dtype_name, fingerprint

REMEMBERED = 128  # prompts
FILES = ("*.json", "*.safetensors", "tokenizer.model")  # of an encoder's repository
CPU = torch.device("cpu")
NO_TEMPLATE = (
    "this model came without its instruction template: results will differ from those of the published model; "
    "import it with --yaml FILE"
)


class Gemma:
    """prompt -> token states [L, E] float32. Loaded for the first prompt that no cache knows."""

    def __init__(
        self,
        config: TextConfig,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.bfloat16,  # the published precision
        cache: PromptCache | None = None,
    ):
        if config.max_tokens < 2:
            raise ValueError(f"gemma: expected max_tokens of at least 2, got {config.max_tokens}")
        if not config.model:
            raise ValueError("gemma: expected a folder or a hub repository as model, got none")
        if not config.template:
            warnings.warn(NO_TEMPLATE, stacklevel=2)
        self.config = config
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = dtype
        self.cache = cache or PromptCache()
        self.lock = threading.Lock()  # sessions share the encoder
        self._encode = functools.lru_cache(maxsize=REMEMBERED)(self._encode_anew)

    def __call__(self, prompt: str) -> Tensor:
        prompt = readable(prompt)
        if not prompt:
            raise ValueError(f"expected a prompt with at least one word, got {prompt!r}")
        return self._encode(self.config.template, prompt)

    def negative(self, prompt: str) -> Tensor:
        """The states of what guidance leads away from; it is read without the template and may be empty."""
        return self._encode("", readable(prompt))

    def truncated(self, prompt: str) -> bool:
        return self._overflows(self.config.template, readable(prompt))

    @functools.cached_property
    def folder(self) -> Path:
        """Where the encoder's files lie. ValueError if they are not on this machine."""
        return find_encoder(self.config)

    @functools.cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder, local_files_only=True)

    @functools.cached_property
    def model(self) -> nn.Module:
        """On the CPU. ValueError if the width is not the one that the transformer was trained with."""
        from transformers import AutoConfig, AutoModel

        config = AutoConfig.from_pretrained(self.folder, local_files_only=True)
        if config.hidden_size != self.config.dim:
            raise ValueError(f"{self.config.model}: expected states of {self.config.dim}, got {config.hidden_size}")
        # The published model was run and checked with attention that does not cap its logits, unlike Gemma's own.
        config.attn_logit_softcapping = None
        model = AutoModel.from_pretrained(self.folder, config=config, dtype=self.dtype, local_files_only=True)
        return model.eval().requires_grad_(False)

    def _tokenize(self, template: str, prompt: str) -> tuple[list[int], int]:
        """The tokens of template and prompt, and how many of them are read."""
        ids = self.tokenizer(template + prompt)["input_ids"]
        limit = self.config.max_tokens
        # Two less: the template's own count has the first token, and a blank that becomes part of the first word.
        return ids, limit + len(self.tokenizer(template)["input_ids"]) - 2 if template else limit

    def _encode_anew(self, template: str, prompt: str) -> Tensor:
        name, revision = identity(self.config, self.folder)
        key = ("gemma", 1, name, revision, template, prompt, self.config.max_tokens, dtype_name(self.dtype))
        with self.lock, torch.inference_mode(False), torch.no_grad():  # what is remembered may serve training later
            if len(prompt.encode()) > self.config.max_tokens // 2 and self._overflows(template, prompt):
                start = textwrap.shorten(prompt, 80)
                warnings.warn(f"prompt cut to its first {self.config.max_tokens} tokens: {start!r}", stacklevel=3)
            states = self.cache.get(key)
            if states is None:
                states = self._run(template, prompt)
                self.cache.put(key, states)
        return states.float()

    def _overflows(self, template: str, prompt: str) -> bool:
        ids, limit = self._tokenize(template, prompt)
        return len(ids) > limit

    def _run(self, template: str, prompt: str) -> Tensor:
        ids, limit = self._tokenize(template, prompt)
        # The model is causal: padding to the right would change nothing, and is left out.
        read = torch.tensor([ids[:limit]])
        try:
            states = self._states(read, self.device)
        except torch.OutOfMemoryError:
            states = self._states(read, CPU)
        last = max(1, limit - self.config.max_tokens + 1)
        return torch.cat([states[:1], states[last:]])

    def _states(self, ids: Tensor, device: torch.device) -> Tensor:
        with lent(self.model, device) as model:
            return model(input_ids=ids.to(device)).last_hidden_state[0].cpu()


@contextmanager
def lent(model: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """A model on another device; afterwards its weights are where they were, and the device's memory is free."""
    weights, buffers = [], []
    for module in model.modules():
        weights += [(module, name, weight, weight.data) for name, weight in module.named_parameters(recurse=False)]
        buffers += [(module, name, buffer) for name, buffer in module.named_buffers(recurse=False)]
    try:
        yield model.to(device)
    finally:
        for module, name, weight, data in weights:
            weight.data = data  # a move to another kind of device makes a new parameter, one to a GPU new data for it
            setattr(module, name, weight)
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def find_encoder(config: TextConfig) -> Path:
    """The folder of an encoder: a path, or what was downloaded of a hub's repository. ValueError says what to do."""
    if Path(config.model).is_dir():
        return Path(config.model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    revision = config.revision or None
    try:
        return Path(snapshot_download(config.model, revision=revision, allow_patterns=[*FILES], local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        of = f" at revision {config.revision}" if config.revision else ""
        raise ValueError(
            f"the text encoder '{config.model}'{of} is not on this machine: run 'sana-streaming download 2b', "
            f"or name its folder as text.model in the model's config.json"
        ) from None


def identity(config: TextConfig, folder: Path) -> tuple[str, str]:
    """Name and revision of the weights in an encoder's folder."""
    if folder == Path(config.model):
        return str(folder.resolve()), fingerprint(folder)
    return config.model, folder.name  # the hub's client names a snapshot's folder by its commit


def readable(prompt: str) -> str:
    """Without space around it; half a surrogate pair, as JSON can carry, becomes "?"."""
    return prompt.encode("utf-8", "replace").decode().strip()

"""Prompts to token states. An encoder is one file and one line in ENCODERS; its libraries load when it is asked for."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from sana_streaming.config import TextConfig


class TextEncoder(Protocol):
    """Token states of a prompt, remembered for the prompts used last. What comes back is shared: do not write to it."""

    def __call__(self, prompt: str) -> Tensor:
        """prompt -> [L, D] float32 on the CPU, without padding. ValueError for a prompt without a word."""
        ...

    def negative(self, prompt: str) -> Tensor:
        """The same for what guidance leads away from, which some encoders read in another way, and may be empty there.
        ValueError for a prompt that cannot be led away from."""
        ...

    def truncated(self, prompt: str) -> bool:
        """Whether the prompt is longer than the encoder reads. Its end is then dropped, with one warning."""
        ...


def _minilm(config: TextConfig, device: torch.device | None) -> TextEncoder:
    from sana_streaming.text.minilm import MiniLM

    return MiniLM(config)


def _gemma(config: TextConfig, device: torch.device | None) -> TextEncoder:
    from sana_streaming.text.gemma import Gemma

    return Gemma(config, device)


ENCODERS: dict[str, Callable[[TextConfig, torch.device | None], TextEncoder]] = {"minilm": _minilm, "gemma": _gemma}


def load_encoder(config: TextConfig, device: torch.device | None = None) -> TextEncoder:
    """The text encoder that a config names. `device`: for encoders that need one; a GPU, if there is one."""
    if config.kind not in ENCODERS:
        raise ValueError(f"text encoder: expected one of {sorted(ENCODERS)}, got {config.kind!r}")
    return ENCODERS[config.kind](config, device)

"""Instructions as token states on a device: encoded when first met, remembered from then on."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

THREADS = 8


class Prompts:
    def __init__(self, encoder: Callable[[str], Tensor], device: str | torch.device = "cpu"):
        """encoder: instruction -> token states [L, D], safe to call from several threads."""
        self.encoder, self.device = encoder, torch.device(device)
        self.known: dict[str, Tensor] = {}

    def __call__(self, phrases: Sequence[str], length: int | None = None) -> tuple[Tensor, Tensor]:
        """B phrases -> states [B, L, D] float32, zero past their ends, and mask [B, L], true at tokens.

        L is the longest phrase's, or `length`; ValueError for a phrase that is longer.
        """
        self._encode([phrase for phrase in dict.fromkeys(phrases) if phrase not in self.known])
        rows = [self.known[phrase] for phrase in phrases]
        longest = max(phrases, key=lambda phrase: len(self.known[phrase]))
        length = len(self.known[longest]) if length is None else length
        if len(self.known[longest]) > length:
            raise ValueError(f"expected at most {length} tokens, got {len(self.known[longest])}: {longest!r}")
        states = torch.zeros(len(rows), length, rows[0].shape[1])
        mask = torch.zeros(len(rows), length, dtype=torch.bool)
        for i, row in enumerate(rows):
            states[i, : len(row)], mask[i, : len(row)] = row, True
        if self.device.type == "cuda":  # from pinned memory nothing waits for the GPU
            states, mask = states.pin_memory(), mask.pin_memory()
        return states.to(self.device, non_blocking=True), mask.to(self.device, non_blocking=True)

    def _encode(self, phrases: Sequence[str]) -> None:
        if len(phrases) < 2:
            states = [self.encoder(phrase) for phrase in phrases]
        else:
            with ThreadPoolExecutor(THREADS) as pool:
                states = list(pool.map(self.encoder, phrases))
        self.known.update(zip(phrases, states, strict=True))

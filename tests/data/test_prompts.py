"""Instructions on demand: padded, masked, encoded once."""

import pytest
import torch

from sana_streaming.data.prompts import Prompts


class Encoder:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, phrase: str) -> torch.Tensor:
        self.asked.append(phrase)
        return torch.full((len(phrase.split()), 4), float(len(phrase)))


def test_phrases_are_padded_and_masked() -> None:
    states, mask = Prompts(Encoder())(["make it rain", "sepia"])
    assert states.shape == (2, 3, 4)
    assert mask.tolist() == [[True, True, True], [True, False, False]]
    assert states[1].tolist() == [[5.0] * 4, [0.0] * 4, [0.0] * 4]


def test_every_phrase_is_encoded_once() -> None:
    encoder = Encoder()
    prompts = Prompts(encoder)
    prompts(["a", "b c", "a"])
    prompts(["b c"])
    assert sorted(encoder.asked) == ["a", "b c"]


def test_length_can_be_fixed() -> None:
    prompts = Prompts(Encoder())
    states, mask = prompts(["one two"], length=5)
    assert states.shape == (1, 5, 4)
    assert mask.sum() == 2
    with pytest.raises(ValueError, match="at most 1 tokens, got 2: 'one two'"):
        prompts(["one two"], length=1)

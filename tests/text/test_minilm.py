import dataclasses
import warnings

import pytest
import torch

from sana_streaming.config import TextConfig, nano
from sana_streaming.text import load_encoder


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(nano().text)


def test_token_states_have_one_row_per_token(encoder):
    states = encoder("turn the scene into a watercolor")
    assert states.shape == (9, 384)  # [CLS] turn the scene into a water ##color [SEP]
    assert states.dtype == torch.float32
    assert states.isfinite().all()


def test_token_states_are_those_of_the_published_model(encoder):
    """all-MiniLM-L6-v2 puts the mean token state of a paraphrase nearer than that of another instruction."""

    def mean(prompt):
        return torch.nn.functional.normalize(encoder(prompt).mean(0), dim=0)

    make, turn, remove = mean("make it snow"), mean("let snow fall on the scene"), mean("remove the red car")
    assert make @ turn > 0.6
    assert make @ remove < 0.4


def test_two_encoders_agree_bitwise(encoder):
    prompt = "replace the dog with a cat"
    assert torch.equal(load_encoder(nano().text)(prompt), encoder(prompt))


def test_neighbours_do_not_change_a_prompt():
    prompts = ["make it night", "remove the person on the left, keep everything else", "sepia"]
    forward, backward = load_encoder(nano().text), load_encoder(nano().text)
    states = {p: forward(p) for p in prompts}
    for p in reversed(prompts):
        assert torch.equal(backward(p), states[p])


def test_prompt_is_remembered(encoder):
    assert encoder("make it snow") is encoder("make it snow")


def test_memory_of_prompts_is_bounded(encoder):
    first = encoder("prompt number zero")
    for i in range(130):
        encoder(f"prompt number {i}")
    assert encoder("prompt number zero") is not first
    assert torch.equal(encoder("prompt number zero"), first)


def test_prompt_first_seen_in_inference_mode_can_be_trained_on():
    with torch.inference_mode():
        states = load_encoder(nano().text)("make it snow")
    weight = torch.ones(384, requires_grad=True)
    (states * weight).sum().backward()
    assert torch.allclose(weight.grad, states.sum(0), atol=1e-5)


def test_case_and_surrounding_space_do_not_matter(encoder):
    assert torch.equal(encoder("Turn The Scene Into a WATERCOLOR"), encoder("  turn the scene into a watercolor\n"))


def test_two_instructions_differ(encoder):
    red, blue = encoder("make the car red"), encoder("make the car blue")
    assert red.shape == blue.shape
    assert (red - blue).norm() / red.norm() > 0.1


@pytest.mark.parametrize(
    "prompt", ["把天空变成粉红色", "превратить в акварель", "🎨🎨", "café", "[SEP] x", "half a pair \ud83c"]
)
def test_any_text_is_read(encoder, prompt):
    states = encoder(prompt)
    assert states.shape[0] >= 3
    assert states.isfinite().all()


@pytest.mark.parametrize("prompt", ["", "  \n\t", "\x00"])
def test_prompt_without_a_word_is_refused(encoder, prompt):
    with pytest.raises(ValueError, match="at least one word"):
        encoder(prompt)


def test_long_prompt_is_cut_with_one_warning(encoder):
    fits, long = "red " * 62, "red " * 63  # with [CLS] and [SEP]: 64 and 65 tokens
    assert not encoder.truncated(fits)
    assert encoder.truncated(long)
    whole = encoder(fits)
    with pytest.warns(UserWarning, match="first 64 tokens"):
        cut = encoder(long)
    assert torch.equal(cut, whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder(long)


@pytest.mark.parametrize(
    ("change", "message"), [({"dim": 768}, "dim 384"), ({"max_tokens": 1024}, "3 to 512")], ids=str
)
def test_config_that_the_model_cannot_serve_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        load_encoder(dataclasses.replace(nano().text, **change))


def test_unknown_encoder_is_refused():
    with pytest.raises(ValueError, match=r"expected one of .*minilm.*, got 'clip'"):
        load_encoder(TextConfig("clip", dim=1, max_tokens=8))

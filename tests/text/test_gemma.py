"""The Gemma encoder, on a tiny random model and a tokenizer that treats blanks as Gemma's does."""

import os
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Gemma2Model, PreTrainedTokenizerFast

from sana_streaming.config import TextConfig, two_b
from sana_streaming.text import load_encoder
from sana_streaming.text.cache import PromptCache
from sana_streaming.text.gemma import CPU, NO_TEMPLATE, Gemma, find_encoder, lent

from .tiny_gemma import DIM, write_encoder

TEMPLATE = "rewrite it\nuser: "
MAX_TOKENS = 12


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("gemma"))


@pytest.fixture
def config(folder: Path) -> TextConfig:
    return TextConfig("gemma", dim=DIM, max_tokens=MAX_TOKENS, model=str(folder), template=TEMPLATE)


@pytest.fixture
def cache(tmp_path: Path) -> PromptCache:
    return PromptCache(tmp_path / "prompts")


def make(config: TextConfig, cache: PromptCache, **options: object) -> Gemma:
    return Gemma(config, CPU, torch.float32, cache, **options)


def published(folder: Path, template: str, prompt: str, max_tokens: int) -> Tensor:
    """The published procedure, word for word: pad, run under the mask, select, and drop what the mask hides."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = Gemma2Model.from_pretrained(folder, attn_logit_softcapping=None, dtype=torch.float32).eval()
    length = len(tokenizer.encode(template)) + max_tokens - 2 if template else max_tokens
    ids = tokenizer.encode(template + prompt)[:length]
    mask = torch.tensor([[1] * len(ids) + [0] * (length - len(ids))])
    padded = torch.tensor([ids + [0] * (length - len(ids))])
    with torch.no_grad():
        states = model(input_ids=padded, attention_mask=mask).last_hidden_state
    chosen = [0, *range(-max_tokens + 1, 0)]
    return states[0, chosen][mask[0, chosen].bool()]


@pytest.mark.parametrize("prompt", ["go", "make it snow", "make it all snowy and much colder"], ids=str)
def test_states_are_those_of_the_published_procedure(config, cache, folder, prompt):
    encoder = make(config, cache)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = encoder(prompt)
    expected = published(folder, TEMPLATE, prompt, MAX_TOKENS)
    assert got.shape == expected.shape
    assert (got - expected).norm() / expected.norm() < 1e-5
    # the first token, and those of the user's words: the template's last blank belongs to the first word
    words = len(prompt.replace(" ", ""))
    assert len(got) == 1 + min(words, MAX_TOKENS - 1)


def test_cap_of_the_attention_logits_would_be_seen(config, cache, folder):
    capped = Gemma2Model.from_pretrained(folder, dtype=torch.float32).eval()
    ids = make(config, cache).tokenizer(TEMPLATE + "make it", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        other = capped(input_ids=ids).last_hidden_state[0, -6:]
    got = make(config, cache)("make it")[-6:]
    assert (got - other).norm() / other.norm() > 1e-2


def test_negative_prompt_is_read_without_the_template(config, cache, folder):
    encoder = make(config, cache)
    for prompt in ("blurry", ""):
        expected = published(folder, "", prompt, MAX_TOKENS)
        assert (encoder.negative(prompt) - expected).norm() / expected.norm() < 1e-5
    assert len(encoder.negative("")) == 1


def test_space_around_a_prompt_does_not_matter_but_case_does(config, cache):
    encoder = make(config, cache)
    assert torch.equal(encoder("  make it\n"), encoder("make it"))
    assert not torch.equal(encoder("Make it"), encoder("make it"))


def test_template_matters(config, cache):
    other = replace(config, template="describe it\nuser: ")
    assert not torch.allclose(make(config, cache)("go")[1:], make(other, cache)("go")[1:], atol=1e-3)


@pytest.mark.parametrize("prompt", ["", " \n\t"])
def test_prompt_without_a_word_is_refused(config, cache, prompt):
    with pytest.raises(ValueError, match="at least one word"):
        make(config, cache)(prompt)


def test_half_a_surrogate_pair_is_read(config, cache):
    assert make(config, cache)("half \ud83c").isfinite().all()


def test_long_prompt_is_cut_with_a_warning_even_if_it_is_known(config, cache):
    fits, long = "a" * 11, "a" * 12
    for _ in range(2):  # the second encoder reads the cache
        encoder = make(config, cache)
        assert not encoder.truncated(fits)
        assert encoder.truncated(long)
        whole = encoder(fits)
        with pytest.warns(UserWarning, match="first 12 tokens") as caught:
            cut = encoder(long)
        assert caught[0].filename == __file__
        assert torch.equal(cut, whole)


def test_without_a_template_one_line_says_so(config, cache):
    with pytest.warns(UserWarning, match="results will differ") as caught:
        encoder = load_encoder(replace(config, template=""), CPU)
    assert len(caught) == 1
    assert "\n" not in NO_TEMPLATE
    assert isinstance(encoder, Gemma)


def test_a_known_prompt_needs_no_model(config, cache):
    states = make(config, cache)("go")
    again = make(config, cache)
    assert torch.equal(again("go"), states)
    assert "model" not in vars(again)
    assert "tokenizer" not in vars(again)


def test_a_prompt_is_remembered(config, cache):
    encoder = make(config, cache)
    assert encoder("go") is encoder("go")


@pytest.mark.parametrize(
    "change",
    [{"template": "user: "}, {"max_tokens": 11}, {"revision": "v2"}, {"model": "other"}, {"dtype": torch.bfloat16}],
    ids=lambda change: next(iter(change)),
)
def test_everything_that_matters_is_part_of_the_key(config, cache, monkeypatch, folder, change):
    monkeypatch.setattr("sana_streaming.text.gemma.find_encoder", lambda c: Path(f"snapshots/{c.revision}"))
    config = replace(config, model="some/encoder", revision="v1")
    runs = []
    monkeypatch.setattr(Gemma, "_run", lambda *_: runs.append(1) or torch.ones(2, DIM))
    make(config, cache)("go")
    make(config, cache)("go")
    assert len(runs) == 1
    dtype = change.pop("dtype", torch.float32)
    Gemma(replace(config, **change), CPU, dtype, cache)("go")
    assert len(runs) == 2


def test_a_changed_folder_is_another_encoder(config, cache, monkeypatch, folder, tmp_path):
    runs = []
    monkeypatch.setattr(Gemma, "_run", lambda *_: runs.append(1) or torch.ones(2, DIM))
    local = tmp_path / "encoder"
    local.mkdir()
    (local / "model.safetensors").write_bytes(b"one")
    config = replace(config, model=str(local))
    for _ in range(2):
        make(config, cache)("go")
    assert len(runs) == 1
    (local / "model.safetensors").write_bytes(b"another")
    make(config, cache)("go")
    assert len(runs) == 2


def test_what_is_remembered_can_be_trained_on(config, cache):
    with torch.inference_mode():
        states = make(config, cache)("go")
    weight = torch.ones(DIM, requires_grad=True)
    (states * weight).sum().backward()
    assert torch.allclose(weight.grad, states.sum(0), atol=1e-5)


def test_encoder_leaves_the_device_after_use(config, cache):
    model = make(config, cache).model

    def tensors():
        return {name: t.data_ptr() for name, t in (*model.named_parameters(), *model.named_buffers())}

    before = tensors()
    with pytest.raises(RuntimeError, match="in between"), lent(model, torch.device("meta")) as away:
        assert {p.device.type for p in away.parameters()} == {"meta"}
        raise RuntimeError("in between")
    assert tensors() == before


def test_a_full_device_is_left_for_the_cpu(config, cache, monkeypatch):
    expected = make(config, cache)("go")
    encoder = Gemma(config, torch.device("meta"), torch.float32, PromptCache(cache.folder / "other"))
    tried = []
    states = encoder._states

    def full(ids: Tensor, device: torch.device) -> Tensor:
        tried.append(device.type)
        if device.type == "meta":
            raise torch.OutOfMemoryError("full")
        return states(ids, device)

    monkeypatch.setattr(encoder, "_states", full)
    assert torch.equal(encoder("go"), expected)
    assert tried == ["meta", "cpu"]


def test_encoder_that_is_not_here_is_one_line(config):
    with pytest.raises(ValueError, match=r"'no-one/no-such-encoder' at revision abc is not on this machine: run") as e:
        find_encoder(replace(config, model="no-one/no-such-encoder", revision="abc"))
    assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match="is not on this machine"):
        find_encoder(replace(config, model="a folder/that is/not here"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": 1}, "max_tokens of at least 2, got 1"),
        ({"model": ""}, "expected a folder or a hub repository"),
        ({"dim": 2304}, "expected states of 2304, got 24"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_config_that_cannot_be_served_is_refused(config, cache, change, message):
    with pytest.raises(ValueError, match=message):
        make(replace(config, **change), cache)("go")


def test_the_released_model_names_its_encoder():
    text = two_b().text
    assert (text.kind, text.dim, text.max_tokens) == ("gemma", 2304, 300)
    assert text.model
    assert not text.template  # it is part of the checkpoint, not of this package


class TestCache:
    KEY = ("gemma", 1, "prompt")

    def test_round_trip(self, cache):
        states = torch.randn(3, 5).bfloat16()
        assert cache.get(self.KEY) is None
        cache.put(self.KEY, states)
        got = cache.get(self.KEY)
        assert got.dtype == torch.bfloat16
        assert torch.equal(got, states)
        assert cache.get((*self.KEY, "more")) is None

    @pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda _: b"", lambda d: d[:-1]], ids=range(3))
    def test_a_damaged_file_is_written_anew(self, cache, damage):
        cache.put(self.KEY, torch.ones(3, 5))
        (file,) = cache.folder.iterdir()
        file.write_bytes(damage(file.read_bytes()))
        assert cache.get(self.KEY) is None
        cache.put(self.KEY, torch.ones(3, 5))
        assert torch.equal(cache.get(self.KEY), torch.ones(3, 5))

    def test_a_file_appears_whole_or_not_at_all(self, cache, monkeypatch):
        """A writer that stops before the end leaves what was there; one that goes on at the same time is not hurt."""
        cache.put(self.KEY, torch.zeros(3, 5))
        replaced = []

        def stop(part, path):
            replaced.append((Path(part), Path(path)))
            raise OSError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", stop)
            cache.put(self.KEY, torch.ones(3, 5))
            cache.put(self.KEY, torch.ones(3, 5))
        (part, path), (other, _) = replaced
        assert part != other
        assert part.parent == path.parent  # so that the name changes in one step
        assert torch.equal(cache.get(self.KEY), torch.zeros(3, 5))

    def test_many_writers_and_readers_at_once(self, cache):
        seen = []

        def work(number):
            for _ in range(30):
                cache.put(self.KEY, torch.full((64, 64), float(number)))
                seen.append(cache.get(self.KEY))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 120
        assert all(states is not None and len(states.unique()) == 1 for states in seen)
        assert len(list(cache.folder.iterdir())) == 1

    def test_prompts_are_not_written_down(self, cache):
        cache.put(("a secret prompt",), torch.ones(1, 1))
        (file,) = cache.folder.iterdir()
        assert "secret" not in file.name
        assert b"secret" not in file.read_bytes()

    def test_the_oldest_are_forgotten(self, tmp_path):
        cache = PromptCache(tmp_path, most=2)
        for age, name in enumerate("abc"):
            cache.put((name,), torch.ones(1, 1))
            if name != "c":
                os.utime(cache._path((name,)), (age, age))
        assert [cache.get((name,)) is None for name in "abc"] == [True, False, False]

    def test_a_place_that_cannot_be_written_is_no_error(self, tmp_path):
        (tmp_path / "file").write_text("")
        cache = PromptCache(tmp_path / "file" / "folder")
        cache.put(self.KEY, torch.ones(1, 1))
        assert cache.get(self.KEY) is None

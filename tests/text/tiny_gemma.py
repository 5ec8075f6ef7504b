"""A text encoder as the hub has it, tiny and random, with a tokenizer that treats blanks as Gemma's does."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, processors
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

LETTERS = "abcdefghijklmnopqrstuvwxyz:\n"
BLANK = "▁"  # a blank becomes part of the letter that follows
DIM = 24


def write_encoder(folder: Path) -> Path:
    """Saved with its output layer, as it is published."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", BLANK, *LETTERS, *(BLANK + c for c in LETTERS)]
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab, [(BLANK, c) for c in LETTERS], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", BLANK)
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    config = Gemma2Config(
        vocab_size=len(vocab),
        hidden_size=DIM,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=12,
        initializer_range=1.5,  # large enough for the cap of the attention logits to be felt
        attn_logit_softcapping=2.0,
    )
    torch.manual_seed(0)
    Gemma2ForCausalLM(config).save_pretrained(folder)
    return folder

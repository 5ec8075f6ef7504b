"""Published files, imported, edit a video: transformer, codec and text encoder together, at the size of a test."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sana_streaming import Editor, checkpoint
from sana_streaming.checkpoint.folder import write_tensors
from sana_streaming.checkpoint.names import PUBLISHED, scatter
from sana_streaming.codec import build_codec
from sana_streaming.codec.ltx2 import published_config
from sana_streaming.config import two_b
from sana_streaming.model.dit import DiT
from sana_streaming.text.cache import PromptCache

from .text.tiny_gemma import DIM, write_encoder
from .tiny_2b import CAUSAL_VAE, tiny_2b


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sana_streaming.text.gemma.PromptCache", lambda: PromptCache(tmp_path / "prompts"))
    torch.manual_seed(0)
    dit = tiny_2b(text_dim=DIM).dit
    weights = scatter({k: torch.randn_like(v) / 5 for k, v in DiT(dit).state_dict().items()}, PUBLISHED)
    for name in [f"blocks.{i}.attn.{part}.weight" for i in range(4) for part in "qk"]:
        weights[name] = weights[name][..., None]  # one tap
    torch.save({"generator": weights}, tmp_path / "dit.pth")
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps(CAUSAL_VAE))
    codec = build_codec(published_config(CAUSAL_VAE)[0]).state_dict()
    write_tensors(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", codec)
    encoder = write_encoder(tmp_path / "gemma")
    config = replace(two_b(), dit=dit, text=replace(two_b().text, dim=DIM, model=str(encoder)))
    checkpoint.import_published(
        tmp_path / "dit.pth", tmp_path / "model", config, template="rewrite it\nuser: ", vae=tmp_path / "vae"
    )
    return tmp_path / "model"


def edit(model: Path, prompt: str) -> torch.Tensor:
    session = Editor.load(model, "cpu").session(prompt, seed=1, steps=2)
    generator = torch.Generator().manual_seed(3)
    chunks = []
    for _ in range(2):
        frames = torch.randint(0, 256, (session.chunk_frames, 64, 64, 3), generator=generator, dtype=torch.uint8)
        chunks.append(session.step(frames))
    return torch.cat(chunks)


def test_a_video_is_edited_by_instruction(model):
    snow = edit(model, "make it snow")
    assert snow.shape == (33 + 24, 64, 64, 3)
    assert torch.equal(edit(model, "make it snow"), snow)  # the second time from the cache of prompts
    assert not torch.equal(edit(model, "make it rain"), snow)


def test_a_model_that_went_through_diffusers_edits_alike(model):
    checkpoint.export_diffusers(model, model.parent / "out")
    checkpoint.import_diffusers(model.parent / "out", model.parent / "back")
    assert torch.equal(edit(model.parent / "back", "make it snow"), edit(model, "make it snow"))

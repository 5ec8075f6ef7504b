"""Model folders, and their form in diffusers' style."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sana_streaming import checkpoint
from sana_streaming.checkpoint.diffusers import vae_config
from sana_streaming.checkpoint.folder import read, write_tensors
from sana_streaming.codec.ltx2 import published_config
from sana_streaming.config import nano, two_b

from .tiny_2b import published, published_model, tiny_2b

CPU = torch.device("cpu")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return published_model(tmp_path)


class TestFolder:
    def test_an_imported_model_loads(self, model, tmp_path):
        config, dit, codec = checkpoint.load(model, CPU, torch.float32)
        assert config.text.template == "be brief: "
        assert config.codec.decode == "causal"
        expected = checkpoint.from_published(published(), tiny_2b().dit)
        assert all(torch.equal(v, expected[k].float()) for k, v in dit.state_dict().items())
        theirs = load_file(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
        assert all(torch.equal(v, theirs[k]) for k, v in codec.state_dict().items())

    def test_straight_to_the_precision(self, model):
        _, dit, codec = checkpoint.load(model, CPU, torch.bfloat16)
        kept = {k for k, v in (dit.state_dict() | codec.state_dict()).items() if v.dtype == torch.float32}
        assert kept == {f"blocks.{i}.attention.{n}" for i in range(3) for n in ("A_log", "dt_bias")} | {
            "latents_mean",
            "latents_std",
        }

    def test_a_folder_without_codec_is_not_whole(self, tmp_path):
        torch.save(published(), tmp_path / "dit.pth")
        checkpoint.import_published(tmp_path / "dit.pth", tmp_path / "model", replace(tiny_2b(), codec=nano().codec))
        with pytest.raises(ValueError, match=r"model: there is no codec.safetensors, so that this model is not whole"):
            checkpoint.load(tmp_path / "model", CPU, torch.float32)

    def test_a_truncated_file_is_one_line(self, model):
        file = model / "dit.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(ValueError, match=r"dit.safetensors is not a whole safetensors file"):
            checkpoint.load(model, CPU, torch.float32)

    def test_nothing_is_read_of_a_file_that_does_not_fit(self, tmp_path):
        write_tensors(tmp_path / "a.safetensors", {"one": torch.zeros(2), "two": torch.zeros(3)})
        placed = []
        with pytest.raises(ValueError, match=r"'two' has shape \(3,\), expected \(4,\)"):
            read(
                tmp_path / "a.safetensors",
                {"one": torch.zeros(2), "two": torch.zeros(4)},
                lambda k, v: placed.append(k),
            )
        assert placed == []

    def test_a_file_is_replaced_as_a_whole(self, tmp_path):
        """What has been mapped keeps its numbers."""
        path = tmp_path / "a.safetensors"
        write_tensors(path, {"one": torch.zeros(1000)})
        mapped = read(path)["one"]
        write_tensors(path, {"one": torch.ones(1000)})
        assert mapped.eq(0).all()
        assert read(path)["one"].eq(1).all()
        assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]

    def test_a_downloaded_model_is_found_by_name(self, model, monkeypatch):
        monkeypatch.setattr("sana_streaming.checkpoint.folder.MODELS", model.parent)
        assert checkpoint.find("model") == model
        with pytest.raises(ValueError, match=r"unknown model 'mode': expected .*model or nano or .* a folder"):
            checkpoint.find("mode")

    def test_a_shipped_model_comes_first(self, model, monkeypatch):
        monkeypatch.setattr("sana_streaming.checkpoint.folder.MODELS", model.parent)
        model.rename(model.parent / "nano")
        assert checkpoint.find("nano") == checkpoint.SHIPPED / "nano"


class TestDiffusers:
    def test_there_and_back_is_bit_equal(self, model, tmp_path):
        checkpoint.export_diffusers(model, tmp_path / "out")
        config = checkpoint.import_diffusers(tmp_path / "out", tmp_path / "back")
        assert config == checkpoint.load_config(model)
        for file in ("dit.safetensors", "codec.safetensors"):
            before, after = load_file(model / file), load_file(tmp_path / "back" / file)
            assert before.keys() == after.keys()
            assert all(torch.equal(before[k], after[k]) and before[k].dtype == after[k].dtype for k in before)

    def test_the_shipped_model_too(self, tmp_path):
        folder = checkpoint.find("nano")
        checkpoint.export_diffusers(folder, tmp_path / "out")
        checkpoint.import_diffusers(tmp_path / "out", tmp_path / "back")
        for file in ("dit.safetensors", "codec.safetensors"):
            before, after = load_file(folder / file), load_file(tmp_path / "back" / file)
            assert before.keys() == after.keys()
            assert all(torch.equal(before[k], after[k]) for k in before)

    def test_names_and_files_are_those_of_diffusers(self, model, tmp_path):
        checkpoint.export_diffusers(model, tmp_path / "out")
        weights = load_file(tmp_path / "out" / "transformer" / "diffusion_pytorch_model.safetensors")
        ours = load_file(model / "dit.safetensors")
        assert weights["patch_embedding.weight"].shape == (24, 8, 1, 1, 1)
        assert weights["transformer_blocks.0.ff.conv_temp.weight"].shape == (24, 24, 3, 1)
        for i, name in enumerate(("to_q", "to_k", "to_v", "to_gate")):
            part = ours["blocks.3.attention.qkvg.weight"][24 * i : 24 * (i + 1)]
            assert torch.equal(weights[f"transformer_blocks.3.attn1.{name}.weight"], part)
        for i, name in enumerate(("to_k", "to_v")):
            part = ours["blocks.3.cross_attention.kv.bias"][24 * i : 24 * (i + 1)]
            assert torch.equal(weights[f"transformer_blocks.3.attn2.{name}.bias"], part)
        assert torch.equal(weights["caption_projection.linear_1.weight"], ours["text.fc1.weight"])
        index = json.loads((tmp_path / "out" / "model_index.json").read_text())
        for part in ("transformer", "vae"):
            values = json.loads((tmp_path / "out" / part / "config.json").read_text())
            assert values["_class_name"] == index[part][1]
        assert (tmp_path / "out" / "scheduler" / "scheduler_config.json").is_file()

    @pytest.mark.parametrize("decode", ["causal", "chunk_tile"])
    def test_the_config_of_the_codec_reads_back(self, decode):
        codec = replace(two_b().codec, decode=decode)
        assert published_config(json.loads(json.dumps(vae_config(codec)))) == (codec, decode)

    def test_a_folder_that_does_not_fit_names_the_key(self, model, tmp_path):
        checkpoint.export_diffusers(model, tmp_path / "out")
        path = tmp_path / "out" / "transformer" / "diffusion_pytorch_model.safetensors"
        weights = load_file(path)
        for change, message in (
            ({"proj_out.bias": torch.zeros(9)}, r"'proj_out.bias' has shape \(9,\), expected \(4,\)"),
            ({"surplus": torch.zeros(1)}, "'surplus' is not part of this model"),
        ):
            write_tensors(path, weights | change)
            with pytest.raises(ValueError, match=message):
                checkpoint.import_diffusers(tmp_path / "out", tmp_path / "back")
        write_tensors(path, {k: v for k, v in weights.items() if k != "proj_out.bias"})
        with pytest.raises(ValueError, match=r"'proj_out.bias' is missing"):
            checkpoint.import_diffusers(tmp_path / "out", tmp_path / "back")
        assert not (tmp_path / "back").exists()

    def test_another_folder_is_refused(self, tmp_path):
        (tmp_path / "in").mkdir()
        with pytest.raises(ValueError, match=r"in: there is no config.json"):
            checkpoint.import_diffusers(tmp_path / "in", tmp_path / "out")

"""Released files of every kind become a model folder, or are refused in one line."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sana_streaming import checkpoint
from sana_streaming.checkpoint.names import DIFFUSERS, PUBLISHED, gather, scatter
from sana_streaming.config import two_b
from sana_streaming.model.dit import DiT

from .tiny_2b import published, published_codec, published_model, published_shapes, tiny_2b

VARIANTS = ("streaming", "bidirectional")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return published_model(tmp_path)


class TestNames:
    @pytest.mark.parametrize(
        ("variant", "parameters"), [("streaming", 2_259_529_648), ("bidirectional", 2_159_177_648)], ids=VARIANTS
    )
    def test_the_released_files_fit(self, variant, parameters):
        """Every name, shape and number of parameters, at full size."""
        shapes = published_shapes(two_b().dit, variant)
        assert len(shapes) == 586
        weights = {k: torch.empty(s, device="meta") for k, s in shapes.items()}
        assert sum(w.numel() for w in weights.values()) == parameters
        ours = checkpoint.from_published(weights, two_b().dit, variant)
        with torch.device("meta"):
            expected = DiT(two_b().dit).state_dict()
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in expected.items()}

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_where_each_number_goes(self, variant):
        """q, k, v and gate stand one below the other, q and k without the outer taps; temporal taps side by side."""
        weights = published(variant)
        ours = checkpoint.from_published(weights, tiny_2b().dit)
        for block in (0, 3):
            their = {k.removeprefix(f"blocks.{block}."): v for k, v in weights.items()}
            q, k = (their[f"attn.{n}.weight"] for n in "qk")
            q, k = (w if w.ndim == 2 else w[..., w.shape[-1] // 2] for w in (q, k))
            got = ours[f"blocks.{block}.attention.qkvg.weight"].chunk(4)
            for part, expected in zip(
                got, (q, k, their["attn.v.weight"], their["attn.output_gate.weight"]), strict=True
            ):
                assert torch.equal(part, expected)
            taps = ours[f"blocks.{block}.ffn.temporal.weight"].chunk(3, dim=1)
            for i, tap in enumerate(taps):
                assert torch.equal(tap, their["mlp.t_conv.weight"][:, :, i, 0])
        assert torch.equal(ours["blocks.1.attention.decay.weight"], weights["blocks.1.attn.gate_proj.weight"])

    def test_outer_taps_may_be_left_out(self):
        weights = published()
        expected = checkpoint.from_published(weights, tiny_2b().dit)
        weights |= {f"blocks.3.attn.{n}.weight": weights[f"blocks.3.attn.{n}.weight"][..., 1:2] for n in "qk"}
        got = checkpoint.from_published(weights, tiny_2b().dit)
        assert all(torch.equal(got[k], expected[k]) for k in expected)

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_every_key_that_does_not_fit_is_named(self, variant):
        weights = published(variant)
        for name in published_shapes(tiny_2b().dit, variant):
            lacking = {k: v for k, v in weights.items() if k != name}
            with pytest.raises(ValueError, match=rf"'{name}' is missing; expected shape \("):
                checkpoint.from_published(lacking, tiny_2b().dit, variant)
            longer = weights | {name: torch.zeros(99, *weights[name].shape[1:])}
            with pytest.raises(ValueError, match=rf"'{name}' has shape \(99,.* expected \("):
                checkpoint.from_published(longer, tiny_2b().dit, variant)

    @pytest.mark.parametrize("layout", [PUBLISHED, DIFFUSERS], ids=["published", "diffusers"])
    def test_there_and_back(self, layout):
        torch.manual_seed(0)
        ours = {k: torch.randn_like(v) for k, v in DiT(tiny_2b().dit).state_dict().items()}
        theirs = scatter(ours, layout)
        back = gather(theirs, ours, layout, "here")
        assert all(torch.equal(back[k], ours[k]) for k in ours)
        assert sum(v.numel() for v in theirs.values()) == sum(v.numel() for v in ours.values())


class TestPublished:
    @pytest.mark.parametrize(
        "wrap",
        [
            lambda w: w,
            lambda w: {"generator": w, "critic": {"x": torch.zeros(1)}, "step": 3},
            lambda w: {"state_dict": w, "epoch": 1},
            lambda w: {"generator": {"state_dict": w}},
            lambda w: {f"model.{k}": v for k, v in w.items()},
            lambda w: {f"module.{k}": v for k, v in w.items()},
            lambda w: {f"model.module.{k}": v for k, v in w.items()},
            lambda w: {"generator": {f"model.{k}": v for k, v in w.items()}},
            lambda w: w | {"extra": torch.zeros(2), "note": "text"},
            lambda w: {k: v for k, v in w.items() if k != "pos_embed"},
        ],
        ids=[
            "plain",
            "generator",
            "state_dict",
            "both",
            "model",
            "module",
            "twice",
            "generator-model",
            "extra",
            "fewer",
        ],
    )
    def test_every_container(self, tmp_path, wrap):
        torch.save(wrap(published()), tmp_path / "dit.pth")
        config = checkpoint.import_published(tmp_path / "dit.pth", tmp_path / "model", tiny_2b())
        assert config.name == "2b"
        self.assert_same(tmp_path / "model", published())

    @pytest.mark.parametrize("kind", ["zip", "early torch", "safetensors"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
    def test_every_file_and_precision(self, tmp_path, kind, dtype):
        weights = published("bidirectional", dtype)
        path = tmp_path / ("dit.safetensors" if kind == "safetensors" else "dit.pth")
        if kind == "safetensors":
            save_file(weights, path)
        else:
            torch.save(weights, path, _use_new_zipfile_serialization=kind == "zip")
        config = checkpoint.import_published(path, tmp_path / "model", tiny_2b())
        assert config.name == "2b-bidirectional"
        self.assert_same(tmp_path / "model", weights)

    def assert_same(self, folder: Path, weights: dict[str, Tensor]) -> None:
        expected = checkpoint.from_published(weights, tiny_2b().dit)
        got = load_file(folder / "dit.safetensors")
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[k], expected[k]) and got[k].dtype == expected[k].dtype for k in expected)

    def test_weights_that_share_their_memory(self, tmp_path):
        weights = published(dtype=torch.float32)
        flat = torch.cat([w.flatten() for w in weights.values()])
        views = flat.split([w.numel() for w in weights.values()])
        torch.save({k: v.view(w.shape) for (k, w), v in zip(weights.items(), views, strict=True)}, tmp_path / "dit.pth")
        checkpoint.import_published(tmp_path / "dit.pth", tmp_path / "model", tiny_2b())
        self.assert_same(tmp_path / "model", weights)

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_the_other_variant_is_refused(self, tmp_path, variant):
        other = next(v for v in VARIANTS if v != variant)
        torch.save(published(other), tmp_path / "dit.pth")
        with pytest.raises(ValueError, match=r"dit.pth: 'blocks.3.attn.q.weight' has shape"):
            checkpoint.import_published(tmp_path / "dit.pth", tmp_path / "model", tiny_2b(), variant=variant)
        assert not (tmp_path / "model").exists()

    def test_a_file_of_fewer_blocks_is_refused(self, tmp_path):
        few = {k: v for k, v in published().items() if not k.startswith("blocks.2.")}
        torch.save(few, tmp_path / "dit.pth")
        with pytest.raises(ValueError, match=r"dit.pth: 'blocks.2.scale_shift_table' is missing"):
            checkpoint.import_published(tmp_path / "dit.pth", tmp_path / "model", tiny_2b())

    @pytest.mark.parametrize("kept", [0, 1, 100, 0.5, -1], ids=str)
    @pytest.mark.parametrize("archive", [True, False], ids=["zip", "early torch"])
    def test_a_truncated_file_is_one_line(self, tmp_path, kept, archive):
        path = tmp_path / "dit.pth"
        torch.save(published(), path, _use_new_zipfile_serialization=archive)
        data = path.read_bytes()
        path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
        with pytest.raises(ValueError, match=r"dit.pth \(\d+ bytes\) is no whole file of weights") as error:
            checkpoint.import_published(path, tmp_path / "model", tiny_2b())
        assert "\n" not in str(error.value)
        assert not (tmp_path / "model").exists()

    def test_a_truncated_safetensors_file_is_one_line(self, tmp_path):
        path = tmp_path / "dit.safetensors"
        save_file(published(), path)
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(ValueError, match=r"dit.safetensors is not a whole safetensors file"):
            checkpoint.import_published(path, tmp_path / "model", tiny_2b())

    def test_a_file_that_would_run_something_is_refused(self, tmp_path):
        ran = tmp_path / "ran"

        class Harmful:
            def __reduce__(self):
                return (Path.touch, (ran,))

        torch.save({"generator": Harmful()}, tmp_path / "dit.pth")
        with pytest.raises(ValueError, match="is no whole file of weights alone"):
            checkpoint.import_published(tmp_path / "dit.pth", tmp_path / "model", tiny_2b())
        (tmp_path / "dit.pth").write_bytes(pickle.dumps(Harmful()))
        with pytest.raises(ValueError, match="is no whole file of weights alone"):
            checkpoint.import_published(tmp_path / "dit.pth", tmp_path / "model", tiny_2b())
        assert not ran.exists()

    def test_something_else_is_refused(self, tmp_path):
        torch.save([torch.zeros(1)], tmp_path / "dit.pth")
        with pytest.raises(ValueError, match="expected weights by name, got list"):
            checkpoint.import_published(tmp_path / "dit.pth", tmp_path / "model", tiny_2b())
        with pytest.raises(ValueError, match="expected a file of published weights"):
            checkpoint.import_published(tmp_path / "none.pth", tmp_path / "model", tiny_2b())
        with pytest.raises(ValueError, match="a variant of streaming or bidirectional, got 'live'"):
            checkpoint.from_published(published(), tiny_2b().dit, "live")

    def test_nothing_is_written_over(self, tmp_path, model):
        before = {p: p.read_bytes() for p in model.iterdir()}
        with pytest.raises(ValueError, match="new or an empty folder"):
            checkpoint.import_published(tmp_path / "dit.pth", model, tiny_2b())
        assert {p: p.read_bytes() for p in model.iterdir()} == before

    def test_a_folder_that_was_left_half_written_is_written_anew(self, tmp_path, monkeypatch):
        torch.save(published(), tmp_path / "dit.pth")
        vae = published_codec(tmp_path / "vae")

        def stop(tensors, path, metadata):
            if "codec" in path.name:
                path.write_bytes(b"half")
                raise KeyboardInterrupt
            save_file(tensors, path, metadata)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("sana_streaming.checkpoint.folder.save_file", stop)
            checkpoint.import_published(tmp_path / "dit.pth", tmp_path / "model", tiny_2b(), vae=vae)
        with pytest.raises(ValueError, match="unknown model"):
            checkpoint.find(tmp_path / "model")
        checkpoint.import_published(tmp_path / "dit.pth", tmp_path / "model", tiny_2b(), vae=vae)
        assert {p.suffix for p in (tmp_path / "model").iterdir()} == {".json", ".safetensors"}
        checkpoint.load(tmp_path / "model", torch.device("cpu"), torch.float32)

    def test_the_template_is_lines_of_the_published_config(self, tmp_path):
        path = tmp_path / "model.yaml"
        path.write_text('text_encoder:\n  y_norm: true\n  chi_prompt:\n    - "One: "\n    - two\n    - "3"\n')
        assert checkpoint.read_template(path) == "One: \ntwo\n3"

    @pytest.mark.parametrize(
        "text",
        ["", "text_encoder:", "text_encoder: {chi_prompt: text}", "text_encoder: {chi_prompt: [1]}", "a: [", "\0"],
    )
    def test_a_config_without_template_is_refused(self, tmp_path, text):
        path = tmp_path / "model.yaml"
        path.write_text(text)
        with pytest.raises(ValueError, match=r"model.yaml: expected text_encoder.chi_prompt, a list of lines"):
            checkpoint.read_template(path)

    def test_a_codec_of_other_latents_is_refused(self, tmp_path):
        torch.save(published(), tmp_path / "dit.pth")
        vae = published_codec(tmp_path / "vae")
        wider = replace(tiny_2b(), dit=replace(tiny_2b().dit, latent_channels=8))
        weights = {k: torch.zeros(s) for k, s in published_shapes(wider.dit, "streaming").items()}
        torch.save(weights, tmp_path / "wider.pth")
        with pytest.raises(ValueError, match="expected latents of 8 channels, got 4"):
            checkpoint.import_published(tmp_path / "wider.pth", tmp_path / "model", wider, vae=vae)

    def test_a_truncated_codec_is_one_line(self, tmp_path):
        torch.save(published(), tmp_path / "dit.pth")
        file = published_codec(tmp_path / "vae") / "diffusion_pytorch_model.safetensors"
        file.write_bytes(file.read_bytes()[:-10])
        with pytest.raises(ValueError, match=r"vae/diffusion_pytorch_model.safetensors cannot be read"):
            checkpoint.import_published(tmp_path / "dit.pth", tmp_path / "model", tiny_2b(), vae=tmp_path / "vae")
        assert not (tmp_path / "model").exists()

"""Model folders, the published files they are made of, and their form in diffusers' style."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sana_streaming import checkpoint
from sana_streaming.checkpoint.diffusers import vae_config
from sana_streaming.checkpoint.folder import read, write_tensors
from sana_streaming.checkpoint.names import DIFFUSERS, PUBLISHED, gather, scatter
from sana_streaming.codec import build_codec
from sana_streaming.codec.ltx2 import published_config
from sana_streaming.config import DiTConfig, nano, two_b
from sana_streaming.model.dit import DiT

from .tiny_2b import CAUSAL_VAE, tiny_2b

CPU = torch.device("cpu")
VARIANTS = ("streaming", "bidirectional")
VAE = CAUSAL_VAE | {"_class_name": "AutoencoderKLCausalLTX2Video"}


def published_shapes(config: DiTConfig, variant: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released files, without the buffers that nothing reads."""
    d, f, n, c, e = config.dim, config.ffn_dim, config.heads, config.latent_channels, config.text_dim
    top = {
        "x_embedder.proj": (d, 2 * c, 1, 1, 1),
        "t_embedder.mlp.0": (d, 256),
        "t_embedder.mlp.2": (d, d),
        "t_block.1": (6 * d, d),
        "y_embedder.y_proj.fc1": (d, e),
        "y_embedder.y_proj.fc2": (d, d),
        "final_layer.linear": (c, d),
    }
    with_bias = {
        "attn.output_gate": (d, d),
        "attn.proj": (d, d),
        "cross_attn.q_linear": (d, d),
        "cross_attn.kv_linear": (2 * d, d),
        "cross_attn.proj": (d, d),
        "mlp.inverted_conv.conv": (2 * f, d, 1, 1),
        "mlp.depth_conv.conv": (2 * f, 1, 3, 3),
    }
    shapes = both(top) | {"attention_y_norm.weight": (d,), "final_layer.scale_shift_table": (2, d)}
    for i in range(config.depth):
        softmax = i in config.softmax_blocks
        taps = ((3,) if variant == "streaming" else ()) if softmax else (1,)
        block = both(with_bias) | {
            "scale_shift_table": (6, d),
            "attn.q.weight": (d, d, *taps),
            "attn.k.weight": (d, d, *taps),
            "attn.v.weight": (d, d),
            "mlp.point_conv.conv.weight": (d, f, 1, 1),
            "mlp.t_conv.weight": (d, d, 3, 1),
        }
        block |= {f"{a}.{q}_norm.weight": (d,) for a in ("attn", "cross_attn") for q in "qk"}
        if not softmax:
            block |= both({"attn.beta_proj": (n, d), "attn.gate_proj": (n, d)})
            block |= {"attn.A_log": (n,), "attn.dt_bias": (n,)}
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return shapes


def both(weights: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {f"{k}.weight": v for k, v in weights.items()} | {f"{k}.bias": v[:1] for k, v in weights.items()}


def published(variant: str = "streaming", dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = published_shapes(tiny_2b().dit, variant)
    weights = {k: torch.randn(s, generator=generator).to(dtype) for k, s in shapes.items()}
    unused = {"pos_embed": torch.zeros(1, 5, 24), "y_embedder.y_embedding": torch.zeros(3, 6)}
    return weights | unused


def published_codec(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(VAE))
    torch.manual_seed(2)
    codec = build_codec(published_config(VAE)[0])
    write_tensors(folder / "diffusion_pytorch_model.safetensors", codec.state_dict())
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder, whole, made of published files."""
    torch.save(published(), tmp_path / "dit.pth")
    vae = published_codec(tmp_path / "vae")
    checkpoint.import_published(tmp_path / "dit.pth", tmp_path / "model", tiny_2b(), template="be brief: ", vae=vae)
    return tmp_path / "model"


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
        checkpoint.load(tmp_path / "model", CPU, torch.float32)

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

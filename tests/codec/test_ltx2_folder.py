"""The LTX-2 codec as it is published: configs, keys, folders."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sana_streaming.codec import build_codec
from sana_streaming.codec.ltx2 import fold_future, published_config, read_published
from sana_streaming.codec.ltx2.layers import Conv
from sana_streaming.config import CodecConfig, from_dict, to_dict, two_b
from sana_streaming.state import nbytes

from .ltx2_tiny import (
    GOLDEN,
    PUBLISHED,
    TINY,
    build,
    decode,
    error,
    scaled,
)


def test_every_key_and_shape_of_the_released_codec() -> None:
    with torch.device("meta"):
        codec = build_codec(two_b().codec)
    shapes = json.loads((GOLDEN / "ltx2_shapes.json").read_text())
    assert {k: list(v.shape) for k, v in codec.state_dict().items()} == shapes
    assert round(sum(p.numel() for p in codec.parameters()) / 1e5) == 12225


def test_state_of_the_released_codec_is_as_large_as_calculated() -> None:
    """At 1280x704 in bfloat16: 941 MB for the encoder, 595 MB for the decoder."""
    with torch.device("meta"):
        codec = build_codec(two_b().codec).to(torch.bfloat16)
        z, encoder = codec.encode(torch.empty(1, 3, 1, 704, 1280), codec.init_encoder(1))
        y, decoder = codec.decode(z, codec.init_decoder(1))
    assert z.shape == (1, 128, 1, 22, 40)
    assert y.shape == (1, 3, 1, 704, 1280)
    assert round(nbytes(encoder) / 1e6) == 941
    assert round(nbytes(decoder) / 1e6) == 595


CAUSAL_CLASS = {k: v for k, v in PUBLISHED.items() if k not in ("upsample_type", "spatial_compression_ratio")} | {
    "_class_name": "AutoencoderKLCausalLTX2Video",
    "decoder_upsample_type": None,
    "decoder_causal": True,
}


def test_configs_of_both_published_kinds() -> None:
    config, trained = published_config(PUBLISHED)
    assert (config.decode, trained) == ("chunk_tile", "chunk_tile")
    assert (config.widths, config.decoder_widths) == ((8, 8, 16, 32, 64), (4, 8, 16, 32))
    assert published_config(CAUSAL_CLASS) == (dataclasses.replace(config, decode="causal"), "causal")
    named = CAUSAL_CLASS | {"decoder_upsample_type": ["spatiotemporal"] * 3, "decoder_spatial_padding_mode": "zeros"}
    assert published_config(named)[0].decoder_padding == "zeros"
    silent = {k: v for k, v in CAUSAL_CLASS.items() if k != "decoder_causal"}
    assert published_config(silent)[1] == "causal"
    uneven = PUBLISHED | {"layers_per_block": [4, 3, 2, 1, 5], "decoder_layers_per_block": [1, 2, 3, 4]}
    assert published_config(uneven)[0].blocks == (4, 3, 2, 1, 5)
    assert published_config(uneven)[0].decoder_blocks == (1, 2, 3, 4)
    assert from_dict(CodecConfig, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"upsample_type": ["spatiotemporal", "temporal", "spatial"]}, "expected upsample_type"),
        ({"decoder_upsample_type": ["spatial", "temporal", "spatiotemporal"]}, "got .'spatiotemporal', 'temporal'"),
        ({"downsample_type": ["spatial"] * 4}, "expected downsample_type"),
        ({"timestep_conditioning": True}, "expected timestep_conditioning False, got True"),
        ({"scaling_factor": 0.5}, "expected scaling_factor"),
        ({"decoder_spatial_padding_mode": "replicate"}, "decoder_padding 'reflect' or 'zeros', got 'replicate'"),
        ({"block_out_channels": [8, 16]}, "expected 5 widths"),
    ],
)
def test_configs_of_other_codecs_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        published_config(PUBLISHED | change)


def test_an_incomplete_config_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks 'layers_per_block'"):
        published_config({k: v for k, v in PUBLISHED.items() if k != "layers_per_block"})


def write(folder: Path, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")


def test_published_folders(tmp_path: Path, weights: dict[str, Tensor], part: dict[str, Tensor]) -> None:
    write(tmp_path / "LTX-2" / "vae", PUBLISHED, weights)
    write(tmp_path / "causal", CAUSAL_CLASS, weights)
    for folder, way in (("LTX-2", "chunk_tile"), ("LTX-2/vae", "chunk_tile"), ("causal", "causal")):
        config, read = read_published(tmp_path / folder)
        assert config.decode == way
        got = decode(build(read, way), scaled(part["z"], weights))
        assert error(got[..., ::5, ::5], part[f"px_{way}"]) < 5e-6
    with pytest.raises(ValueError, match="trained causal"):
        read_published(tmp_path / "causal", decode="chunk_tile")
    folded = read_published(tmp_path / "LTX-2", decode="causal")
    assert folded[0].decode == "causal"
    assert all(torch.equal(v, folded[1][k]) for k, v in fold_future(weights).items())


def test_weights_that_do_not_fit_are_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    key = "decoder.mid_block.resnets.0.conv1.conv.bias"
    for changed, message in (
        ({k: v for k, v in weights.items() if k != key}, rf"'{key}' is missing; expected shape \(32,\)"),
        (weights | {key: torch.zeros(7)}, rf"'{key}' has shape \(7,\), expected \(32,\)"),
        (weights | {"decoder.extra": torch.zeros(1)}, r"'decoder.extra' is not part of this codec \(1 such keys\)"),
    ):
        write(tmp_path, PUBLISHED, changed)
        with pytest.raises(ValueError, match=message):
            read_published(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot be read"):
        read_published(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match=r"expected diffusion_pytorch_model.safetensors in it, or in a folder 'vae'"):
        read_published(tmp_path)


def test_folding_the_future_tap(weights: dict[str, Tensor]) -> None:
    """A folded convolution computes what the other one would if the next frame were like this one."""
    key = "decoder.mid_block.resnets.0.conv1.conv"
    sees, folded = (Conv(32, 32, causal=causal, padding="reflect") for causal in (False, True))
    for conv, values in ((sees, weights), (folded, fold_future(weights))):
        conv.conv.load_state_dict({name: values[f"{key}.{name}"] for name in ("weight", "bias")})
    x = torch.randn(1, 4, 3, 5, 32)
    got, _ = folded(x, None)
    for now in range(4):
        still = x[:, [max(now - 1, 0), now, now]]
        torch.testing.assert_close(got[:, now], sees(still, None)[0][:, 1], atol=1e-5, rtol=0)
    half = fold_future({k: v.bfloat16() for k, v in weights.items()})
    assert all(v.dtype == torch.bfloat16 for v in half.values())
    encoder = [k for k in weights if not k.startswith("decoder.")]
    assert all(torch.equal(half[k], weights[k].bfloat16()) for k in encoder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": 16}, "expected stride=32, got 16"),
        ({"widths": (8, 8)}, "expected 5 widths"),
        ({"decoder_blocks": ()}, "expected 4 decoder_blocks"),
        ({"decoder_widths": (4, 8, 16, 64)}, "decoder_widths that double"),
        ({"decode": "tiled"}, "expected decode 'causal' or 'chunk_tile', got 'tiled'"),
    ],
)
def test_bad_configs(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_codec(dataclasses.replace(TINY, **change))

"""The LTX-2 codec: parity with the published code, what holds for every codec, and published folders."""

import dataclasses
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sana_streaming.codec import build_codec
from sana_streaming.codec.ltx2 import CausalState, Ltx2Codec, fold_future, published_config, read_published
from sana_streaming.codec.ltx2.layers import Conv
from sana_streaming.config import CodecConfig, DiTConfig, from_dict, to_dict, two_b
from sana_streaming.diffusion.flow import Sampling
from sana_streaming.io import Frame
from sana_streaming.model.dit import DiT
from sana_streaming.state import nbytes, select, stack, tensors
from sana_streaming.stream.chunker import chunks
from sana_streaming.stream.road import edit_chunk, init_state

GOLDEN = Path(__file__).parents[1] / "golden"
PUBLISHED = json.loads((GOLDEN / "ltx2_tiny_config.json").read_text())
TINY, _ = published_config(PUBLISHED)
PARTITIONS = [(1, 1, 1, 1, 1, 1), (1, 3, 2), (4, 2), (3, 3), (5, 1)]
WAYS = ["causal", "chunk_tile"]


def error(got: Tensor, expected: Tensor) -> float:
    """Relative L2 distance."""
    assert got.shape == expected.shape
    return float((got.double() - expected.double()).norm() / expected.double().norm())


def build(weights: dict[str, Tensor], decode: str) -> Ltx2Codec:
    codec = build_codec(dataclasses.replace(TINY, decode=decode))
    assert isinstance(codec, Ltx2Codec)
    codec.load_state_dict(weights)
    return codec.eval().requires_grad_(False)


def encode(codec: Ltx2Codec, x: Tensor) -> Tensor:
    return codec.encode(x, codec.init_encoder(len(x)))[0]


def decode(codec: Ltx2Codec, z: Tensor, parts: tuple[int, ...] | None = None) -> Tensor:
    """All frames of the latents, given in parts."""
    state, out = codec.init_decoder(len(z)), []
    for part in z.split(list(parts or (z.shape[2],)), dim=2):
        y, state = codec.decode(part, state)
        out.append(y)
    rest = codec.flush(state)
    return torch.cat(out if rest is None else [*out, rest], dim=2)


def decode_whole(codec: Ltx2Codec, z: Tensor) -> Tensor:
    """One pass of the decoder, which sees all latents at once if it is not causal."""
    z = z * codec.latents_std[:, None, None, None] + codec.latents_mean[:, None, None, None]
    return codec.decoder(z, CausalState((None,) * len(codec.decoder.layers)))[0]


def scaled(raw: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Golden frames are of latents that are not scaled yet."""
    return (raw - weights["latents_mean"][:, None, None, None]) / weights["latents_std"][:, None, None, None]


def video(batch: int = 2, latents: int = 3, height: int = 64, width: int = 96) -> Tensor:
    return torch.rand(batch, 3, 8 * latents - 7, height, width) * 2 - 1


# On the numbers that lie beside the tests.


def drawn(seed: int, *shape: int) -> Tensor:
    """Numbers in [-1, 1) that are the same, to the bit, wherever and whenever they are drawn."""
    n = torch.arange(torch.Size(shape).numel()) + 1_000_000 * seed
    n = n * 2654435761 % 2**32
    for shift in (15, 13):
        n = (n ^ (n >> shift)) * 1103515245 % 2**32
    return ((n >> 8) / 2**23 - 1).reshape(shape)


def drawn_encoder() -> dict[str, Tensor]:
    shapes = {k: v.shape for k, v in Ltx2Codec(TINY).state_dict().items() if k.startswith("encoder.")}
    return {
        key: drawn(seed, *shape) * (0.1 if len(shape) == 1 else (3 / (shape[1] * 27)) ** 0.5)
        for seed, (key, shape) in enumerate(sorted(shapes.items()))
    }


@pytest.fixture(scope="module")
def part() -> dict[str, Tensor]:
    return load_file(GOLDEN / "ltx2_part.safetensors")


@pytest.fixture(scope="module")
def weights(part: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published decoder, drawn encoder."""
    return {k.removeprefix("weights."): v for k, v in part.items() if k.startswith("weights.")} | drawn_encoder()


@pytest.fixture(scope="module")
def codec(weights: dict[str, Tensor]) -> Ltx2Codec:
    return build(weights, "causal")


@pytest.fixture(scope="module")
def tiled(weights: dict[str, Tensor]) -> Ltx2Codec:
    return build(weights, "chunk_tile")


@pytest.mark.parametrize(("name", "amplitude"), [("drawn.z", 1.0), ("drawn.quiet.z", 2e-3)])
def test_encoder_gives_the_published_numbers(
    codec: Ltx2Codec, weights: dict[str, Tensor], part: dict[str, Tensor], name: str, amplitude: float
) -> None:
    got = encode(codec, drawn(1000, 1, 3, 17, 64, 96) * amplitude)
    assert error(got, scaled(part[name], weights)) < 5e-6


@pytest.mark.parametrize("name", ["", "quiet."])
def test_causal_decoder_gives_the_published_numbers(
    codec: Ltx2Codec, weights: dict[str, Tensor], part: dict[str, Tensor], name: str
) -> None:
    got = decode(codec, scaled(part[f"{name}z"], weights))
    assert error(got[..., ::5, ::5], part[f"{name}px_causal"]) < 5e-6


def test_decoder_with_a_future_gives_the_published_numbers(
    tiled: Ltx2Codec, weights: dict[str, Tensor], part: dict[str, Tensor]
) -> None:
    got = decode_whole(tiled, scaled(part["z"], weights))
    assert error(got[..., ::5, ::5], part["px_noncausal"]) < 5e-6


@pytest.mark.parametrize("name", ["", "tile3."])
def test_windows_give_the_published_numbers(
    tiled: Ltx2Codec, weights: dict[str, Tensor], part: dict[str, Tensor], name: str
) -> None:
    got = decode(tiled, scaled(part[f"{name}z"], weights))
    assert error(got[..., ::5, ::5], part[f"{name}px_chunk_tile"]) < 5e-6


# On the whole golden set.


@pytest.fixture(scope="module")
def data(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "vae" / "golden.safetensors") | load_file(golden / "vae" / "golden_more.safetensors")


@pytest.fixture(scope="module")
def published(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "vae" / "tiny_ltx2_vae.safetensors")


def test_published_numbers(data: dict[str, Tensor], published: dict[str, Tensor]) -> None:
    codec, tiled = build(published, "causal"), build(published, "chunk_tile")
    assert error(encode(codec, data["video_fp16"].float()), data["z_norm"]) < 5e-6
    assert error(encode(codec, data["quiet.video_fp16"].float()), scaled(data["quiet.z_mode"], published)) < 5e-6
    z, quiet = (scaled(data[name], published) for name in ("z_mode", "quiet.z_mode"))
    for parts in PARTITIONS:
        assert error(decode(codec, z, parts), data["px_causal_full"]) < 5e-6
        assert error(decode(tiled, z, parts), data["px_noncausal_chunk_tile"]) < 5e-6
    assert error(decode_whole(tiled, z), data["px_noncausal_full"]) < 5e-6
    assert error(decode(codec, quiet), data["quiet.px_causal"]) < 5e-6
    assert error(decode_whole(tiled, quiet), data["quiet.px_noncausal"]) < 5e-6
    for count in (2, 3, 4, 5):
        got = decode(tiled, scaled(data[f"tile{count}.z"], published))
        assert error(got, data[f"tile{count}.px_chunk_tile"]) < 5e-6


# What holds for every codec.


@pytest.mark.parametrize("parts", PARTITIONS, ids=str)
def test_encoding_in_chunks_equals_encoding_at_once(codec: Ltx2Codec, parts: tuple[int, ...]) -> None:
    x, state, latents = video(latents=6), codec.init_encoder(2), []
    for piece in x.split([codec.frames_of(n, first=i == 0) for i, n in enumerate(parts)], dim=2):
        z, state = codec.encode(piece, state)
        latents.append(z)
    torch.testing.assert_close(torch.cat(latents, dim=2), encode(codec, x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("parts", PARTITIONS, ids=str)
def test_decoding_in_chunks_equals_decoding_at_once(codec: Ltx2Codec, parts: tuple[int, ...]) -> None:
    z = torch.randn(2, 8, 6, 2, 3)
    torch.testing.assert_close(decode(codec, z, parts), decode_whole(codec, z), atol=1e-4, rtol=0)


@pytest.mark.parametrize("parts", PARTITIONS, ids=str)
def test_windows_do_not_depend_on_how_latents_come(tiled: Ltx2Codec, parts: tuple[int, ...]) -> None:
    z = torch.randn(2, 8, 6, 2, 3)
    assert torch.equal(decode(tiled, z, parts), decode(tiled, z))


def test_windows_give_frames_as_soon_as_they_can_be_told(tiled: Ltx2Codec) -> None:
    state, counts = tiled.init_decoder(1), []
    for z in torch.randn(1, 8, 7, 2, 2).split(1, dim=2):
        y, state = tiled.decode(z, state)
        counts.append(y.shape[2])
    rest = tiled.flush(state)
    assert rest is not None
    assert [*counts, rest.shape[2]] == [0, 0, 0, 9, 8, 8, 8, 16]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("latents", [1, 2, 3, 4])
def test_short_clips_lose_no_frame(weights: dict[str, Tensor], way: str, latents: int) -> None:
    codec = build(weights, way)
    x = video(1, latents)
    y = decode(codec, encode(codec, x))
    assert y.shape == x.shape
    assert y.dtype == torch.float32


def test_nothing_is_held_back_without_windows(codec: Ltx2Codec, tiled: Ltx2Codec) -> None:
    _, state = codec.decode(torch.randn(1, 8, 2, 2, 2), codec.init_decoder(1))
    assert codec.flush(state) is None
    assert tiled.flush(tiled.init_decoder(1)) is None


def test_future_never_changes_past_and_past_changes_future(codec: Ltx2Codec) -> None:
    x = video(1, 4)
    other = x.clone()
    other[:, :, 9:17] = -other[:, :, 9:17]  # the frames of the third latent
    a, b = encode(codec, x), encode(codec, other)
    torch.testing.assert_close(a[:, :, :2], b[:, :, :2], atol=1e-6, rtol=0)
    assert (a[:, :, 2:] - b[:, :, 2:]).abs().amax(dim=(0, 1, 3, 4)).min() > 1e-3
    z, other = a.clone(), a.clone()
    other[:, :, 2] = -other[:, :, 2]
    a, b = decode(codec, z), decode(codec, other)
    torch.testing.assert_close(a[:, :, :9], b[:, :, :9], atol=1e-5, rtol=0)
    assert (a[:, :, 9:] - b[:, :, 9:]).abs().amax(dim=(0, 1, 3, 4)).min() > 1e-3


@pytest.mark.parametrize("way", WAYS)
def test_a_preview_leaves_the_state_untouched(weights: dict[str, Tensor], way: str) -> None:
    codec = build(weights, way)
    _, encoder = codec.encode(video(), codec.init_encoder(2))
    _, decoder = codec.decode(torch.randn(2, 8, 5, 2, 3), codec.init_decoder(2))
    before = [t.clone() for t in tensors((encoder, decoder))]
    codec.encode(torch.rand(2, 3, 8, 64, 96), encoder)
    codec.decode(torch.randn(2, 8, 3, 2, 3), decoder)
    codec.flush(decoder)
    assert all(torch.equal(a, b) for a, b in zip(tensors((encoder, decoder)), before, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_state_does_not_grow_and_holds_its_own_memory(weights: dict[str, Tensor], way: str) -> None:
    """A state must not keep the features of a whole chunk alive."""
    codec = build(weights, way)
    encoder, decoder, sizes = codec.init_encoder(2), codec.init_decoder(2), set()
    for first, count in ((True, 5), (False, 1), (False, 3)):
        z, encoder = codec.encode(torch.rand(2, 3, codec.frames_of(count, first), 64, 96), encoder)
        _, decoder = codec.decode(z, decoder)
        sizes.add((nbytes(encoder), nbytes(decoder)))
        assert all(t.untyped_storage().nbytes() == t.nbytes for t in tensors((encoder, decoder)))
    assert len(sizes) == 1
    assert min(min(sizes)) > 0


@pytest.mark.parametrize("way", WAYS)
def test_streams_of_a_batch_are_independent(weights: dict[str, Tensor], way: str) -> None:
    codec = build(weights, way)
    x, z = video(latents=5), torch.randn(2, 8, 7, 2, 3)
    encoders = [codec.encode(row[None, :, :17], codec.init_encoder(1))[1] for row in x]
    decoders = [codec.decode(row[None, :, :4], codec.init_decoder(1))[1] for row in z]
    together, encoder = codec.encode(x[:, :, 17:25], stack(encoders))
    torch.testing.assert_close(together, encode(codec, x)[:, :, 3:4], atol=1e-5, rtol=0)
    alone, _ = codec.encode(x[1:, :, 25:], select(encoder, [1]))
    torch.testing.assert_close(alone, encode(codec, x)[1:, :, 4:], atol=1e-5, rtol=0)
    together, decoder = codec.decode(z[:, :, 4:6], stack(decoders))
    alone, _ = codec.decode(z[1:, :, 6:], select(decoder, [1]))
    begin = codec.decode(z[:, :, :4], codec.init_decoder(2))[0].shape[2]
    whole = decode(codec, z)[:, :, begin:]
    torch.testing.assert_close(together, whole[:, :, :16], atol=1e-4, rtol=0)
    torch.testing.assert_close(alone, whole[1:, :, 16:24], atol=1e-4, rtol=0)


def test_sessions_do_not_meet_in_the_codec(codec: Ltx2Codec) -> None:
    """Another stream, of another size, in the middle of one changes nothing."""
    x = video(1)
    z, state = codec.encode(x[:, :, :9], codec.init_encoder(1))
    encode(codec, video(1, height=96, width=64))
    rest, _ = codec.encode(x[:, :, 9:], state)
    torch.testing.assert_close(torch.cat([z, rest], dim=2), encode(codec, x), atol=1e-5, rtol=0)


def test_a_short_tail_is_filled_up_and_cut_back(codec: Ltx2Codec) -> None:
    """20 frames in chunks of 2 latents: 9, then 11 that are filled up to 16."""
    rgb = np.random.default_rng(0).integers(0, 256, (25, 64, 64, 3), dtype=np.uint8)
    encoder, decoder, out = codec.init_encoder(1), codec.init_decoder(1), []
    clip = [Frame(picture, Fraction(i, 24)) for i, picture in enumerate(rgb[:20])]
    for chunk in chunks(clip, lambda: codec.frames_of(2, first=not out)):
        x = chunk.tensor().permute(3, 0, 1, 2)[None] / 127.5 - 1
        z, encoder = codec.encode(x, encoder)
        y, decoder = codec.decode(z, decoder)
        out.append(y[:, :, : len(chunk.frames)])
    assert [len(y[0, 0]) for y in out] == [9, 11]
    longer = torch.from_numpy(rgb).permute(3, 0, 1, 2)[None] / 127.5 - 1
    whole = decode(codec, encode(codec, longer))
    torch.testing.assert_close(torch.cat(out, dim=2)[:, :, :17], whole[:, :, :17], atol=1e-4, rtol=0)


def test_it_fits_the_road_of_a_chunk(codec: Ltx2Codec) -> None:
    dit = DiT(DiTConfig(latent_channels=8, dim=24, depth=4, heads=2, text_dim=5, ffn_dim=16)).eval()
    text = dit.encode_text(torch.randn(1, 4, 5))
    state, generator = init_state(codec, dit, 1, 64, 96), torch.Generator().manual_seed(0)
    sampling = Sampling(levels=(1.0, 0.5), temperature=1.0, repeat_noise=False)
    with torch.inference_mode():
        for count, first in ((2, True), (1, False)):
            frames = torch.randint(0, 256, (1, codec.frames_of(count, first), 64, 96, 3), dtype=torch.uint8)
            edited, state = edit_chunk(codec, dit, frames, text, state, generator, sampling)
            assert edited.shape == frames.shape


def test_bfloat16_stays_near_float32(weights: dict[str, Tensor]) -> None:
    codec, x = build(weights, "causal"), video()
    z = encode(codec, x)
    y = decode(codec, z)
    half = build(weights, "causal").to(torch.bfloat16)
    assert torch.equal(half.latents_mean, weights["latents_mean"])
    assert torch.equal(half.latents_std, weights["latents_std"])
    z_half = encode(half, x)
    assert z_half.dtype == torch.bfloat16
    assert error(z_half, z) < 0.03
    y_half = decode(half, z.bfloat16())
    assert y_half.dtype == torch.float32
    assert error(y_half, y) < 0.03


def test_gradients_reach_latents_and_frames(weights: dict[str, Tensor]) -> None:
    """Training through the codec: the gradient of the first frame is of the first latent alone."""
    codec = build(weights, "causal")
    z = torch.randn(1, 8, 2, 2, 2, requires_grad=True)
    decode(codec, z)[:, :, 0].square().sum().backward()
    assert z.grad is not None
    assert z.grad[:, :, 0].abs().min() > 0
    assert not z.grad[:, :, 1].any()


def test_weights_are_laid_out_for_the_convolutions(weights: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        codec = Ltx2Codec(TINY)
    codec.load_state_dict(weights, assign=True)
    for p in codec.parameters():
        assert p.ndim == 1 or p.is_contiguous(memory_format=torch.channels_last_3d)


# Published folders.


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


# Bad input.


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 9, 80, 64), "multiples of 32, at least 64"),
        ((1, 3, 9, 32, 64), "multiples of 32, at least 64"),
        ((1, 4, 9, 64, 64), r"expected \[B, 3"),
        ((3, 9, 64, 64), r"expected \[B, 3"),
        ((1, 3, 8, 64, 64), "1 . a multiple of 8 of them at the start of a stream, got 8"),
        ((1, 3, 0, 64, 64), "1 . a multiple of 8"),
    ],
)
def test_bad_frames(codec: Ltx2Codec, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(codec, torch.zeros(shape))


@pytest.mark.parametrize("count", [0, 1, 9])
def test_bad_number_of_later_frames(codec: Ltx2Codec, count: int) -> None:
    _, state = codec.encode(torch.zeros(1, 3, 1, 64, 64), codec.init_encoder(1))
    with pytest.raises(ValueError, match=f"expected a multiple of 8 of them, got {count}"):
        codec.encode(torch.zeros(1, 3, count, 64, 64), state)


@pytest.mark.parametrize("shape", [(1, 5, 1, 2, 2), (8, 1, 2, 2), (1, 8, 0, 2, 2), (1, 8, 1, 1, 2)])
def test_bad_latents(codec: Ltx2Codec, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \[B, 8, T"):
        decode(codec, torch.zeros(shape))


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

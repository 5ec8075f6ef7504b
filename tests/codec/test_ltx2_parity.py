"""The LTX-2 codec gives the numbers of the published code."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from sana_streaming.codec.ltx2 import Ltx2Codec

from .ltx2_tiny import PARTITIONS, build, decode, decode_whole, drawn, encode, error, scaled


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

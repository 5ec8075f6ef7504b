import pytest
from safetensors.torch import load_file
from torch import Tensor

from sana_streaming.codec.ltx2 import Ltx2Codec

from .ltx2_tiny import GOLDEN, build, drawn_encoder


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

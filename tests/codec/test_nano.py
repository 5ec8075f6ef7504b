"""The nano codec: what holds for every codec, and what this one promises besides."""

import dataclasses

import pytest
import torch
from torch import Tensor

from sana_streaming.codec import build_codec
from sana_streaming.codec.nano import NanoCodec, spread_jumps
from sana_streaming.config import CodecConfig, nano
from sana_streaming.state import nbytes, select, stack, tensors

SMALL = dataclasses.replace(nano().codec, widths=(8, 12, 16), latent_channels=6)
PARTITIONS = [(4,), (1, 1, 1, 1), (2, 2), (1, 3), (3, 1)]


def lively(config: CodecConfig) -> NanoCodec:
    """A codec whose every weight matters, the per-frame differences included."""
    codec = NanoCodec(config).eval()
    with torch.no_grad():
        for p in codec.parameters():
            p.add_(torch.randn_like(p) * 0.1)
        codec.latents_mean.normal_()
        codec.latents_std.uniform_(0.5, 2.0)
    return codec.requires_grad_(False)


@pytest.fixture
def codec() -> NanoCodec:
    return lively(SMALL)


def frames(batch: int = 2, latents: int = 4, height: int = 48, width: int = 80) -> Tensor:
    return torch.rand(batch, 3, 4 * latents, height, width) * 2 - 1


def encode(codec: NanoCodec, x: Tensor) -> Tensor:
    return codec.encode(x, codec.init_encoder(len(x)))[0]


def decode(codec: NanoCodec, z: Tensor) -> Tensor:
    return codec.decode(z, codec.init_decoder(len(z)))[0]


@pytest.mark.parametrize(("height", "width"), [(48, 80), (16, 16), (64, 32)])
def test_shapes(codec: NanoCodec, height: int, width: int) -> None:
    x = frames(height=height, width=width)
    z = encode(codec, x)
    assert z.shape == (2, 6, 4, height // 16, width // 16)
    y = decode(codec, z)
    assert y.shape == x.shape
    assert y.dtype == torch.float32
    assert torch.isfinite(y).all()


def test_parameter_budget() -> None:
    codec = build_codec(nano().codec)
    assert isinstance(codec, NanoCodec)
    assert sum(p.numel() for p in codec.parameters()) < 3.85e6


@pytest.mark.parametrize("parts", PARTITIONS, ids=str)
def test_encoding_in_chunks_equals_encoding_at_once(codec: NanoCodec, parts: tuple[int, ...]) -> None:
    x = frames()
    state, latents = codec.init_encoder(2), []
    for part in x.split([codec.frames_of(n, first=i == 0) for i, n in enumerate(parts)], dim=2):
        z, state = codec.encode(part, state)
        latents.append(z)
    torch.testing.assert_close(torch.cat(latents, dim=2), encode(codec, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("parts", PARTITIONS, ids=str)
def test_decoding_in_chunks_equals_decoding_at_once(codec: NanoCodec, parts: tuple[int, ...]) -> None:
    z = torch.randn(2, 6, 4, 3, 5)
    state, out = codec.init_decoder(2), []
    for part in z.split(list(parts), dim=2):
        y, state = codec.decode(part, state)
        out.append(y)
    torch.testing.assert_close(torch.cat(out, dim=2), decode(codec, z), atol=1e-5, rtol=1e-5)


def test_future_never_changes_past_and_past_changes_future(codec: NanoCodec) -> None:
    x = frames()
    other = x.clone()
    other[:, :, 8:12] = -other[:, :, 8:12]
    a, b = encode(codec, x), encode(codec, other)
    torch.testing.assert_close(a[:, :, :2], b[:, :, :2], atol=1e-6, rtol=0)
    assert (a[:, :, 3] - b[:, :, 3]).abs().max() > 1e-3
    z, other = a.clone(), a.clone()
    other[:, :, 2] = -other[:, :, 2]
    a, b = decode(codec, z), decode(codec, other)
    torch.testing.assert_close(a[:, :, :8], b[:, :, :8], atol=1e-6, rtol=0)
    assert (a[:, :, 12:] - b[:, :, 12:]).abs().max() > 1e-3


def test_a_preview_leaves_the_state_untouched(codec: NanoCodec) -> None:
    _, state = codec.encode(frames(latents=1), codec.init_encoder(2))
    before = [t.clone() for t in tensors(state)]
    codec.encode(frames(latents=2), state)
    assert all(torch.equal(a, b) for a, b in zip(tensors(state), before, strict=True))


def test_state_does_not_grow(codec: NanoCodec) -> None:
    encoder, decoder = codec.init_encoder(2), codec.init_decoder(2)
    sizes = set()
    for n in (1, 3, 2):
        z, encoder = codec.encode(frames(latents=n), encoder)
        _, decoder = codec.decode(z, decoder)
        sizes.add((nbytes(encoder), nbytes(decoder)))
    assert len(sizes) == 1
    assert min(sizes)[0] > 0
    assert min(sizes)[1] > 0


def test_state_holds_its_own_memory(codec: NanoCodec) -> None:
    """A state must not keep the features of a whole chunk alive."""
    z, encoder = codec.encode(frames(latents=4), codec.init_encoder(2))
    _, decoder = codec.decode(z, codec.init_decoder(2))
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in tensors((encoder, decoder)))


def test_streams_of_a_batch_are_independent(codec: NanoCodec) -> None:
    x = frames()
    each = [codec.encode(row[None, :, :8], codec.init_encoder(1)) for row in x]
    together, state = codec.encode(x[:, :, 8:], stack([s for _, s in each]))
    whole = encode(codec, x)
    torch.testing.assert_close(together, whole[:, :, 2:], atol=1e-5, rtol=1e-5)
    alone, _ = codec.encode(x[1:, :, :4], select(state, [1]))
    both, _ = codec.encode(x[:, :, :4], state)
    torch.testing.assert_close(alone, both[1:], atol=1e-5, rtol=1e-5)


def test_a_still_start_is_steady(codec: NanoCodec) -> None:
    """Before a stream begins its first latent is taken to have always been: nothing settles in. (These weights move
    within a latent, so that the step back to the first frame is spread from the second latent on.)"""
    z = encode(codec, frames()[:, :, :1].expand(-1, -1, 16, -1, -1))
    torch.testing.assert_close(z, z[:, :, :1].expand_as(z), atol=1e-5, rtol=0)
    y = decode(codec, z)
    torch.testing.assert_close(y[:, :, 8:], y[:, :, 4:-4], atol=1e-5, rtol=0)


def test_small_steps_between_latents_are_spread_and_large_ones_pass() -> None:
    level = torch.tensor([0.0, 0.01, 0.01, 0.81])  # of four latents, each a still
    before = torch.zeros(1, 3, 2, 2)
    spread = spread_jumps(level[None, None, :, None, None, None].expand(1, 3, 4, 4, 2, 2), before)
    steps = spread.flatten(2, 3).diff(dim=2)[0, 0, :, 0, 0]
    torch.testing.assert_close(steps[3:7], torch.full((4,), 0.0025), atol=2e-4, rtol=0)  # 0.01 in four parts
    torch.testing.assert_close(steps[11], torch.tensor(0.8), atol=1e-5, rtol=0)  # motion, at once
    assert steps[[0, 1, 2, 7, 8, 9, 10, 12, 13, 14]].abs().max() < 1e-5


def test_a_stream_has_nothing_to_spread_at_first() -> None:
    frames = torch.randn(1, 3, 1, 4, 2, 2) * 0.01
    assert torch.equal(spread_jumps(frames, None), frames)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_fresh_decoder_gives_stills(dtype: torch.dtype) -> None:
    codec = NanoCodec(SMALL).to(dtype)
    y = decode(codec, torch.randn(1, 6, 1, 3, 5))
    assert torch.equal(y, y[:, :, :1].expand_as(y))


def test_bfloat16_stays_near_float32(codec: NanoCodec) -> None:
    x = frames()
    z, y = encode(codec, x), decode(codec, encode(codec, x))
    mean, std = codec.latents_mean.clone(), codec.latents_std.clone()
    half = codec.to(torch.bfloat16)
    assert torch.equal(half.latents_mean, mean)
    assert torch.equal(half.latents_std, std)
    z_half = encode(half, x)
    assert z_half.dtype == torch.bfloat16
    assert (z_half.float() - z).norm() / z.norm() < 0.03
    assert (decode(half, z_half) - y).norm() / y.norm() < 0.03


def test_latents_are_scaled_by_the_statistics(codec: NanoCodec) -> None:
    x = frames()
    z = encode(codec, x)
    raw = z * codec.latents_std[:, None, None, None] + codec.latents_mean[:, None, None, None]
    y = decode(codec, z)
    torch.testing.assert_close(y, codec.decoder(raw, codec.init_decoder(2))[0], atol=1e-5, rtol=1e-5)
    codec.latents_mean.zero_()
    codec.latents_std.fill_(1)
    torch.testing.assert_close(encode(codec, x), raw, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 4, 40, 32), "multiples of 16"),
        ((1, 4, 4, 32, 32), r"expected \[B, 3"),
        ((3, 4, 32, 32), r"expected \[B, 3"),
        ((1, 3, 6, 32, 32), "multiple of 4"),
        ((1, 3, 0, 32, 32), "multiple of 4"),
    ],
)
def test_bad_frames(codec: NanoCodec, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(codec, torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 5, 1, 2, 2), (6, 1, 2, 2), (1, 6, 0, 2, 2)])
def test_bad_latents(codec: NanoCodec, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \[B, 6, T"):
        decode(codec, torch.zeros(shape))


def test_bad_configs() -> None:
    with pytest.raises(ValueError, match="codec kind"):
        build_codec(dataclasses.replace(SMALL, kind="mpeg"))
    with pytest.raises(ValueError, match="stride"):
        build_codec(dataclasses.replace(SMALL, stride=8))
    with pytest.raises(ValueError, match="widths"):
        build_codec(dataclasses.replace(SMALL, widths=(8, 12)))
    with pytest.raises(ValueError, match="first_latent_frames"):
        build_codec(dataclasses.replace(SMALL, first_latent_frames=1))

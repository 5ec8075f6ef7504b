"""What holds for every codec, for the LTX-2 codec."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from sana_streaming.codec.ltx2 import Ltx2Codec
from sana_streaming.config import DiTConfig
from sana_streaming.diffusion.flow import Sampling
from sana_streaming.io import Frame
from sana_streaming.model.dit import DiT
from sana_streaming.state import nbytes, select, stack, tensors
from sana_streaming.stream.chunker import chunks
from sana_streaming.stream.road import edit_chunk, init_state

from .ltx2_tiny import PARTITIONS, TINY, WAYS, build, decode, decode_whole, encode, error, video


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

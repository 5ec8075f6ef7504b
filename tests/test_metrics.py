"""PSNR of errors that are known."""

import torch

from sana_streaming.metrics import psnr

GREY = torch.full((2, 3, 4, 4, 3), 100, dtype=torch.uint8)


def test_psnr_of_a_known_error() -> None:
    torch.testing.assert_close(psnr(GREY, GREY + 10), torch.full((2,), 28.1308), atol=1e-3, rtol=0)


def test_equal_videos_have_a_number() -> None:
    torch.testing.assert_close(psnr(GREY, GREY), torch.full((2,), 68.1308), atol=1e-3, rtol=0)


def test_only_weighted_pixels_count() -> None:
    other = GREY.clone()
    other[:, :, :2] += 10
    weight = torch.zeros(2, 3, 4, 4)
    weight[:, :, :2] = 0.5
    torch.testing.assert_close(psnr(GREY, other, weight), torch.full((2,), 28.1308), atol=1e-3, rtol=0)
    assert (psnr(GREY, other, 1 - 2 * weight) > 68).all()
    half = psnr(GREY, other, torch.ones_like(weight))
    torch.testing.assert_close(half, psnr(GREY, other))


def test_no_pixel_is_no_number() -> None:
    weight = torch.zeros(2, 3, 4, 4)
    weight[0] = 1
    assert psnr(GREY, GREY + 10, weight).isnan().tolist() == [False, True]

"""Who and what photographs are of."""

import numpy as np
import pytest

from sana_streaming.data.people import PHOTOS
from sana_streaming.data.subjects import cut_out, drawn_over, found_again, has_subject, subjects

cv2 = pytest.importorskip("cv2")


def test_a_photograph_is_in_one_list_at_most():
    found, rest = subjects()
    assert rest.isdisjoint(found)
    assert len(found) > 80
    assert all(map(has_subject, PHOTOS))  # those that people and animals are cut out of
    assert not has_subject("380_forest_panorama_view")


@pytest.mark.parametrize("size", [(120, 160), (160, 120)])
def test_the_subject_is_what_differs_from_the_edges(size: tuple[int, int]):
    rng = np.random.default_rng(0)
    height, width = size
    picture = cv2.resize(rng.integers(60, 120, (6, 8, 3), dtype=np.uint8), (width, height))
    truth = np.zeros(size, np.uint8)
    cv2.circle(truth, (width // 2 + 10, height // 2), 35, 1, -1)
    picture[truth > 0] = (30, 40, 230)
    cv2.circle(picture, (width // 2 + 20, height // 2), 3, (80, 80, 80), -1)  # an eye, of the background's colour
    mask = cut_out(picture)
    assert mask.shape == size
    assert 0 <= mask.min() <= mask.max() <= 1
    assert ((mask > 0.5) == (truth > 0)).mean() > 0.97
    assert mask[height // 2, width // 2 + 20] > 0.5
    np.testing.assert_array_equal(mask, cut_out(picture))


def test_what_is_drawn_over_is_like_what_is_around():
    picture = np.broadcast_to(np.linspace(40, 200, 160, dtype=np.float32)[:, None], (120, 160, 3)).astype(np.uint8)
    mask = np.zeros((120, 160), np.float32)
    cv2.circle(mask, (80, 60), 30, 1.0, -1)
    spoilt = np.where(mask[..., None] > 0, np.array([0, 0, 255], np.uint8), picture)
    plate = drawn_over(spoilt, mask)
    far = cv2.dilate(mask, np.ones((15, 15))) == 0
    np.testing.assert_array_equal(plate[far], picture[far])
    assert np.abs(plate.astype(int) - picture).max() < 40
    assert np.abs(plate.astype(int) - picture)[mask > 0].mean() < 15
    assert drawn_over(picture, np.ones_like(mask)).shape == picture.shape  # nothing is known


@pytest.mark.parametrize("wide", [False, True])
def test_a_cut_out_is_found_again_where_it_was_cut_out(wide: bool):
    rng = np.random.default_rng(1)
    picture = cv2.resize(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
    alpha = np.zeros((480, 640), np.uint8)
    cv2.ellipse(alpha, (400, 200), (180, 90) if wide else (80, 130), 20, 0, 360, 255, -1)
    box = picture[60:340, 200:600], alpha[60:340, 200:600, None]
    cutout = cv2.resize(np.concatenate(box, 2), (128, 90), interpolation=cv2.INTER_AREA)
    there = found_again(picture, np.pad(cutout, ((19, 19), (0, 0), (0, 0))))
    assert there is not None
    assert there.shape == alpha.shape
    both, either = ((there > 0.5) & (alpha > 0)).sum(), ((there > 0.5) | (alpha > 0)).sum()
    assert both / either > 0.95


def test_what_is_not_in_a_photograph_is_not_found():
    rng = np.random.default_rng(2)
    picture, other = (cv2.resize(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8), (320, 240)) for _ in range(2))
    cutout = np.concatenate([other, np.full((240, 320, 1), 255, np.uint8)], 2)
    assert found_again(picture, cutout[60:180, 80:240]) is None
    assert found_again(picture, np.zeros((20, 20, 4), np.uint8)) is None
    assert found_again(picture, np.full((20, 20, 4), 128, np.uint8)) is None  # glass

"""Who and what photographs are of."""

import numpy as np
import pytest

from sana_streaming.data.people import PHOTOS
from sana_streaming.data.subjects import cut_out, drawn_over, has_subject, subjects

cv2 = pytest.importorskip("cv2")


def test_a_photograph_is_in_one_list_at_most():
    found, rest = subjects()
    assert rest.isdisjoint(found)
    assert len(found) > 50
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

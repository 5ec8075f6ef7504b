"""Who and what photographs are of."""

import numpy as np
import pytest

from sana_streaming.data.people import PHOTOS
from sana_streaming.data.subjects import cut_out, has_subject, subjects

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

"""Who and what photographs are of."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sana_streaming.data.pack import FILM, FILM_RATE, FILM_SECONDS, HELD_OUT_CLIPS
from sana_streaming.data.people import PHOTOS
from sana_streaming.data.subjects import ACT_FRAMES, drawn_over, has_subject, load_matting, subjects

cv2 = pytest.importorskip("cv2")


def test_a_photograph_is_in_one_list_at_most():
    assert subjects().others.isdisjoint(subjects().masked)
    assert len(subjects().masked) > 100
    assert all(map(has_subject, PHOTOS))  # those that people and animals are cut out of
    assert not has_subject("380_forest_panorama_view")


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


class FakeNetwork:
    """In place of onnxruntime's session: what is bright stands out."""

    side = 1024

    def __init__(self, file: str):
        self.given = SimpleNamespace(name="input", shape=[1, 3, self.side, self.side])

    def get_inputs(self) -> list[SimpleNamespace]:
        return [self.given]

    def run(self, names: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert feed["input"].shape == (1, 3, self.side, self.side)
        assert feed["input"].dtype == np.float32
        return [feed["input"][:, :1] + 0.5]


def test_a_mask_is_as_large_as_its_picture_and_is_sure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=FakeNetwork))
    (tmp_path / "isnet.onnx").touch()
    picture = np.full((90, 160, 3), (255, 255, 20), np.uint8)  # blue, green, red
    picture[20:60, 50:100, 2] = 230
    picture[70:, :, 2] = 128
    mask = load_matting(tmp_path / "isnet.onnx")(picture)
    assert mask.shape == (90, 160)
    assert mask.min() == 0
    assert mask[25:55, 55:95].min() == 1
    assert mask[:15].max() == 0
    assert mask[75:].mean() == pytest.approx(0.5, abs=0.02)


def test_what_is_no_matting_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"expected the ONNX file of ISNet, got .*none.onnx"):
        load_matting(tmp_path / "none.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=FakeNetwork))
    monkeypatch.setattr(FakeNetwork, "side", 320)
    (tmp_path / "other.onnx").touch()
    with pytest.raises(ValueError, match=r"expected a network of pictures \[1, 3, 1024, 1024\], got .*320"):
        load_matting(tmp_path / "other.onnx")


def test_parts_of_clips_are_none_that_are_held_out():
    for clip, first in subjects().acts:
        assert clip not in HELD_OUT_CLIPS
        if clip == Path(FILM).stem:
            start, end = FILM_SECONDS["train"]
            assert start <= first / FILM_RATE
            assert (first + ACT_FRAMES) / FILM_RATE <= end
            assert not 381.2 - ACT_FRAMES / FILM_RATE < first / FILM_RATE < 390.62  # bbb_bird_tree

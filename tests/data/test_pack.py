import json
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")

from sana_streaming.data.bank import load_bank  # noqa: E402
from sana_streaming.data.pack import encode, pack, split_of  # noqa: E402
from sana_streaming.data.people import largest_piece  # noqa: E402


def test_split_is_stable():
    """These values are part of what a published validation score means."""
    names = [f"name {i}" for i in range(1000)]
    held_out = [name for name in names if split_of(name) == "val"]
    assert held_out[:4] == ["name 16", "name 25", "name 43", "name 47"]
    assert 70 < len(held_out) < 130


def test_photos_without_a_clear_licence_are_left_out(packed: Path):
    files = {Path(row["file"]).stem for row in json.loads((packed / "index.json").read_text())["photos"]}
    assert "000_photo" not in files
    assert "001_photo" not in files
    assert "002_photo" in files
    assert not (packed / "photos" / "000_photo.webp").exists()


def test_all_styles_of_a_name_are_in_one_split(packed: Path):
    splits: dict[str, set[str]] = {}
    for row in json.loads((packed / "index.json").read_text())["sprites"]:
        splits.setdefault(row["name"], set()).add(row["split"])
    assert len(splits) == 18
    assert all(len(found) == 1 for found in splits.values())


def test_held_out_clips_are_for_validation(packed: Path):
    clips = json.loads((packed / "index.json").read_text())["clips"]
    splits = {"videos/street.mp4": "train", "videos/hand_box.mp4": "val", "videos/webcam_talk_b.mp4": "train"}
    assert {row["file"]: row["split"] for row in clips} == splits
    assert [row["file"] for row in clips if row.get("mask")] == ["videos/webcam_talk_b.mp4"]


def test_a_pack_needs_no_segmenter(assets: Path, tmp_path: Path):
    index = pack(assets, tmp_path / "out")
    assert index["people"] == []
    assert not any("mask" in row for row in index["clips"])
    assert not load_bank(tmp_path / "out", "train", threads=2).talks


def test_only_the_largest_piece_of_a_mask_is_a_person():
    mask = np.zeros((40, 60), np.float32)
    mask[5:30, 10:30], mask[32:38, 50:56] = 1, 1
    kept = largest_piece(mask)
    assert kept[10:25, 15:25].min() == 1
    assert kept[32:38, 50:56].max() == 0
    assert not largest_piece(np.zeros_like(mask)).any()


def test_what_is_encoded_again_ends_where_it_should(assets: Path, tmp_path: Path):
    pytest.importorskip("av")
    encode(assets / "videos" / "street.mp4", tmp_path / "short.mp4", 30, end=0.5)
    capture = cv2.VideoCapture(str(tmp_path / "short.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    assert capture.get(cv2.CAP_PROP_FPS) == 24


def test_a_folder_without_assets_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="expected a folder with photos/"):
        pack(tmp_path, tmp_path / "out")

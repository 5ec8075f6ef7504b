import json
from pathlib import Path

import pytest

from sana_streaming.data.pack import pack, split_of


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
    assert len(splits) == 15
    assert all(len(found) == 1 for found in splits.values())


def test_held_out_clips_are_for_validation(packed: Path):
    clips = json.loads((packed / "index.json").read_text())["clips"]
    assert {row["file"]: row["split"] for row in clips} == {"videos/street.mp4": "train", "videos/hand_box.mp4": "val"}


def test_a_folder_without_assets_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="expected a folder with photos/"):
        pack(tmp_path, tmp_path / "out")

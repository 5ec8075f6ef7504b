"""A tiny pack made of random smooth pictures, discs and three short clips, so that no test needs the real assets."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")

from sana_streaming.data.bank import Bank, load_bank  # noqa: E402
from sana_streaming.data.pack import pack  # noqa: E402
from sana_streaming.data.subjects import subjects  # noqa: E402

PHOTOS = 24
PLACE = "274_sunset"
HERON = "016_heron"  # a photo whose mask is known, and that can be drawn over
SUBJECTS = {HERON: (20, 20, 240), "028_rhinoceros": (240, 20, 20)}  # what they are of: here discs, blue, green, red
SHOWN = ("basketball", 20)  # a part of a clip, by its first frame
VOCABULARY = {"render3d_cat": "cat", "render3d_dog": "dog", "fluent3d_banana": "banana"}
COLOURS = {"red": (40, 40, 230), "green": (40, 200, 40), "blue": (230, 40, 40)}  # blue, green, red


def smooth_picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def moving_frames() -> np.ndarray:
    """A picture that slides to the right, uint8 [9, 90, 160, 3]."""
    return np.stack(moving_clip(smooth_picture(np.random.default_rng(1), 90, 160), 9))


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def write_clip(path: Path, frames: list[np.ndarray]) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 24, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()


def moving_clip(picture: np.ndarray, frames: int) -> list[np.ndarray]:
    return [np.ascontiguousarray(np.roll(picture, t, axis=1)) for t in range(frames)]


def fake_segmenter(picture: np.ndarray) -> np.ndarray:
    """A person like an egg on the lower edge."""
    mask = np.zeros(picture.shape[:2], np.float32)
    h, w = mask.shape
    return np.asarray(cv2.ellipse(mask, (w // 2, h), (w // 4, 2 * h // 3), 0, 0, 360, 1.0, -1))


def fake_matting(picture: np.ndarray) -> np.ndarray:
    """A disc, where the photos of something have theirs."""
    h, w = picture.shape[:2]
    return np.asarray(cv2.circle(np.zeros((h, w), np.float32), (70 * w // 150, 55 * h // 100), 28 * h // 100, 1.0, -1))


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("assets")
    rng = np.random.default_rng(0)
    for folder in ("photos", "sprites", "videos"):
        (root / folder).mkdir()
    photos = []
    for i in range(PHOTOS):
        size = (96, 150) if i % 2 else (128, 100)
        cv2.imwrite(str(root / "photos" / f"{i:03}_photo.jpg"), smooth_picture(rng, *size))
        kind = "unclear" if i == 0 else "unsplash-in-MIT-package" if i == 1 else "permissive"
        photos.append({"file": f"{i:03}_photo.jpg", "licence": "CC0-1.0", "credit": "nobody", "licence_class": kind})
    for name in (PLACE, *SUBJECTS):
        picture = smooth_picture(rng, 100, 150)
        if name in SUBJECTS:
            picture = cv2.circle(picture // 4 + 60, (70, 55), 28, SUBJECTS[name], -1)
        cv2.imwrite(str(root / "photos" / f"{name}.jpg"), picture)
        photos.append({"file": f"{name}.jpg", "licence": "CC0-1.0", "credit": "nobody", "licence_class": "permissive"})
    write_csv(root / "photos" / "licences.csv", photos)
    sprites = []
    names = {f"disc_{i}": f"disc{i // 2}" for i in range(30)} | VOCABULARY
    for i, (stem, name) in enumerate(names.items()):
        colour = list(COLOURS)[i % 3]
        stamp = np.zeros((128, 128, 4), np.uint8)
        cv2.circle(stamp, (64, 64), 50, (*COLOURS[colour], 255), -1)
        cv2.imwrite(str(root / "sprites" / f"{stem}.png"), stamp)
        row = {"file": f"{stem}.png", "name": name, "licence": "CC0-1.0", "main_colour": colour, "category": "objects"}
        sprites.append(row)
    write_csv(root / "sprites" / "names.csv", sprites)
    first, second = smooth_picture(rng, 96, 128), 255 - smooth_picture(rng, 96, 128) // 4
    write_clip(root / "videos" / "street.mp4", moving_clip(first, 10) + moving_clip(second, 8))
    write_clip(root / "videos" / "hand_box.mp4", moving_clip(second, 12))
    write_clip(root / "videos" / "webcam_talk_b.mp4", moving_clip(smooth_picture(rng, 96, 128), 18))
    blank = {"start_s": 0, "duration_s": 1}
    write_clip(root / "videos" / "basketball.mp4", moving_clip(smooth_picture(rng, 96, 128), 60))
    clips = ("street.mp4", "hand_box.mp4", "webcam_talk_b.mp4", "basketball.mp4")
    write_csv(root / "videos" / "licences.csv", [{"file": name, "credit": "nobody", **blank} for name in clips])
    return root


@pytest.fixture(scope="session")
def packed(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pack")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sana_streaming.data.pack.subjects", lambda: dataclasses.replace(subjects(), acts=(SHOWN,)))
        pack(assets, out, fake_segmenter, fake_matting)
    return out


@pytest.fixture
def packed_with_film(packed: Path, tmp_path: Path) -> Path:
    """The pack and a film of three seconds, of which one second and a half is for training and one for validation."""
    out = shutil.copytree(packed, tmp_path / "pack")
    write_clip(out / "videos" / "film.mp4", moving_clip(smooth_picture(np.random.default_rng(2), 64, 96), 72))
    index = json.loads((out / "index.json").read_text())
    spans = {"train": [[0.0, 1.0], [1.5, 2.0]], "val": [[2.0, 3.0]]}
    index["film"] = {"file": "videos/film.mp4", "credit": "nobody", "seconds": spans}
    (out / "index.json").write_text(json.dumps(index))
    return out


@pytest.fixture(scope="session")
def bank(packed: Path) -> Bank:
    return load_bank(packed, "train", threads=2)

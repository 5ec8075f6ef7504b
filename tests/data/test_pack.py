import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")

from sana_streaming.data.bank import load_bank  # noqa: E402
from sana_streaming.data.icons import draw, pack_icons  # noqa: E402
from sana_streaming.data.pack import encode, main, pack, pack_photos, split_of  # noqa: E402
from sana_streaming.data.people import largest_piece  # noqa: E402
from sana_streaming.data.subjects import ACT_FRAMES  # noqa: E402
from sana_streaming.data.views import VIEWS, angles, corner, pack_views, unpack, views  # noqa: E402
from tests.data.conftest import HERON, write_csv  # noqa: E402


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
    splits = {"street": "train", "hand_box": "val", "webcam_talk_b": "train", "basketball": "train"}
    assert {Path(row["file"]).stem: row["split"] for row in clips} == splits | {"basketball_20": "train"}
    assert [Path(row["file"]).stem for row in clips if row.get("mask")] == ["webcam_talk_b", "basketball_20"]


def test_a_pack_needs_no_networks(assets: Path, tmp_path: Path):
    index = pack(assets, tmp_path / "out")
    assert index["people"] == []
    assert not any("mask" in row for row in index["clips"])
    assert not any("mask" in row for row in index["photos"])
    bank = load_bank(tmp_path / "out", "train", threads=2)
    assert not bank.talks
    assert not bank.acts
    assert not bank.masked_photos
    assert len(bank.bare_photos) == len(bank.photos) - 2  # they are of something all the same


def test_parts_of_clips_have_masks_frame_by_frame(packed: Path):
    (act,) = (row for row in json.loads((packed / "index.json").read_text())["clips"] if "_20" in row["file"])
    assert act["file"] == "videos/basketball_20.mp4"
    assert act["split"] == "train"
    assert act["subject"]
    capture = cv2.VideoCapture(str(packed / act["file"]))
    frames = []
    while (frame := capture.read()[1]) is not None:
        frames.append(frame)
    assert len(frames) == ACT_FRAMES
    whole = cv2.VideoCapture(str(packed / "videos" / "basketball.mp4"))
    whole.set(cv2.CAP_PROP_POS_FRAMES, 20)
    assert np.abs(frames[0].astype(int) - whole.read()[1]).mean() < 6


def test_masks_fit_photographs_whose_ends_are_cut_off(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    photo = np.zeros((160, 400, 3), np.uint8)
    photo[40:120, 200:260] = 255
    cv2.imwrite(str(tmp_path / "photos" / f"{HERON}.png"), photo)
    row = {"file": f"{HERON}.png", "licence": "CC0-1.0", "credit": "nobody", "licence_class": "permissive"}
    write_csv(tmp_path / "photos" / "licences.csv", [row])
    bright = lambda picture: picture[..., 0] / np.float32(255)  # noqa: E731
    (packed,) = pack_photos(tmp_path / "photos", tmp_path / "out", set(), bright)
    mask, seen = (
        cv2.imread(str(tmp_path / "out" / packed[kind]), cv2.IMREAD_GRAYSCALE).astype(int) for kind in ("mask", "file")
    )
    assert mask.shape == (160, 256)
    assert np.abs(mask - seen).mean() < 3
    assert mask.mean() > 20


def test_only_the_largest_piece_of_a_mask_is_a_person():
    mask = np.zeros((40, 60), np.float32)
    mask[5:30, 10:30], mask[32:38, 50:56] = 1, 1
    kept = largest_piece(mask)
    assert kept[10:25, 15:25].min() == 1
    assert kept[32:38, 50:56].max() == 0
    assert not largest_piece(np.zeros_like(mask)).any()


def test_what_is_encoded_again_ends_where_it_should(assets: Path, tmp_path: Path):
    pytest.importorskip("av")
    encode(assets / "videos" / "street.mp4", tmp_path / "short.mp4", 30, end=12)
    capture = cv2.VideoCapture(str(tmp_path / "short.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    assert capture.get(cv2.CAP_PROP_FPS) == 24


def test_a_folder_without_assets_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="expected a folder with photos/"):
        pack(tmp_path, tmp_path / "out")


def test_a_network_that_is_not_there_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    command = ["pack", str(tmp_path), str(tmp_path / "out"), "--matting", str(tmp_path / "none.onnx")]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"expected the ONNX file of ISNet, got {command[-1]}")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def icons(tmp_path: Path) -> Path:
    """A set of one drawing under many names."""
    names = ["red-apple", "two-hump-camel", "star", "waving-hand", "flag-france", *(f"name-{i}" for i in range(30))]
    body = '<circle cx="5" cy="5" r="3" fill="red"/>'
    icons = {"prefix": "made-up", "icons": {name: {"body": body} for name in names}, "width": 10, "height": 10}
    categories = {"Objects": [name for name in names if name != "flag-france"], "Flags": ["flag-france"]}
    info = {"name": "Made up", "license": {"spdx": "CC0-1.0"}}
    folder = tmp_path / "icons"
    folder.mkdir()
    for name, value in {"icons": icons, "metadata": {"categories": categories}, "info": info}.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def test_icons_are_for_training_and_never_of_a_name_that_is_held_out(
    icons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    picture = np.full((128, 128, 4), 255, np.uint8)
    monkeypatch.setattr("sana_streaming.data.icons.draw", lambda document: picture if "circle" in document else None)
    rows = pack_icons([icons], tmp_path, split_of, {"Two-hump camel"})
    names = {row["name"] for row in rows}
    assert {"red apple", "star", "name 1"} <= names
    assert not names & {"two hump camel", "waving hand", "flag france", "name 16", "name 25"}
    assert {(row["split"], row["category"], row["licence"]) for row in rows} == {
        ("train", "objects", "CC0-1.0 (Made up)")
    }
    assert all((tmp_path / row["file"]).is_file() for row in rows)


def test_a_folder_without_icons_is_told_in_one_line(tmp_path: Path):
    with pytest.raises(ValueError, match="expected a folder of an Iconify package, with "):
        pack_icons([tmp_path], tmp_path, split_of, ())


def test_an_icon_is_cut_out_in_the_middle_of_its_picture():
    pytest.importorskip("resvg_py")
    frame = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10">{}</svg>'
    picture = draw(frame.format('<circle cx="2" cy="3" r="2" fill="#f00"/>'))
    assert picture is not None
    y, x = np.nonzero(picture[..., 3] > 127)
    assert (x.min() + x.max(), y.min() + y.max()) == pytest.approx((127, 127), abs=2)
    assert 116 <= x.max() - x.min() + 1 <= 120
    assert picture[64, 64].tolist() == [0, 0, 255, 255]
    assert draw(frame.format('<rect width="10" height="10"/>')) is None  # a tile
    assert draw(frame.format("")) is None


MODEL = """mtllib wedge.mtl
v 0 0 0
v 4 0 0
v 0 1 0
v 0 0 1
vt 0.5 0.5
usemtl green
f 1/1 2/1 3/1
f 1 4 2
f 1 3 4
f 2 4 3
"""


@pytest.fixture
def furniture(tmp_path: Path) -> Path:
    folder = tmp_path / "furniture"
    folder.mkdir()
    with zipfile.ZipFile(folder / "Made-Up.sh3f", "w") as catalogue:
        catalogue.writestr("things/wedge/wedge.obj", MODEL)
        catalogue.writestr("things/wedge/wedge.mtl", "newmtl green\nKd 0 1 0\n")
        catalogue.writestr("things/other/other.obj", "")
    return folder


def test_every_corner_of_a_model_gets_a_texture_coordinate(furniture: Path, tmp_path: Path):
    assert [corner(text) for text in ("f", "3", "3//7", "3/2", "3/2/7")] == ["f", "3/1", "3/1/7", "3/2", "3/2/7"]
    model = unpack(zipfile.ZipFile(furniture / "Made-Up.sh3f"), "things/wedge/wedge.obj", tmp_path)
    assert sorted(path.name for path in tmp_path.glob("wedge.*")) == ["wedge.mtl", "wedge.obj"]
    faces = [line for line in model.read_text().splitlines() if line.startswith("f ")]
    assert faces == ["f 1/1 2/1 3/1", "f 1/1 4/1 2/1", "f 1/1 3/1 4/1", "f 2/1 4/1 3/1"]


def test_more_views_are_for_training_alone(furniture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    disc = np.zeros((64, 64, 4), np.uint8)
    cv2.circle(disc, (32, 32), 20, (0, 0, 255, 255), -1)
    monkeypatch.setattr("sana_streaming.data.views.views", lambda model, sides: [disc] * len(sides))
    (tmp_path / "sprites").mkdir()
    rows = [
        {"file": f"sprites/{stem}.webp", "name": stem, "split": split}
        for stem, split in (("wedge", "train"), ("kept", "val"), ("drawn", "train"))
    ]
    origin = "somewhere (Made-Up, model /things/wedge/wedge.obj; someone)"
    found = pack_views(furniture, rows, {"wedge": origin, "kept": origin, "drawn": "npm"}, tmp_path)
    assert [row["name"] for row in found] == ["wedge"] * VIEWS
    assert len({row["file"] for row in found}) == VIEWS
    assert all((tmp_path / row["file"]).is_file() and row["split"] == "train" for row in found)
    with pytest.raises(ValueError, match="expected a folder with catalogues of furniture"):
        pack_views(tmp_path, rows, {}, tmp_path)


def test_views_are_from_all_around_and_always_the_same():
    around = [angle for angle, _ in angles(5)]
    assert angles(5) == angles(5) != angles(6)
    assert np.diff(around) == pytest.approx([60] * 5)
    assert all(5 <= down <= 35 for _, down in angles(5))


def test_a_model_is_drawn_from_the_sides_that_are_asked_for(furniture: Path, tmp_path: Path):
    pytest.importorskip("vtk")
    model = unpack(zipfile.ZipFile(furniture / "Made-Up.sh3f"), "things/wedge/wedge.obj", tmp_path)
    broad, narrow = views(model, [(0, 10), (90, 10)])
    widths = [np.ptp(np.nonzero(picture[..., 3])[1]) for picture in (broad, narrow)]
    assert widths[0] > 2.5 * widths[1]
    seen = broad[broad[..., 3] == 255]
    assert (seen[:, 1] > 60).mean() > 0.9  # green, and no black from behind
    assert seen[:, [0, 2]].max() < 60

"""Packs raw photos, cut-outs and clips into one small folder that travels to the training machine.

    python -m sana_streaming.data.pack ASSETS OUT [--segmenter selfie_segmentation.tflite] [--matting isnet.onnx]
        [--icons FOLDER ...] [--furniture FOLDER]

OUT holds photos/ and sprites/ (WebP), videos/ (encoded again where PyAV is installed, copied where it is not), people/
(cut out of photos, and masks of clips, where there is a segmenter: see `data.people`), masks/ and plates/ (the subjects
of some photos, and those photos without them) and masks of parts of clips, where there is a network for them (see
`data.subjects`), and index.json, which says what each file is and whether it is for training or held out for
validation. More sprites, for training alone, can come from icon sets and from 3-D models: see `data.icons` and
`data.views`.
"""

import argparse
import csv
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sana_streaming.data.cutouts import write_cutout
from sana_streaming.data.icons import pack_icons
from sana_streaming.data.people import PHOTOS as PEOPLE
from sana_streaming.data.people import Segment, load_segmenter, pack_masks, pack_people
from sana_streaming.data.subjects import ACT_FRAMES, drawn_over, has_subject, load_matting, subjects
from sana_streaming.data.views import pack_views
from sana_streaming.data.vocabulary import OBJECTS, PLACES

PHOTO_SIDE = 320  # short side, pixels
PHOTO_ASPECT = 1.6  # longer photos lose their ends: the bank pads all photos to one size
LICENCE_CLASSES = frozenset({"permissive", "permissive-attribution", "permissive-package", "share-alike"})
FILM = "big_buck_bunny_288p.mp4"
FILM_CREDIT = "(c) 2008 Blender Foundation"
FILM_RATE = 24  # frames a second
FILM_SECONDS = {"train": (0.0, 440.0), "val": (440.0, 489.0)}  # the credits that follow are left out: they are text
HELD_OUT_CLIPS = frozenset({"webcam_talk_a", "bbb_bird_tree", "drone_street", "hand_box"})
TALKS = frozenset({"webcam_talk_a", "webcam_talk_b"})  # clips of one person before a resting camera
CLIP_SIDE = 320  # short side, pixels
CLIP_QUALITY, FILM_QUALITY = 22, 27  # constant rate factors of H.264


# Photos that are also used in another way belong where that belongs.
TAKEN = {place.photo: "train" for place in PLACES.values() if place.photo} | PEOPLE


def split_of(name: str) -> str:
    """ "val" for a tenth of all names, "train" for the rest; the same on every machine and with every Python."""
    return "val" if int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 10 == 0 else "train"


def pack(
    assets: Path,
    out: Path,
    segment: Segment | None = None,
    matting: Segment | None = None,
    icons: Sequence[Path] = (),
    furniture: Path | None = None,
) -> dict[str, Any]:
    """Write the pack and return its index. ValueError if something is not where it should be."""
    if not (assets / "photos" / "licences.csv").is_file():
        raise ValueError(f"expected a folder with photos/, sprites/ and videos/, got {assets}")
    out.mkdir(parents=True, exist_ok=True)
    clips, film = pack_videos(assets / "videos", out)
    if segment:
        for row in clips:
            if Path(row["file"]).stem in TALKS:
                row["mask"] = pack_masks(out / row["file"], out, segment)
    if matting:
        clips += pack_acts(assets / "videos", out, matting)
    sprites = pack_sprites(assets / "sprites", out)
    held_out = {row["name"] for row in sprites if row["split"] == "val"}
    photos = pack_photos(assets / "photos", out, held_out, matting)
    more = pack_icons(icons, out, split_of, held_out)
    if furniture:
        sources = {Path(row["file"]).stem: row["source"] for row in _read_csv(assets / "sprites" / "names.csv")}
        more += pack_views(furniture, sprites, sources, out)
    index = {
        "photos": photos,
        "sprites": sprites + more,
        "objects": _named(OBJECTS, sprites),
        "places": _named({name: place.photo for name, place in PLACES.items() if place.photo}, photos),
        "people": pack_people(assets / "photos", out, segment) if segment else [],
        "clips": clips,
        "film": film,
    }
    (out / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    return index


def _named(files: dict[str, str], rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The packed files of a vocabulary, as far as the assets have them."""
    packed = {Path(row["file"]).stem: row["file"] for row in rows}
    return [{"name": name, "file": packed[stem]} for name, stem in files.items() if stem in packed]


def pack_photos(folder: Path, out: Path, held_out: set[str], matting: Segment | None) -> list[dict[str, Any]]:
    """Photos whose licence is clear, with a short side of at most PHOTO_SIDE, and with `matting` masks of their
    subjects, which go without a name to train on where that is kept apart."""
    import cv2

    def fitted(image: np.ndarray) -> np.ndarray:
        h, w = image.shape[:2]
        longest = int(min(h, w) * PHOTO_ASPECT)
        top, left = max(0, h - longest) // 2, max(0, w - longest) // 2
        scale = min(1.0, PHOTO_SIDE / min(h, w))
        return np.asarray(
            cv2.resize(image[top : h - top, left : w - left], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        )

    rows = [row for row in _read_csv(folder / "licences.csv") if row["licence_class"] in LICENCE_CLASSES]
    for name in ("photos", "masks", "plates"):
        (out / name).mkdir(parents=True, exist_ok=True)

    def convert(row: dict[str, str]) -> dict[str, Any]:
        name = Path(row["file"]).stem
        whole = _read_image(folder / row["file"], cv2.IMREAD_COLOR)
        image = fitted(whole)
        cv2.imwrite(str(out / "photos" / f"{name}.webp"), image, [cv2.IMWRITE_WEBP_QUALITY, 78])
        packed: dict[str, Any] = {
            "file": f"photos/{name}.webp",
            "licence": row["licence"],
            "credit": row["credit"],
            "split": TAKEN.get(name) or split_of(name),
            "subject": has_subject(name),
        }
        if matting and (subject := subjects().masked.get(name)):
            packed["name"] = "" if packed["split"] == "train" and subject.name in held_out else subject.name
            mask = fitted(matting(whole))
            quality = [cv2.IMWRITE_WEBP_QUALITY, 80]
            packed["mask"] = f"masks/{name}.webp"
            cv2.imwrite(str(out / packed["mask"]), (mask * 255).round().astype(np.uint8), quality)
            if subject.plate:
                packed["plate"] = f"plates/{name}.webp"
                cv2.imwrite(str(out / packed["plate"]), drawn_over(image, mask), quality)
        return packed

    return _in_threads(convert, rows, "photos")


def pack_sprites(folder: Path, out: Path) -> list[dict[str, Any]]:
    """Cut-outs with their transparency. One name is always in one split, whatever its styles."""
    import cv2

    (out / "sprites").mkdir(exist_ok=True)

    def convert(row: dict[str, str]) -> dict[str, Any]:
        stem = Path(row["file"]).stem
        image = _read_image(folder / row["file"], cv2.IMREAD_UNCHANGED)
        write_cutout(out / "sprites" / f"{stem}.webp", image)
        return {
            "file": f"sprites/{stem}.webp",
            "name": row["name"],
            "colour": row.get("main_colour", ""),
            "category": "people" if row.get("subcategory") == "characters" else row.get("category", ""),
            "licence": row["licence"],
            "split": split_of(row["name"]),
        }

    return _in_threads(convert, _read_csv(folder / "names.csv"), "sprites")


def pack_videos(folder: Path, out: Path) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Clips and film. Training clips that were cut from the film are left out, since the film holds them;
    where a held-out clip was cut from it, the film leaves that part out."""
    (out / "videos").mkdir(exist_ok=True)
    has_film = (folder / FILM).is_file()
    clips, cut_out = [], []
    for row in tqdm(_read_csv(folder / "licences.csv"), desc="videos"):
        held_out = Path(row["file"]).stem in HELD_OUT_CLIPS
        from_film = has_film and FILM_CREDIT in row["credit"]
        if from_film and held_out:
            start = float(row["start_s"])
            cut_out.append((start, start + float(row["duration_s"])))
        if held_out or not from_film:
            split = "val" if held_out else "train"
            subject = has_subject(Path(row["file"]).stem)
            clips.append({"file": f"videos/{row['file']}", "credit": row["credit"], "split": split, "subject": subject})
            encode(folder / row["file"], out / "videos" / row["file"], CLIP_QUALITY)
    if not has_film:
        return clips, None
    encode(folder / FILM, out / "videos" / FILM, FILM_QUALITY, end=round(FILM_SECONDS["val"][1] * FILM_RATE))
    edges = sorted([*FILM_SECONDS["train"], *(edge for span in cut_out for edge in span)])
    spans = {"train": list(zip(edges[::2], edges[1::2], strict=True)), "val": [FILM_SECONDS["val"]]}
    return clips, {"file": f"videos/{FILM}", "credit": FILM_CREDIT, "seconds": spans}


def pack_acts(folder: Path, out: Path, matting: Segment) -> list[dict[str, Any]]:
    """Short parts of clips for training with the masks of what they are of: see `data.subjects`."""
    credited = {row["file"]: row["credit"] for row in _read_csv(folder / "licences.csv")} | {FILM: FILM_CREDIT}
    packed = []
    for clip, first in tqdm(subjects().acts, desc="acts"):
        if (source := folder / f"{clip}.mp4").is_file():
            file = f"videos/{clip}_{first}.mp4"
            encode(source, out / file, CLIP_QUALITY, first, first + ACT_FRAMES)
            row = {"file": file, "credit": credited[source.name], "split": "train", "subject": True}
            packed.append(row | {"mask": pack_masks(out / file, out, matting)})
    return packed


def encode(source: Path, target: Path, quality: int, first: int = 0, end: int | None = None) -> None:
    """Frames from `first` to `end` (without it) as H.264, with a short side of at most CLIP_SIDE; a copy of all of
    them where PyAV is missing, and ImportError if they are to begin later."""
    try:
        import av
    except ImportError:
        if first:
            raise
        shutil.copyfile(source, target)
        return
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        video = reader.streams.video[0]
        rate = video.average_rate
        assert rate is not None
        scale = min(1.0, CLIP_SIDE / min(video.width, video.height))
        width, height = (2 * round(side * scale / 2) for side in (video.width, video.height))
        coded = writer.add_stream("libx264", rate=rate, options={"crf": str(quality), "preset": "slow"})
        coded.width, coded.height, coded.pix_fmt = width, height, "yuv420p"
        for i, frame in enumerate(islice(reader.decode(video), first, end)):
            picture = frame.reformat(width, height, "yuv420p")
            picture.pts, picture.time_base = i, 1 / rate
            writer.mux(coded.encode(picture))
        writer.mux(coded.encode())


def _read_image(path: Path, flags: int) -> np.ndarray:
    import cv2

    image = cv2.imread(str(path), flags)
    if image is None:
        raise ValueError(f"expected an image file, got {path}")
    return image


def _read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _in_threads(convert: Callable[[dict[str, str]], Any], rows: list[dict[str, str]], what: str) -> list[Any]:
    with ThreadPoolExecutor(2) as pool:
        return list(tqdm(pool.map(convert, rows), total=len(rows), desc=what))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("assets", type=Path, help="folder with photos/, sprites/ and videos/")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--segmenter", type=Path, help="selfie_segmentation.tflite, to cut people out")
    parser.add_argument("--matting", type=Path, help="isnet.onnx, for the masks of subjects of photos and clips")
    parser.add_argument("--icons", type=Path, nargs="+", default=[], help="folders of @iconify-json packages")
    parser.add_argument("--furniture", type=Path, help="folder of sweethome3d-furniture's catalogues (.sh3f)")
    args = parser.parse_args()
    segment = load_segmenter(args.segmenter) if args.segmenter else None
    if segment is None:
        print("packing without people: that takes --segmenter FILE and the package ai-edge-litert")
    try:
        matting = load_matting(args.matting) if args.matting else None
    except ValueError as error:
        parser.error(str(error))
    if matting is None:
        print("packing without the masks of subjects: that takes --matting FILE")
    pack(args.assets, args.out, segment, matting, args.icons, args.furniture)
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

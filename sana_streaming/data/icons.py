"""Cut-outs from the colour emoji that Iconify publishes as npm packages, drawn when a pack is made.

Needs the package `resvg-py` and folders such as that of `npm pack @iconify-json/noto`, with icons.json, info.json and
metadata.json in them. Neither is needed to train.
"""

import json
import re
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sana_streaming.data.bank import SPRITE_SIDE
from sana_streaming.data.cutouts import centred, write_cutout
from sana_streaming.data.phrasings import plain

CATEGORIES = ("Animals & Nature", "Food & Drink", "Objects", "Activities", "Travel & Places", "People & Body")
LEFT_OUT = re.compile(  # in every colour of skin, parts of a body, signs, and whole pictures
    r"^(wo)?m[ae]n |oclock|thirty|\b(skin|sign|button|symbol|hands?|fingers?|thumbs?|fist|palms|wave|waving|backhand|"
    r"clapping|nail|muscle|biceps|kiss|couple|family|people|silhouettes?|speaking|facing|japan|japanese|map|city\w*|"
    r"sunrise|sunset|milky|foggy|motorway|railway)\b|"
    r"^(ear|eye|eyes|nose|foot|leg|tooth|mouth|tongue|brain|lungs|anatomical heart|footprints)\b"
)


def pack_icons(
    folders: Sequence[Path], out: Path, split_of: Callable[[str], str], held_out: Collection[str]
) -> list[dict[str, Any]]:
    """Cut-outs of all sets, to train on alone: no name that is held out, nor one that split_of would hold out.

    ValueError for a folder that is no icon set."""
    for folder in folders:
        if not (folder / "icons.json").is_file():
            raise ValueError(f"expected a folder of an Iconify package, with icons.json, got {folder}")
    (out / "sprites").mkdir(exist_ok=True)
    metadata = [_read(folder / "metadata.json") for folder in folders]
    categories = {
        icon: category
        for each in metadata
        for category, icons in each.get("categories", {}).items()
        if category in CATEGORIES
        for icon in icons
    }
    kept_apart = {plain(name) for name in held_out}
    rows = []
    for folder in folders:
        found, info = _read(folder / "icons.json"), _read(folder / "info.json")
        names = [
            icon
            for icon in found["icons"]
            if icon in categories
            and not LEFT_OUT.search(plain(icon))
            and plain(icon) not in kept_apart
            and split_of(plain(icon)) == "train"
        ]
        with ThreadPoolExecutor(2) as pool:
            pictures = pool.map(draw, (svg(found, icon) for icon in names))
            for icon, picture in tqdm(zip(names, pictures, strict=True), total=len(names), desc=info["name"]):
                if picture is None:
                    continue
                file = f"sprites/icon_{found['prefix']}_{icon}.webp".replace("-", "_")
                write_cutout(out / file, picture)
                rows.append(
                    {
                        "file": file,
                        "name": plain(icon),
                        "colour": "",
                        "category": re.sub(r"[^a-z]+", "-", categories[icon].lower()),
                        "licence": f"{info['license']['spdx']} ({info['name']})",
                        "split": "train",
                    }
                )
    return rows


def svg(icons: dict[str, Any], name: str) -> str:
    """One icon of a set as a document."""
    icon = icons["icons"][name]
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'


def draw(document: str) -> np.ndarray | None:
    """A cut-out as `centred` makes it."""
    import cv2
    from resvg_py import svg_to_bytes

    drawn = np.frombuffer(
        bytes(svg_to_bytes(svg_string=document, width=2 * SPRITE_SIDE, height=2 * SPRITE_SIDE)), np.uint8
    )
    return centred(np.asarray(cv2.imdecode(drawn, cv2.IMREAD_UNCHANGED)))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]

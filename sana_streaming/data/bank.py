"""Raw material of training scenes on one device: photos, cut-outs, people, places, real video parted into shots."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sana_streaming.data.vocabulary import DRAWN

SPLITS = ("train", "val")
CLIP_SIDE = 320  # clips are kept at this short side at most
SPRITE_SIDE = 128
PERSON_SIDE = 320
PLACE_SIZE = (320, 512)  # height and width
FILM_PARTS = 16  # a film is decoded in parts of equal length, so that a few frames already show all of it
CUT_DIFFERENCE = (
    0.08  # mean absolute difference between two frames of different shots; within a shot it stays below 0.065
)


@dataclass(frozen=True)
class MaskedClip:
    """A clip of which it is known where its subject is."""

    frames: Tensor  # uint8 [n, 3, h, w]
    masks: Tensor  # uint8 [n, 1, h', w'] of the same aspect: 255 where the subject is


@dataclass(frozen=True)
class Bank:
    photos: Tensor  # uint8 [N, 3, H, W], padded at the right and at the bottom
    photo_sizes: Tensor  # int64 [N, 2], height and width, on CPU
    bare_photos: tuple[int, ...]  # numbers of those that are of nobody and of nothing: landscapes, buildings, textures
    masked_photos: tuple[int, ...]  # numbers of those whose subject is known
    photo_masks: Tensor  # uint8 [M, 1, H, W], of those: 255 where the subject is
    plated_photos: tuple[int, ...]  # numbers of the masks of those that are also known without their subject
    photo_plates: Tensor  # uint8 [P, 3, H, W], those photos without their subject
    photo_names: tuple[str, ...]  # of the masked ones: what the subject is called, "" where that is kept apart
    sprites: Tensor  # uint8 [N, 4, 128, 128], red, green, blue, alpha
    sprite_names: tuple[str, ...]
    sprite_colours: tuple[str, ...]  # main colours, "" where unknown
    sprite_categories: tuple[str, ...]
    objects: tuple[str, ...]  # names of the fixed vocabulary
    object_pictures: Tensor  # uint8 [N, 4, 128, 128]
    places: tuple[str, ...]
    place_pictures: Tensor  # uint8 [N, 3, *PLACE_SIZE]
    people: Tensor  # uint8 [N, 4, 320, 320], people and animals cut out of photos, standing on the lower edge
    talks: tuple[MaskedClip, ...]  # of a person before a resting camera
    acts: tuple[MaskedClip, ...]  # of whatever else, parts of the film among them
    clips: tuple[Tensor, ...]  # uint8 [n, 3, h, w], single shots of real cameras and of the film at a higher resolution
    scenery: tuple[Tensor, ...]  # those of the clips that are of nobody and of nothing
    film: tuple[Tensor, ...]  # uint8 [n, 3, h, w], single shots

    @property
    def device(self) -> torch.device:
        return self.photos.device

    @cached_property
    def empty(self) -> "Bank":
        """What may be behind somebody: nothing that is itself a subject. Of photos all, where there are no others."""
        bare = torch.tensor(self.bare_photos or range(len(self.photos)))
        photos, sizes = self.photos[bare.to(self.device)], self.photo_sizes[bare]
        return replace(self, photos=photos, photo_sizes=sizes, clips=self.scenery, film=())

    @cached_property
    def photo_boxes(self) -> Tensor:
        """Left, top, right and bottom of each masked subject, in pixels of its photo -> [M, 4] on the CPU."""
        return boxes(self.photo_masks[:, 0].cpu() > 127)

    @cached_property
    def sprite_spans(self) -> Tensor:
        """Where each cut-out begins above and ends below, as shares of its picture -> [N, 2] on the CPU."""
        return spans(self.sprites)

    @cached_property
    def sprite_middles(self) -> Tensor:
        """The mean place of what each cut-out covers, from the middle of its picture in shares of its side -> [N, 2] on
        the CPU."""
        return middles(self.sprites)

    @cached_property
    def people_spans(self) -> Tensor:
        return spans(self.people)

    @cached_property
    def sprites_of(self) -> dict[str, tuple[int, ...]]:
        """All cut-outs of a name."""
        found: dict[str, tuple[int, ...]] = {}
        for i, name in enumerate(self.sprite_names):
            found[name] = (*found.get(name, ()), i)
        return found


def load_bank(
    pack: str | Path, split: str, device: str | torch.device = "cpu", film_frames: int | None = None, threads: int = 16
) -> Bank:
    """Read one split ("train" or "val") of a pack onto a device.

    film_frames limits how much of the film is decoded, taken evenly from all of it; the whole film takes 6 GB.
    """
    pack = Path(pack)
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {SPLITS}, got {split!r}")
    if not (pack / "index.json").is_file():
        raise ValueError(f"expected a pack with an index.json, got {pack}")
    index = json.loads((pack / "index.json").read_text())
    kinds = ("photos", "sprites", "people", "clips")
    chosen = {kind: [row for row in index.get(kind, ()) if row["split"] == split] for kind in kinds}
    if not chosen["photos"]:
        raise ValueError(f"expected photos for the split {split!r}, the pack {pack} has none")
    objects, places = index.get("objects", []), index.get("places", [])
    with ThreadPoolExecutor(threads) as pool:

        def read(rows: list[dict[str, Any]], alpha: bool = False) -> list[Tensor]:
            return list(pool.map(lambda row: _read_image(pack / row["file"], alpha), rows))

        # The longest jobs begin first.
        film_parts = [pool.submit(part) for part in _film_parts(pack, index["film"], split, film_frames)]
        clip_parts = [pool.submit(_decode, pack / row["file"]) for row in chosen["clips"]]
        photos, sprites, people = read(chosen["photos"]), read(chosen["sprites"], True), read(chosen["people"], True)
        with_mask = [row for row in chosen["photos"] if row.get("mask")]
        masks = read([{"file": row["mask"]} for row in with_mask])
        plates = read([{"file": row["plate"]} for row in with_mask if row.get("plate")])
        object_pictures, place_photos = read(objects, alpha=True), read(places)
        clips, film = [part.result() for part in clip_parts], [part.result() for part in film_parts]
        film_shots = list(pool.map(shot_bounds, film))
    sizes = torch.tensor([photo.shape[1:] for photo in photos])
    height, width = sizes.amax(0).tolist()
    drawn = [torch.from_numpy(draw(*PLACE_SIZE)).permute(2, 0, 1) for draw in DRAWN.values()]
    rows = list(zip(chosen["clips"], clips, strict=True))
    masked = [(row, _masked(pack, row["mask"], clip, device)) for row, clip in rows if row.get("mask")]
    whole = [(row, shots(clip, device)) for row, clip in rows if not (row.get("mask") and row.get("subject"))]
    return Bank(
        photos=torch.stack([_pad(photo, height, width) for photo in photos]).to(device),
        photo_sizes=sizes,
        bare_photos=tuple(i for i, row in enumerate(chosen["photos"]) if not row.get("subject")),
        masked_photos=tuple(i for i, row in enumerate(chosen["photos"]) if row.get("mask")),
        plated_photos=tuple(k for k, row in enumerate(with_mask) if row.get("plate")),
        photo_plates=_stack([_pad(plate, height, width) for plate in plates], (3, height, width), device),
        photo_names=tuple(row.get("name", "") for row in with_mask),
        photo_masks=_stack([_pad(mask[:1], height, width) for mask in masks], (1, height, width), device),
        sprites=_stack(sprites, (4, SPRITE_SIDE, SPRITE_SIDE), device),
        sprite_names=tuple(row["name"] for row in chosen["sprites"]),
        sprite_colours=tuple(row.get("colour", "") for row in chosen["sprites"]),
        sprite_categories=tuple(row.get("category", "") for row in chosen["sprites"]),
        objects=tuple(row["name"] for row in objects),
        object_pictures=_stack(object_pictures, (4, SPRITE_SIDE, SPRITE_SIDE), device),
        places=(*(row["name"] for row in places), *DRAWN),
        place_pictures=torch.stack([*map(_covering, place_photos), *drawn]).to(device),
        people=_stack(list(map(_standing, people)), (4, PERSON_SIDE, PERSON_SIDE), device),
        talks=tuple(clip for row, clip in masked if not row.get("subject")),
        acts=tuple(clip for row, clip in masked if row.get("subject")),
        clips=tuple(shot for _, parts in whole for shot in parts),
        scenery=tuple(shot for row, parts in whole if not (row.get("mask") or row.get("subject")) for shot in parts),
        film=tuple(shot for part, bounds in zip(film, film_shots, strict=True) for shot in shots(part, device, bounds)),
    )


def spans(cutouts: Tensor) -> Tensor:
    """Cut-outs uint8 [N, 4, S, S] -> the shares of their pictures at which they begin above and end below, [N, 2]."""
    filled = (cutouts[:, 3] > 127).any(-1)
    side = cutouts.shape[-1]
    rows = torch.arange(side, device=cutouts.device)
    top = torch.where(filled, rows, side - 1).amin(-1)
    bottom = torch.where(filled, rows + 1, 1).amax(-1)
    return (torch.stack([top, torch.maximum(bottom, top + 1)], -1).float() / side).cpu()


def boxes(filled: Tensor) -> Tensor:
    """Masks bool [M, h, w] -> left, top, right and bottom of what is filled, [M, 4]; all of it where nothing is."""
    ends = []
    for along in (filled.any(1), filled.any(2)):  # [M, w], [M, h]
        seen = torch.where(along.any(1, keepdim=True), along, True).int()
        ends.append((seen.argmax(1), along.shape[1] - seen.flip(1).argmax(1)))
    (left, right), (top, bottom) = ends
    return torch.stack([left, top, right, bottom], 1)


def middles(cutouts: Tensor) -> Tensor:
    """Cut-outs uint8 [N, 4, S, S] -> the mean x and y of their alpha, from the middle in shares of the side, [N, 2]."""
    alpha = cutouts[:, 3].float()
    side = cutouts.shape[-1]
    places = (torch.arange(side, device=cutouts.device) + 0.5) / side - 0.5
    across, down = alpha.sum(1), alpha.sum(2)  # [N, S] each
    whole = across.sum(1).clamp_min(1)
    return torch.stack([(across @ places) / whole, (down @ places) / whole], -1).cpu()


def _stack(pictures: list[Tensor], shape: tuple[int, ...], device: str | torch.device) -> Tensor:
    return torch.stack(pictures).to(device) if pictures else torch.empty(0, *shape, dtype=torch.uint8, device=device)


def _covering(photo: Tensor) -> Tensor:
    """The middle of a photo [3, h, w], as large as PLACE_SIZE."""
    import cv2

    height, width = PLACE_SIZE
    h, w = photo.shape[1:]
    scale = max(height / h, width / w)
    size = (max(width, round(w * scale)), max(height, round(h * scale)))
    image = cv2.resize(photo.permute(1, 2, 0).numpy(), size, interpolation=cv2.INTER_LINEAR)
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    return torch.from_numpy(image[top : top + height, left : left + width]).permute(2, 0, 1).contiguous()


def _standing(cutout: Tensor) -> Tensor:
    """A cut-out [4, h, w] in the middle of the lower edge of a square of PERSON_SIDE."""
    _, h, w = cutout.shape
    left = (PERSON_SIDE - w) // 2
    return torch.nn.functional.pad(cutout, (left, PERSON_SIDE - w - left, PERSON_SIDE - h, 0))


def _masked(pack: Path, mask: dict[str, Any], clip: np.ndarray, device: str | torch.device) -> MaskedClip:
    """The masks are the cells of one picture, row by row."""
    sheet = _read_image(pack / mask["file"])[0]
    cells = sheet.unflatten(1, (mask["columns"], -1)).unflatten(0, (mask["rows"], -1)).transpose(1, 2).flatten(0, 1)
    frames = torch.from_numpy(clip).to(device).permute(0, 3, 1, 2).contiguous()
    return MaskedClip(frames, cells[: len(clip), None].contiguous().to(device))


def shots(frames: np.ndarray, device: str | torch.device, bounds: list[tuple[int, int]] | None = None) -> list[Tensor]:
    """Frames uint8 [n, h, w, 3] -> the shots they hold, views of one tensor uint8 [n, 3, h, w]."""
    if len(frames) == 0:
        return []
    video = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).contiguous()
    return [video[start:end] for start, end in bounds or shot_bounds(frames)]


def shot_bounds(frames: np.ndarray) -> list[tuple[int, int]]:
    """First frame and end of each shot in frames uint8 [n, h, w, 3]: a cut is where two thumbnails differ much."""
    import cv2

    if len(frames) == 0:
        return []
    small = np.stack([cv2.resize(frame, (32, 18), interpolation=cv2.INTER_AREA) for frame in frames]).astype(np.float32)
    change = np.abs(np.diff(small, axis=0)).mean(axis=(1, 2, 3)) / 255
    cuts = [0, *(np.flatnonzero(change > CUT_DIFFERENCE) + 1).tolist(), len(frames)]
    return list(pairwise(cuts))


def _film_parts(pack: Path, film: dict[str, Any] | None, split: str, limit: int | None) -> list[partial[np.ndarray]]:
    """Readers for the parts of the film that belong to a split, given in index.json as spans of seconds."""
    import cv2

    if film is None or limit == 0:
        return []
    path = pack / film["file"]
    capture = cv2.VideoCapture(str(path))
    fps = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    spans = [(round(start * fps), round(end * fps)) for start, end in film["seconds"][split]]
    total = sum(end - start for start, end in spans)
    part = max(1, -(-total // FILM_PARTS))
    share = 1.0 if limit is None else min(1.0, limit / total)
    starts = [(start, min(part, end - start)) for first, end in spans for start in range(first, end, part)]
    return [partial(_decode, path, start, max(1, int(length * share))) for start, length in starts]


def _decode(path: Path, start: int = 0, count: int | None = None) -> np.ndarray:
    """Frames of a video file, RGB uint8 [n, h, w, 3], short side at most CLIP_SIDE."""
    import cv2

    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise ValueError(f"expected a video file, got {path}")
    if start:
        capture.set(cv2.CAP_PROP_POS_FRAMES, start)
    frames: list[np.ndarray] = []
    while count is None or len(frames) < count:
        ok, frame = capture.read()
        if not ok:
            break
        scale = CLIP_SIDE / min(frame.shape[:2])
        if scale < 1:
            frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    capture.release()
    return np.stack(frames) if frames else np.empty((0, 1, 1, 3), np.uint8)


def _read_image(path: Path, alpha: bool = False) -> Tensor:
    """An image file as uint8 [3, H, W], or [4, H, W] with its alpha."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED if alpha else cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"expected an image file, got {path}")
    image = cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if alpha else cv2.COLOR_BGR2RGB)
    return torch.from_numpy(image).permute(2, 0, 1)


def _pad(image: Tensor, height: int, width: int) -> Tensor:
    """Repeat the last column and row of an image [3, h, w] until it is [3, height, width]."""
    rows, columns = (
        torch.arange(full).clamp_max(side - 1) for full, side in zip((height, width), image.shape[1:], strict=True)
    )
    return image[:, rows[:, None], columns]

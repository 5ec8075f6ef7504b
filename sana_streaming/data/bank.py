"""Raw material of training scenes on one device: photos, cut-outs, real video parted into shots, encoded prompts."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

SPLITS = ("train", "val")
CLIP_SIDE = 320  # clips are kept at this short side at most
SPRITE_SIDE = 128
FILM_PARTS = 16  # a film is decoded in parts of equal length, so that a few frames already show all of it
CUT_DIFFERENCE = (
    0.08  # mean absolute difference between two frames of different shots; within a shot it stays below 0.065
)


@dataclass(frozen=True)
class Prompts:
    """Token states of every phrasing that edits are taught and judged with."""

    index: dict[str, int]
    states: Tensor  # float16 [sum of lengths, D]
    offsets: tuple[int, ...]  # phrase i has rows offsets[i] to offsets[i + 1]

    def __call__(self, phrases: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Phrases -> states [B, L, D] float32, zero past their ends, and mask [B, L], true at tokens."""
        if unknown := [phrase for phrase in phrases if phrase not in self.index]:
            raise ValueError(f"expected phrases of the pack, got {unknown[:3]}; pack again after changing the edits")
        starts = torch.tensor([self.offsets[self.index[phrase]] for phrase in phrases])
        ends = torch.tensor([self.offsets[self.index[phrase] + 1] for phrase in phrases])
        position = torch.arange(int((ends - starts).max()))
        mask = (position < (ends - starts)[:, None]).to(self.states.device)
        rows = torch.minimum(starts[:, None] + position, ends[:, None] - 1).to(self.states.device)
        return self.states[rows].float() * mask[..., None], mask


@dataclass(frozen=True)
class Bank:
    photos: Tensor  # uint8 [N, 3, H, W], padded at the right and at the bottom
    photo_sizes: Tensor  # int64 [N, 2], height and width, on CPU
    sprites: Tensor  # uint8 [N, 4, 128, 128], red, green, blue, alpha
    sprite_names: tuple[str, ...]
    clips: tuple[Tensor, ...]  # uint8 [n, 3, h, w], single shots of real cameras and of the film at a higher resolution
    film: tuple[Tensor, ...]  # uint8 [n, 3, h, w], single shots
    prompts: Prompts | None

    @property
    def device(self) -> torch.device:
        return self.photos.device


def load_bank(
    pack: str | Path, split: str, device: str | torch.device = "cpu", film_frames: int | None = None, threads: int = 4
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
    chosen = {kind: [row for row in index[kind] if row["split"] == split] for kind in ("photos", "sprites", "clips")}
    if not chosen["photos"]:
        raise ValueError(f"expected photos for the split {split!r}, the pack {pack} has none")
    with ThreadPoolExecutor(threads) as pool:
        photos = list(pool.map(lambda row: _read_image(pack / row["file"]), chosen["photos"]))
        sprites = list(pool.map(lambda row: _read_image(pack / row["file"], alpha=True), chosen["sprites"]))
        clips = list(pool.map(lambda row: _decode(pack / row["file"]), chosen["clips"]))
        parts = _film_parts(pack, index["film"], split, film_frames)
        film = list(pool.map(lambda part: part(), parts))
    sizes = torch.tensor([photo.shape[1:] for photo in photos])
    height, width = sizes.amax(0).tolist()
    padded = torch.stack([_pad(photo, height, width) for photo in photos])
    return Bank(
        photos=padded.to(device),
        photo_sizes=sizes,
        sprites=torch.stack(sprites).to(device)
        if sprites
        else torch.empty(0, 4, SPRITE_SIDE, SPRITE_SIDE, dtype=torch.uint8, device=device),
        sprite_names=tuple(row["name"] for row in chosen["sprites"]),
        clips=tuple(shot for clip in clips for shot in shots(clip, device)),
        film=tuple(shot for part in film for shot in shots(part, device)),
        prompts=_load_prompts(pack, device),
    )


def shots(frames: np.ndarray, device: str | torch.device) -> list[Tensor]:
    """Frames uint8 [n, h, w, 3] -> the shots they hold, views of one tensor uint8 [n, 3, h, w]."""
    if len(frames) == 0:
        return []
    video = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).contiguous()
    return [video[start:end] for start, end in shot_bounds(frames)]


def shot_bounds(frames: np.ndarray) -> list[tuple[int, int]]:
    """First frame and end of each shot in frames uint8 [n, h, w, 3]: a cut is where two thumbnails differ much."""
    import cv2

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


def _load_prompts(pack: Path, device: str | torch.device) -> Prompts | None:
    if not (pack / "prompts.safetensors").is_file():
        return None
    tensors = load_file(pack / "prompts.safetensors")
    phrases = json.loads((pack / "prompts.json").read_text())
    index = {phrase: i for i, phrase in enumerate(phrases)}
    return Prompts(index, tensors["states"].to(device), tuple(tensors["offsets"].tolist()))

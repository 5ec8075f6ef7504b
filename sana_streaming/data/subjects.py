"""Who or what photographs are of: no background of others, and in some a foreground of their own, when a pack is made.

A model that sees such photographs behind pasted cut-outs learns to take whatever was there before for background. The
masks are ISNet's: the file is `/models/medium` of the npm package `@imgly/background-removal-data` (MIT), whose parts,
in the order of their `offsets` in resources.json, are one ONNX file. It is not needed to train.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from sana_streaming.data.people import Segment

MATTING_SIDE = 1024  # of the pictures that ISNet takes
UNSURE = (0.2, 0.8)  # its masks between these are made to run from 0 to 1
ACT_FRAMES = 32  # frames of a clip whose masks are kept
MARGIN = 0.025  # of the short side, by which more than the mask is drawn over, for shadows
KNOWN = 0.05  # what share of a blurred cell must be known to draw over it


@dataclass(frozen=True)
class Subject:
    name: str
    plate: bool  # whether `drawn_over` leaves no trace of it


@dataclass(frozen=True)
class Subjects:
    masked: dict[str, Subject]  # photos (without endings) whose masks convince
    others: frozenset[str]  # other photos and clips that are of somebody or something
    acts: tuple[tuple[str, int], ...]  # clips, and the first of ACT_FRAMES frames whose masks convince


@cache
def subjects() -> Subjects:
    text = files("sana_streaming.data").joinpath("subjects.txt").read_text()
    masked, others, acts = "\n".join(line for line in text.splitlines() if not line.startswith("#")).split(":")
    known = {}
    for word in masked.split():
        file, _, name = word.rstrip("*").partition("=")
        known[file] = Subject((name or file.partition("_")[2]).replace("_", " "), word.endswith("*"))
    parts = [act.split("@") for act in acts.split()]
    return Subjects(known, frozenset(others.split()), tuple((clip, int(first)) for clip, first in parts))


def has_subject(name: str) -> bool:
    return name in subjects().masked or name in subjects().others


def load_matting(file: Path) -> Segment:
    """A network that knows whatever stands out (ISNet), of a picture whose sides are MATTING_SIDE; ValueError if
    the file is no such network."""
    if not file.is_file():
        raise ValueError(f"expected the ONNX file of ISNet, got {file}")
    import cv2
    from onnxruntime import InferenceSession

    session = InferenceSession(str(file))
    given = session.get_inputs()[0]
    if list(given.shape) != [1, 3, MATTING_SIDE, MATTING_SIDE]:
        raise ValueError(f"expected a network of pictures [1, 3, {MATTING_SIDE}, {MATTING_SIDE}], got {given.shape}")

    def segment(picture: np.ndarray) -> np.ndarray:
        square = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), (MATTING_SIDE, MATTING_SIDE))
        colours = (square.astype(np.float32) - 128) / 256
        (found, *_) = session.run(None, {given.name: colours.transpose(2, 0, 1)[None]})
        mask = cv2.resize(np.asarray(found, np.float32)[0, 0], picture.shape[1::-1], interpolation=cv2.INTER_AREA)
        low, high = UNSURE
        return np.asarray(((mask - low) / (high - low)).clip(0, 1))

    return segment


def drawn_over(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A picture uint8 [h, w, 3] whose mask [h, w] is filled with what is around: the mean of the nearest that is known,
    wider and wider towards the middle."""
    import cv2

    side = min(mask.shape)
    reach = 2 * round(MARGIN * side) + 1
    known = 1 - np.asarray(cv2.dilate((mask > 0.02).astype(np.float32), np.ones((reach, reach))))
    colours = picture * known[..., None]
    filled, done, sigma = colours, known, 2.0
    while done.min() < 0.999 and sigma < 2 * side:
        near, share = cv2.GaussianBlur(colours, (0, 0), sigma), cv2.GaussianBlur(known, (0, 0), sigma)
        part = np.clip(share / KNOWN - 0.2, 0, 1) * (1 - done)
        filled = filled + part[..., None] * near / np.maximum(share, 1e-6)[..., None]
        done = done + part
        sigma *= 1.6
    return filled.clip(0, 255).astype(np.uint8)

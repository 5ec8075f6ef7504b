"""Whether a new object is there: is what stands in its place nearest to pictures of what was asked for?"""

from dataclasses import replace
from functools import cached_property

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from sana_streaming.data.bank import Bank
from sana_streaming.data.layers import cover, draw, paint, standing
from sana_streaming.data.motion import uniform
from sana_streaming.data.scenes import photo_clips
from sana_streaming.eval.cases import Case
from sana_streaming.eval.features import SIDE, Extractor
from sana_streaming.eval.regions import INSIDE

VIEWS = 8  # reference pictures of each object
SIZES = (0.24, 0.5)  # of the short side
LEANING = 0.4  # radians to either side
LEAST = 12  # pixels: the side of a region below which there is nothing to recognise
MOMENTS = 4  # frames of each clip that are looked at


class Recogniser:
    def __init__(self, bank: Bank, extractor: Extractor, size: int, rng: Generator):
        """References are the objects of the vocabulary, as large as in edits, over held-out photos."""
        self.names, self.extractor = bank.objects, extractor
        self._views = lambda i: references(bank, i, size, rng)

    @cached_property
    def known(self) -> tuple[Tensor, Tensor]:
        """What all pictures of objects have in common [D], and each object without it [N, D]; made when first asked
        for, which takes a while."""
        features = torch.stack([self.extractor(self._views(i)) for i in range(len(self.names))])
        common = features.mean(dim=(0, 1))
        return common, F.normalize(F.normalize(features - common, dim=-1).mean(dim=1), dim=-1)

    def rank(self, video: Tensor, case: Case) -> Tensor:
        """The place of the object that was asked for among all, 1 the nearest; mean over moments [n]"""
        places = torch.full((len(case), MOMENTS), torch.nan)
        crops, where = [], []
        moments = [int((i + 0.5) / MOMENTS * video.shape[1]) for i in range(MOMENTS)]
        boxes = squares(case.region[:, moments] > INSIDE)
        for clip, row in enumerate(boxes):
            for moment, box in enumerate(row):
                if box is not None:
                    crops.append(crop(video[clip, moments[moment]], box))
                    where.append((clip, moment))
        if not crops:
            return places[:, 0]
        common, prototypes = self.known
        likeness = F.normalize(self.extractor(torch.stack(crops)) - common, dim=-1) @ prototypes.T
        asked = torch.tensor([self.names.index(case.subjects[clip]) for clip, _ in where], device=likeness.device)
        own = likeness.gather(1, asked[:, None])
        for (clip, moment), place in zip(where, (1 + (likeness > own).sum(dim=1)).tolist(), strict=True):
            places[clip, moment] = place
        return places.nanmedian(dim=1).values


def references(bank: Bank, index: int, size: int, rng: Generator) -> Tensor:
    """One object, in several sizes and over several photos, cut out as a region would be -> [VIEWS, 3, SIDE, SIDE]"""
    photos = photo_clips(bank, 1, size, size, torch.ones(VIEWS, dtype=torch.bool), rng)
    middle = torch.full((VIEWS, 2), size / 2)
    path = standing(uniform(rng, *SIZES, VIEWS) * size, middle, 1)
    path = replace(path, angle=uniform(rng, -LEANING, LEANING, VIEWS, 1))
    layer = draw(bank.object_pictures[[index] * VIEWS], path, size, size, torch.arange(VIEWS))
    pictures = (paint(photos, [layer])[:, 0] * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    boxes = squares(cover(photos, [layer], [])[:, :, 0] > INSIDE)
    return torch.stack([crop(picture, row[0] or (0, 0, size)) for picture, row in zip(pictures, boxes, strict=True)])


def squares(regions: Tensor) -> list[list[tuple[int, int, int] | None]]:
    """The smallest square around each region bool [n, F, H, W], as top, left and side; None where it is too small."""
    height, width = regions.shape[-2:]
    edges = []
    for used, side in ((regions.any(dim=-1), height), (regions.any(dim=-2), width)):
        places = torch.arange(side, device=regions.device)
        edges += [torch.where(used, places, side).amin(dim=-1), torch.where(used, places, -1).amax(dim=-1) + 1]
    top, bottom, left, right = (edge.tolist() for edge in edges)
    found: list[list[tuple[int, int, int] | None]] = []
    for rows in zip(top, bottom, left, right, strict=True):
        found.append([_square(t, b, x, r, height, width) for t, b, x, r in zip(*rows, strict=True)])
    return found


def _square(top: int, bottom: int, left: int, right: int, height: int, width: int) -> tuple[int, int, int] | None:
    if min(bottom - top, right - left) < LEAST:
        return None
    side = min(max(bottom - top, right - left), height, width)
    y, x = ((low + high - side) // 2 for low, high in ((top, bottom), (left, right)))
    return min(max(y, 0), height - side), min(max(x, 0), width - side), side


def crop(picture: Tensor, box: tuple[int, int, int]) -> Tensor:
    """A square of RGB uint8 [H, W, 3] -> [3, SIDE, SIDE] in [0, 1]"""
    top, left, side = box
    part = picture[top : top + side, left : left + side].permute(2, 0, 1)[None].float() / 255
    return F.interpolate(part, size=(SIDE, SIDE), mode="bilinear", antialias=True)[0]

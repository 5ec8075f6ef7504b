"""Whether an edit happens where it was asked for, and nowhere else."""

from torch import Tensor
from torch.nn import functional as F

from sana_streaming.eval.cases import Case
from sana_streaming.metrics import psnr

INSIDE, OUTSIDE = 0.5, 0.05
BORDER = 8  # pixels around a region that belong neither to it nor to the rest


def regions(video: Tensor, case: Case) -> dict[str, Tensor]:
    return {"in_region": in_region(video, case), "out_of_region": out_of_region(video, case)}


def in_region(video: Tensor, case: Case) -> Tensor:
    """PSNR to the truth within the edited region [n]"""
    return psnr(video, case.truth, case.region > INSIDE)


def out_of_region(video: Tensor, case: Case) -> Tensor:
    """PSNR to the source where nothing should change [n]"""
    grown = case.region
    for down, across in ((BORDER, 0), (0, BORDER)):  # rows and columns apart: the same, and much faster
        grown = F.max_pool2d(grown, (2 * down + 1, 2 * across + 1), stride=1, padding=(down, across))
    return psnr(video, case.source, grown < OUTSIDE)

"""Falling snow and rain: as dense as asked for, moving as it should, over a scene that stays what it is.

The truth is scene * (1 - field) + colour * field with a known field. Scene and colour are estimated from it, and from
them how much of every pixel of an edited video is covered by particles.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from sana_streaming.data.particles import particle_field
from sana_streaming.eval.cases import Case
from sana_streaming.metrics import psnr

CLEAR = 0.02  # the field where there are no particles
LEAST_CONTRAST = 0.15  # between scene and particles; where it is less none can be seen
NEIGHBOURHOOD = 33  # pixels: coverage is taken against its mean there
SOFTENED = 5  # pixels: fine streaks are counted after a blur, so that a codec's own counts for little
VISIBLE = 0.25  # of the densest coverage
LAG = 2  # frames between pictures whose shift is measured


def weather(video: Tensor, case: Case) -> dict[str, Tensor]:
    """What each of the functions below says of a video [n], and the PSNR to the truth where there are no particles."""
    field = _field(case)
    found, true = _coverage((video, case.truth), case, field)
    return {
        "density": density(found, true, field),
        "in_place": in_place(found, true),
        "motion_error": motion_error(found, true),
        "behind": psnr(video, case.truth, (field < CLEAR).expand(case.source.shape[:4])),
    }


def density(found: Tensor, true: Tensor, field: Tensor) -> Tensor:
    """Share of pixels with particles, as a multiple of the truth's, of coverages [n, F, H, W] -> [n]

    Pixels that are as much darker than their surroundings are subtracted: particles are bright, the texture of a scene
    is both.
    """
    threshold = VISIBLE * _softened(field).amax()
    shares = []
    for layer in map(_softened, (found, true)):
        shares.append(
            (layer > threshold).float().mean(dim=(1, 2, 3)) - (layer < -threshold).float().mean(dim=(1, 2, 3))
        )
    return shares[0] / shares[1]


def in_place(found: Tensor, true: Tensor) -> Tensor:
    """How strong the true particles are at their true places, as a multiple of the truth's [n]"""
    return (found * true).sum(dim=(1, 2, 3)) / true.square().sum(dim=(1, 2, 3))


def motion_error(found: Tensor, true: Tensor) -> Tensor:
    """Error of the particles' velocity, direction and speed, as a share of the true speed [n]"""
    shift = _shift(true)
    return (_shift(found) - shift).norm(dim=1) / shift.norm(dim=1)


def _field(case: Case) -> Tensor:
    frames, height, width = case.source.shape[1:4]
    return particle_field(case.edit, frames, height, width, case.degree, device=case.source.device)[:, 0]


def _softened(layer: Tensor) -> Tensor:
    return _mean_around(layer, SOFTENED)


def _mean_around(layer: Tensor, side: int) -> Tensor:
    """Over squares, zero beyond the picture; rows and columns apart: the same, and much faster."""
    rows = F.avg_pool2d(layer, (side, 1), 1, (side // 2, 0))
    return F.avg_pool2d(rows, (1, side), 1, (0, side // 2))


def _coverage(videos: tuple[Tensor, ...], case: Case, field: Tensor) -> list[Tensor]:
    """How much particles cover of each pixel, less the mean around it, for videos [n, F, H, W, 3] -> [n, F, H, W]"""
    truth = case.truth.float() / 255
    scene = _scene(case.source.float() / 255, truth, field < CLEAR)
    covered = field[..., None]
    colour = (covered * (truth - (1 - covered) * scene)).sum(dim=(1, 2, 3)) / covered.square().sum()
    contrast = colour[:, None, None, None] - scene
    strength = contrast.square().sum(dim=-1)
    seen = strength > 3 * LEAST_CONTRAST**2
    layers = []
    for video in videos:
        layer = ((video.float() / 255 - scene) * contrast).sum(dim=-1) / strength.clamp_min(1e-6)
        layer = torch.where(seen, layer.clamp(-0.5, 1.5), 0)
        layers.append(torch.where(seen, layer - _mean_around(layer, NEIGHBOURHOOD), 0))
    return layers


def _scene(source: Tensor, truth: Tensor, clear: Tensor) -> Tensor:
    """The truth without its particles: for each clip the affine map of colours that fits best where it is clear."""
    scenes = []
    for before, after in zip(source, truth, strict=True):
        given = torch.cat([before, torch.ones_like(before[..., :1])], dim=-1)
        a, b = given[clear], after[clear]
        small = 1e-6 * len(a) * torch.eye(4, device=a.device)  # for clips of a few colours
        scenes.append(given @ torch.linalg.solve(a.T @ a + small, a.T @ b))
    return torch.stack(scenes)


def _shift(layer: Tensor) -> Tensor:
    """The shift [n, 2] in pixels, down and to the right, that best takes a layer [n, F, H, W] LAG frames ahead."""
    height, width = layer.shape[-2:]
    spectrum = torch.fft.rfft2(layer)
    cross = (spectrum[:, LAG:] * spectrum[:, :-LAG].conj()).sum(dim=1)
    match = torch.fft.fftshift(torch.fft.irfft2(cross, s=(height, width)), dim=(-2, -1))
    best = match.flatten(1).argmax(dim=1)
    y, x, clip = best // width, best % width, torch.arange(len(best), device=best.device)
    rows = _peak(*(match[clip, (y + d) % height, x] for d in (-1, 0, 1)))
    columns = _peak(*(match[clip, y, (x + d) % width] for d in (-1, 0, 1)))
    return torch.stack([y - height // 2 + rows, x - width // 2 + columns], dim=1)


def _peak(before: Tensor, at: Tensor, after: Tensor) -> Tensor:
    """Where a parabola through three neighbouring values is highest, from the middle one."""
    bend = before - 2 * at + after
    return torch.where(bend < 0, (before - after) / (2 * bend.clamp_max(-1e-12)), 0).clamp(-0.5, 0.5)

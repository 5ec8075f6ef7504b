"""Cut-outs over clips: paths, soft shadows and composition from back to front.

A layer is drawn once, with its path, and may then be painted, or left out, in as many clips as needed: so source and
target of a pair show the same background and the same motion. Coordinates are pixels, x to the right, y down; the
centre of the first pixel is at 0.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sana_streaming.data.motion import chance, log_uniform, speed_limited, uniform, waves

SHADOW = 0.45


@dataclass(frozen=True)
class Path:
    """Where m cut-outs are in F frames, on the CPU."""

    size: Tensor  # [m, F] side of the square picture that holds the cut-out
    angle: Tensor  # [m, F]
    position: Tensor  # [m, 2, F] centre
    shadow: Tensor  # [m, 2, F] distance of the shadow from the cut-out

    def of(self, members: Tensor) -> "Path":
        return Path(self.size[members], self.angle[members], self.position[members], self.shadow[members])

    def moved(self, right: float, down: float) -> "Path":
        return replace(self, position=self.position + torch.tensor([right, down])[:, None])


@dataclass(frozen=True)
class Layer:
    """Cut-outs in some of n clips, drawn: at most one for each clip."""

    clips: Tensor  # int64 [m], which of the n clips, on the device
    stamp: Tensor  # [m, F, 4, H, W], colours multiplied by alpha
    shadow: Tensor | None  # [m, F, 1, H, W]

    def of(self, chosen: Tensor, clips: Tensor) -> "Layer":
        """The `chosen` cut-outs, over other clips."""
        return Layer(clips, self.stamp[chosen], None if self.shadow is None else self.shadow[chosen])


def wander(m: int, frames: int, height: int, width: int, rng: Generator, low: float = 0.12, high: float = 0.55) -> Path:
    """Smooth random paths, some of which leave the picture and come back; sizes are shares of the short side."""
    short = min(height, width)
    size = log_uniform(rng, low, high, m) * short
    size = size[:, None] * (1 + 0.2 * waves(rng, frames, (40, 160), m) * chance(rng, 0.4, m)[:, None])
    turn = waves(rng, frames, (24, 120), m) * (uniform(rng, 0, 0.6, m) * chance(rng, 0.6, m))[:, None]
    angle = uniform(rng, -0.4, 0.4, m)[:, None] + turn
    view = torch.tensor([width, height])[:, None]
    path = waves(rng, frames, (40, 200), m, 2)
    reach = uniform(rng, 0.0, 0.7, m, 2) * view[:, 0]
    path = speed_limited(path, reach, log_uniform(rng, 0.002, 0.035, m, 1) * short)
    position = uniform(rng, -0.35, 0.35, m, 2, 1) * view + path + view / 2
    return Path(size, angle, position, _shadows(size, rng))


def in_sight(path: Path, visible: Tensor, height: int, width: int) -> Path:
    """The same paths, moved so that those `visible` [m] begin well inside of the picture."""
    view = torch.tensor([width, height])
    start = path.position[:, :, 0]
    margin = torch.minimum(path.size[:, :1] / 2, 0.35 * view)
    moved = torch.minimum(torch.maximum(start, margin), view - margin) - start
    return replace(path, position=path.position + (moved * visible[:, None])[:, :, None])


def points_on(path: Path, points: Tensor) -> Tensor:
    """Where points [m, 2] of the pictures, from their middle in shares of their side, are on the way -> [m, 2, F]"""
    x, y = (points[:, :, None] * path.size[:, None]).unbind(1)  # [m, F] each
    cos, sin = path.angle.cos(), path.angle.sin()
    return path.position + torch.stack([cos * x + sin * y, cos * y - sin * x], 1)


def standing(size: Tensor, position: Tensor, frames: int) -> Path:
    """Cut-outs of size [m] that stand upright and still at position [m, 2]."""
    return upright(size, position[:, :, None].expand(len(size), 2, frames))


def upright(size: Tensor, position: Tensor) -> Path:
    """Cut-outs of size [m] that do not turn, on their way along position [m, 2, F]."""
    m, _, frames = position.shape
    size = size[:, None].expand(m, frames)
    fixed = 0.2 * torch.tensor([0.25, 0.5])[:, None]  # no instruction says anything about the shadow
    return Path(size, torch.zeros(m, frames), position, fixed * size[:, None, :])


def _shadows(size: Tensor, rng: Generator) -> Tensor:
    return torch.tensor([0.25, 0.5])[:, None] * uniform(rng, 0.1, 0.3, len(size), 1, 1) * size[:, None, :]


def draw(cutouts: Tensor, path: Path, height: int, width: int, clips: Tensor, shadows: bool = True) -> Layer:
    """Cut-outs uint8 or float in [0, 1], [m, 4, S, S], on their paths, for the clips with these numbers (CPU)."""
    m, side, device = len(cutouts), cutouts.shape[-1], cutouts.device
    pictures = cutouts.float().div_(255) if cutouts.dtype == torch.uint8 else cutouts
    pictures = torch.cat([pictures[:, :3] * pictures[:, 3:], pictures[:, 3:]], 1)  # no fringes where pixels are mixed
    level = torch.log2(side / path.size.mean(-1)).clamp(0, 3).round().long().to(device, non_blocking=True)
    levels = [softened(pictures, i) for i in range(4)]
    chosen = torch.stack(levels, dim=1)[torch.arange(m, device=device), level]
    rest = torch.zeros_like(path.position)
    place = affine(2 / path.size, path.angle, path.position, rest).to(device, non_blocking=True)
    stamp = sample(chosen, points(place, height, width))
    shadow = None
    if shadows:
        below = affine(2 / path.size, path.angle, path.position + path.shadow, rest).to(device, non_blocking=True)
        shadow = sample(levels[3][:, 3:], points(below, height, width))
    return Layer(clips.to(device, non_blocking=True), stamp, shadow)


def paint(clips: Tensor, layers: Iterable[Layer]) -> Tensor:
    """Layers over clips [n, F, 3, H, W], from back to front; the clips themselves stay as they are."""
    layers = list(layers)
    out = clips.clone() if layers else clips
    for layer in layers:
        out[layer.clips] = _over(out[layer.clips], layer)
    return out


def _over(clips: Tensor, layer: Layer) -> Tensor:
    light = 1 - layer.stamp[:, :, 3:]
    if layer.shadow is not None:
        light = light * (1 - SHADOW * layer.shadow)
    return torch.addcmul(layer.stamp[:, :, :3], clips, light).clamp_(0, 1)


def cover(clips: Tensor, changed: Iterable[Layer], front: Iterable[Layer]) -> Tensor:
    """Where the changed layers and their shadows are seen behind those in front -> [n, F, 1, H, W] in [0, 1]."""
    clear = torch.ones_like(clips[:, :, :1])
    for layer in changed:
        hidden = 1 - layer.stamp[:, :, 3:]
        clear[layer.clips] *= hidden if layer.shadow is None else hidden * (1 - layer.shadow)
    region = 1 - clear
    for layer in front:
        region[layer.clips] *= 1 - layer.stamp[:, :, 3:]
    return region


def softened(pictures: Tensor, level: int) -> Tensor:
    """Pictures as they look when they are 2**level times smaller, at the old size."""
    if level == 0:
        return pictures
    return F.interpolate(F.avg_pool2d(pictures, 2**level), size=pictures.shape[-2:], mode="bilinear")


def affine(scale: Tensor, angle: Tensor, origin: Tensor, target: Tensor) -> Tensor:
    """Maps that turn by angle [n, F], scale by scale [n, F] and take origin to target [n, 2, F] -> [n, F, 2, 3]."""
    cos, sin = scale * angle.cos(), scale * angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)  # [n, F, 2, 2]
    shift = target.transpose(1, 2)[..., None] - turn @ origin.transpose(1, 2)[..., None]
    return torch.cat([turn, shift], -1)


def points(maps: Tensor, height: int, width: int) -> Tensor:
    """Each output pixel under maps [n, F, 2, 3] -> [n, F, H, W, 2]."""
    x = torch.arange(width, device=maps.device)[:, None] * maps[:, :, None, :, 0]
    y = torch.arange(height, device=maps.device)[:, None] * maps[:, :, None, :, 1] + maps[:, :, None, :, 2]
    return x[:, :, None] + y[:, :, :, None]


def sample(images: Tensor, points: Tensor, padding: str = "zeros") -> Tensor:
    """Images [n, C, h, w] at points [n, F, H, W, 2] in [-1, 1] -> [n, F, C, H, W]."""
    out = F.grid_sample(images, points.flatten(1, 2), padding_mode=padding, align_corners=False)
    return out.unflatten(2, points.shape[1:3]).transpose(1, 2)

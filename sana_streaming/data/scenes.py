"""Source clips: camera moves over photos, real video, cut-outs flying over both, and a few plain graphics.

Everything is drawn on the device of the bank, a whole kind of clip at once. Coordinates are pixels, x to the right, y
down; the centre of the first pixel is at 0.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sana_streaming.data.bank import Bank
from sana_streaming.data.layers import Layer, affine, draw, paint, points, sample, wander
from sana_streaming.data.motion import chance, eased, fork, integers, log_uniform, speed_limited, uniform, waves

KINDS = {"photo": 0.52, "still": 0.07, "video": 0.38, "graphic": 0.03}
BACKDROPS = {"photo": 0.54, "still": 0.08, "video": 0.38}  # of scenes in which an object matters
SPRITE_SHARE = 0.4  # of all clips but stills and graphics
NEAR = (0.55, 1.0)  # sides of what the camera sees of a photo, as shares of the largest that fit
ROOM, ASIDE = 0.7, 0.12  # around what it looks at, beyond NEAR of that; how far that is from the middle, of the view
STRETCH = 0.35  # by which factor, as a logarithm, cut-outs become narrower or flatter at most


def render_sources(bank: Bank, batch: int, frames: int, height: int, width: int, generator: Generator) -> Tensor:
    """-> clips [B, F, 3, H, W] float32 in [0, 1] on the device of the bank."""
    rng = fork(generator)
    out, moving = backdrops(bank, batch, frames, height, width, rng, KINDS)
    moving = moving[chance(rng, SPRITE_SHARE, len(moving))]
    layers = 1 + integers(rng, 3, len(moving))
    members = [moving[layers > i] for i in range(3 if len(bank.sprites) else 0)]
    return paint(out, [sprites(bank, clips, frames, height, width, rng) for clips in members if len(clips)])


def backdrops(
    bank: Bank, batch: int, frames: int, height: int, width: int, rng: Generator, kinds: Mapping[str, float]
) -> tuple[Tensor, Tensor]:
    """-> clips [B, F, 3, H, W] without cut-outs, and the numbers of those that a moving camera has taken."""
    if height % 16 or width % 16:
        raise ValueError(f"height and width: expected multiples of 16, got {height}x{width}")
    kind = torch.multinomial(torch.tensor(list(kinds.values())), batch, replacement=True, generator=rng)
    groups = {name: (kind == i).nonzero()[:, 0] for i, name in enumerate(kinds)}
    if not bank.clips and not bank.film:
        groups["photo"], groups["video"] = torch.cat([groups["photo"], groups["video"]]), groups["video"][:0]

    out = torch.empty(batch, frames, 3, height, width, device=bank.device)
    camera = torch.cat([groups["photo"], groups["still"]])
    if len(camera):
        still = torch.arange(len(camera)) >= len(groups["photo"])
        _put(out, camera, photo_clips(bank, frames, height, width, still, rng))
    for i in groups["video"].tolist():
        out[i] = video_clip(bank, frames, height, width, rng)
    for i in groups["graphic"].tolist() if "graphic" in groups else ():
        GRAPHICS[int(integers(rng, len(GRAPHICS)))](out[i], rng)
    grade(out, rng)
    return out, torch.cat([groups["photo"], groups["video"]])


def sprites(bank: Bank, clips: Tensor, frames: int, height: int, width: int, rng: Generator) -> Layer:
    """A cut-out on a path of its own for each of the clips with these numbers."""
    index = integers(rng, len(bank.sprites), len(clips))
    path = wander(len(clips), frames, height, width, rng)
    return draw(bank.sprites[index.to(bank.device, non_blocking=True)], path, height, width, clips)


def photo_clips(bank: Bank, frames: int, height: int, width: int, still: Tensor, rng: Generator) -> Tensor:
    """Camera moves over photos, one for each element of still [n] (true: the camera rests) -> [n, F, 3, H, W]."""
    index = integers(rng, len(bank.photos), len(still))
    photos = bank.photos[index.to(bank.device, non_blocking=True)].float().div_(255)
    return camera_moves(photos, bank.photo_sizes[index], frames, height, width, still, rng)


def camera_moves(
    photos: Tensor, sizes: Tensor, frames: int, height: int, width: int, still: Tensor, rng: Generator,
    boxes: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Padded pictures [n, C, h, w] of these sizes [n, 2], height and width -> [n, F, C, H, W].

    boxes: left, top, right and bottom [n, 4] of what the camera looks at, as near as it has room, if the photo is large
    enough for that.
    """
    n, device = len(still), photos.device
    moving = ~still
    size = sizes.flip(-1).float()  # [n, 2] width and height
    view = torch.tensor([width, height])
    fit = (size / view).amin(-1)  # photo pixels per output pixel when the view is as large as the photo allows
    near = uniform(rng, *NEAR, n)
    if boxes is not None:
        needed = ((boxes[:, 2:] - boxes[:, :2]) / view).amax(-1) / fit
        near = (needed * (ROOM + near)).clamp(*NEAR)
    base = fit * near

    zoom = (
        1
        - 0.2
        * uniform(rng, 0, 1, n)[:, None]
        * (1 + waves(rng, frames, (40, 200), n))
        / 2
        * (moving & chance(rng, 0.5, n))[:, None]
    )
    angle = uniform(rng, -0.1, 0.1, n)[:, None] * chance(rng, 0.4, n)[:, None]
    sway = waves(rng, frames, (40, 160), n) * uniform(rng, 0, 0.12, n)[:, None]
    angle = angle + sway * (moving & chance(rng, 0.4, n))[:, None]
    once = chance(rng, 0.3, n)[:, None, None]
    path = torch.where(once, eased(rng, frames, n, 2), waves(rng, frames, (32, 200), n, 2))
    margin = ((size - base[:, None] * view) / 2).clamp_min(0)
    speed = log_uniform(rng, 0.002, 0.03, n, 1) * view.min() * base[:, None]
    reach = margin * uniform(rng, 0.3, 1.1, n, 2)
    room = ASIDE * base[:, None] * view
    if boxes is not None:
        reach = torch.minimum(reach, room)
    path = speed_limited(path, reach, speed) * moving[:, None, None]
    shake = (
        waves(rng, frames, (6, 16), n, 2)
        * (uniform(rng, 0, 0.008, n) * view.min() * base * (moving & chance(rng, 0.35, n)))[:, None, None]
    )
    aside = margin * uniform(rng, -0.6, 0.6, n, 2)
    if boxes is not None:
        aside = (boxes[:, :2] + boxes[:, 2:] - size) / 2 + aside.clamp(-room, room)
    centre = ((size - 1) / 2 + aside.clamp(-margin, margin))[:, :, None] + path + shake  # [n, 2, F]

    full = torch.tensor(photos.shape[:-3:-1]).to(device, non_blocking=True)
    shrink = max(
        1.0, float((base * zoom.amax(-1)).max()) / 1.3
    )  # smooth the photos first where sampling would skip pixels
    if shrink > 1:
        small = [max(1, round(side / shrink)) for side in photos.shape[-2:]]
        photos = F.interpolate(photos, size=small, mode="bilinear", antialias=True)
    middle = ((view - 1) / 2)[:, None].expand(n, 2, frames)
    maps = _mirrored(affine(base[:, None] * zoom, angle, middle, centre), chance(rng, 0.5, n), width)
    where = points(maps.to(device, non_blocking=True), height, width)
    last = (size - 1).to(device, non_blocking=True)[:, None, None, None]
    where = last - (where.remainder(2 * last) - last).abs_()  # mirrored at the edges of the photo
    return sample(photos, where.mul_(2).add_(1).div_(full).sub_(1), padding="border")


def video_clip(bank: Bank, frames: int, height: int, width: int, rng: Generator) -> Tensor:
    """A crop of real video or film -> [F, 3, H, W]. A shot that is too short is played to and fro."""
    use_film = not bank.clips or (len(bank.film) > 0 and bool(chance(rng, 0.5)))
    shots = bank.film if use_film else bank.clips
    lengths = torch.tensor([len(shot) for shot in shots])
    weight = (lengths - frames).clamp_min(0).float() + 1e-3 * lengths if use_film else torch.ones(len(shots))
    shot = shots[int(torch.multinomial(weight, 1, generator=rng))]
    stride = 2 if len(shot) >= 2 * frames and bool(chance(rng, 0.3)) else 1
    start = int(integers(rng, max(1, len(shot) - stride * frames + 1)))
    shot = to_and_fro(shot, start + stride * frames)[start : start + stride * frames : stride]
    h, w = shot.shape[-2:]
    scale = min(h / height, w / width) * float(uniform(rng, 0.6, 1.0))
    crop_h, crop_w = min(h, round(height * scale)), min(w, round(width * scale))
    top, left = int(integers(rng, h - crop_h + 1)), int(integers(rng, w - crop_w + 1))
    crop = shot[:, :, top : top + crop_h, left : left + crop_w].float().div_(255)
    clip = F.interpolate(crop, size=(height, width), mode="bilinear", antialias=True)
    clip = clip.flip(-1) if chance(rng, 0.5) else clip
    return clip.flip(0) if chance(rng, 0.2) else clip


def to_and_fro(shot: Tensor, frames: int) -> Tensor:
    """The shot itself if it has that many frames, otherwise a copy that is played forwards and backwards."""
    if len(shot) >= frames:
        return shot
    last = max(1, len(shot) - 1)
    t = torch.arange(frames).remainder(2 * last)
    return shot[torch.minimum(t, 2 * last - t).clamp_max(len(shot) - 1).to(shot.device, non_blocking=True)]


def flat_colour(out: Tensor, rng: Generator) -> None:
    """Fill a clip [F, 3, H, W] with one colour."""
    out.copy_(colours(rng, 1, out)[0])


def gradient(out: Tensor, rng: Generator) -> None:
    """Two colours, blended along a line that turns slowly."""
    frames, _, height, width = out.shape
    angle = (uniform(rng, 0, 2 * math.pi, 1) + 0.3 * waves(rng, frames, (60, 200))).to(out.device, non_blocking=True)[
        :, None, None
    ]
    x = torch.linspace(-0.7, 0.7, width, device=out.device)
    y = torch.linspace(-0.7, 0.7, height, device=out.device)[:, None]
    mix = (0.5 + angle.cos() * x + angle.sin() * y).clamp(0, 1)[:, None]  # [F, 1, H, W]
    first, second = colours(rng, 2, out)
    out.copy_(first + (second - first) * mix)


def shapes(out: Tensor, rng: Generator) -> None:
    """Discs of plain colours drifting over a plain colour."""
    frames, _, height, width = out.shape
    flat_colour(out, rng)
    x, y = torch.arange(width, device=out.device), torch.arange(height, device=out.device)[:, None]
    view = torch.tensor([width, height])
    for radius in (log_uniform(rng, 0.05, 0.35, 6) * min(height, width)).tolist():
        centre = ((0.5 + 0.5 * waves(rng, frames, (60, 240), 2)) * view[:, None]).to(
            out.device, non_blocking=True
        )  # [2, F]
        distance = torch.hypot(x - centre[0, :, None, None], y - centre[1, :, None, None])
        out.lerp_(colours(rng, 1, out), (radius - distance + 0.5).clamp(0, 1)[:, None])


def text_like(out: Tensor, rng: Generator) -> None:
    """Lines of dark dashes on a light page, or the reverse, scrolling slowly or not at all."""
    frames, _, height, width = out.shape
    cell = max(2, round(min(height, width) * float(uniform(rng, 0.012, 0.03))))
    scroll = int(integers(rng, 3)) * torch.arange(frames)
    rows = (height + int(scroll[-1])) // (4 * cell) + 1
    ink = chance(rng, 0.7, rows, 1, width // cell + 1).float().repeat(1, 4, 1)
    ink[:, 2:] = 0  # the space between lines
    page = (
        ink.flatten(0, 1)
        .repeat_interleave(cell, 0)
        .repeat_interleave(cell, 1)[:, :width]
        .to(out.device, non_blocking=True)
    )
    lines = page[(scroll[:, None] + torch.arange(height)).to(out.device, non_blocking=True)][:, None]  # [F, 1, H, W]
    paper, text = colours(rng, 2, out)
    out.copy_(paper + (text * 0.4 - paper) * (lines if chance(rng, 0.7) else 1 - lines))


def colours(rng: Generator, count: int, out: Tensor) -> Tensor:
    """-> [count, 3, 1, 1] on the device of `out`"""
    return uniform(rng, 0, 1, count, 3, 1, 1).to(out.device, non_blocking=True)


GRAPHICS = (flat_colour, gradient, shapes, text_like)


def _mirrored(maps: Tensor, flip: Tensor, width: int) -> Tensor:
    """Maps [n, F, 2, 3] of the picture seen in a mirror where flip [n] is true."""
    mirror = torch.tensor([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]])
    return torch.where(flip[:, None, None, None], maps @ mirror, maps)


def _put(out: Tensor, index: Tensor, clips: Tensor) -> None:
    out[index.to(out.device, non_blocking=True)] = clips


def varied(cutouts: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    """Cut-outs [m, 4, S, S] in [0, 1] -> the same, half of them mirrored, half of them narrower or flatter and leaning,
    most of them graded; and where a point of a picture, counted from its middle, is now: maps [m, 2, 2] on the CPU. So
    a name means more than the pictures of it that a pack happens to hold."""
    m = len(cutouts)
    if m == 0:
        return cutouts, torch.empty(0, 2, 2)
    ratio = uniform(rng, -STRETCH, STRETCH, m) * chance(rng, 0.5, m)
    across, down = ratio.clamp_max(0).exp(), (-ratio).clamp_max(0).exp()  # one of the two is 1
    lean = (1 - across) * uniform(rng, -1, 1, m)  # so much that the picture still holds it
    side = torch.where(chance(rng, 0.5, m), -1.0, 1.0)
    zero = torch.zeros(m)
    maps = torch.stack([side * across, lean, zero, down], 1).unflatten(1, (2, 2))
    back = F.pad(torch.linalg.inv(maps), (0, 1)).to(cutouts.device, non_blocking=True)
    alpha = cutouts[:, 3:]
    mixed = torch.cat([cutouts[:, :3] * alpha, alpha], 1)
    grid = F.affine_grid(back, list(mixed.shape), align_corners=False)
    mixed = F.grid_sample(mixed, grid, align_corners=False)
    colour, alpha = mixed[:, :3], mixed[:, 3:]
    colour = (colour / alpha.clamp_min(1 / 255)).clamp_(0, 1)
    grade(colour[:, None], rng)
    return torch.cat([colour, alpha], 1), maps


def grade(clips: Tensor, rng: Generator) -> None:
    """Random white balance, saturation, brightness and gamma for most clips, in place."""
    n = len(clips)
    use = chance(rng, 0.7, n, 1).float()
    gain = (1 + use * uniform(rng, -0.12, 0.12, n, 3)) * (1 + use * uniform(rng, -0.2, 0.15, n, 1))
    saturation = 1 + use * uniform(rng, -0.4, 0.3, n, 1)
    gamma = torch.exp(use * uniform(rng, -0.25, 0.25, n, 1))
    gain, saturation, gamma = (
        x.to(clips.device, non_blocking=True)[:, None, :, None, None] for x in (gain, saturation, gamma)
    )
    grey = clips.mean(2, keepdim=True).mul_(1 - saturation)
    clips.mul_(saturation).add_(grey).mul_(gain).clamp_(0, 1).pow_(gamma)

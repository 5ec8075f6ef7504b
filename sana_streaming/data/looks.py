"""Whole-frame looks: images [M, 3, H, W] in [0, 1] -> the same picture in another style. The registry is in `edits`."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sana_streaming.data.filters import (
    blur,
    brush,
    contrast,
    distance_from_centre,
    edges,
    glow,
    gradient_map,
    grain,
    height_above,
    luma,
    mix,
    outlines,
    position,
    rgb,
    saturate,
    scale_of,
    screen,
    slope,
    smoothstep,
    steps,
    vignette,
)


def unchanged(x: Tensor) -> Tensor:
    return x


# Tone and colour


def grayscale(x: Tensor) -> Tensor:
    return luma(x).expand_as(x)


def sepia(x: Tensor) -> Tensor:
    return gradient_map(luma(x), ((0.13, 0.07, 0.03), (0.56, 0.40, 0.24), (1.0, 0.91, 0.74)))


def negative(x: Tensor) -> Tensor:
    return 1 - x


def noir(x: Tensor, depth: float = 1.0) -> Tensor:
    tone = contrast(luma(blur(x, 1)), 2.1 * depth, 0.52) * 0.96
    return vignette(glow(tone, 0.7, 4, 0.35), min(1.0, 0.75 * depth)).expand_as(x)


def vivid(x: Tensor) -> Tensor:
    tone = luma(x)
    detail = tone - blur(tone, 8)
    return saturate((x + 0.4 * detail + 0.10 * (0.5 - blur(tone, 16))).clamp(0, 1), 1.9)


def posterize(x: Tensor) -> Tensor:
    return steps(saturate(blur(brush(x, 6), 2.5), 1.5), 4, 0.2)


def duotone(x: Tensor) -> Tensor:
    return gradient_map(contrast(luma(x), 1.2), ((0.10, 0.06, 0.42), (0.86, 0.20, 0.42), (1.0, 0.86, 0.42)))


def pop_art(x: Tensor) -> Tensor:
    tone = steps(contrast(luma(blur(brush(x, 7), 4)), 1.25, 0.45), 4, 0.25)
    return gradient_map(tone, ((0.20, 0.05, 0.45), (0.90, 0.10, 0.60), (1.0, 0.55, 0.10), (1.0, 0.92, 0.20)))


def vaporwave(x: Tensor) -> Tensor:
    tone = contrast(luma(blur(x, 1.5)), 1.15)
    colours = gradient_map(
        tone, ((0.13, 0.03, 0.30), (0.52, 0.10, 0.70), (1.0, 0.35, 0.75), (0.45, 0.85, 1.0), (0.90, 1.0, 1.0))
    )
    sky = mix(rgb(x, (1.0, 0.45, 0.80)), rgb(x, (0.35, 0.25, 1.0)), height_above(x))
    return glow(mix(colours, sky, 0.18), 0.7, 6, 0.4)


def thermal(x: Tensor) -> Tensor:
    tone = contrast(luma(blur(x, 2.5)), 1.15)
    iron = (
        (0.02, 0.0, 0.12),
        (0.25, 0.0, 0.60),
        (0.75, 0.05, 0.55),
        (0.98, 0.35, 0.10),
        (1.0, 0.78, 0.10),
        (1.0, 1.0, 0.80),
    )
    return gradient_map(tone, iron)


def night_vision(x: Tensor) -> Tensor:
    _, row = position(x)
    tone = contrast(luma(glow(x, 0.6, 5, 0.5)), 1.2, 0.4) * (0.94 + 0.06 * torch.cos(row * (math.pi / 4)))
    scope = 1 - smoothstep(distance_from_centre(x), 0.62, 0.85)
    return gradient_map(tone, ((0.0, 0.09, 0.02), (0.08, 0.62, 0.12), (0.75, 1.0, 0.55))) * (0.1 + 0.9 * scope)


def x_ray(x: Tensor) -> Tensor:
    tone = luma(blur(x, 1.2)).clamp(0, 1)
    bones = (0.75 * (1 - tone) ** 1.6 + 3.0 * edges(tone, 1.4)).clamp(0, 1)
    return vignette(
        gradient_map(bones, ((0.0, 0.01, 0.05), (0.10, 0.32, 0.50), (0.62, 0.86, 0.95), (0.97, 1.0, 1.0))), 0.6
    )


# Weather, season and light


def night(x: Tensor) -> Tensor:
    tone = luma(x)
    moonlit = gradient_map(tone**1.2, ((0.02, 0.03, 0.10), (0.11, 0.18, 0.38), (0.42, 0.54, 0.78))) * (0.8 + 0.3 * x)
    lamps = smoothstep(tone, 0.82, 1.0) * rgb(x, (0.55, 0.42, 0.18))
    return vignette(screen(moonlit.clamp(0, 1), lamps), 0.45)


def sunset(x: Tensor) -> Tensor:
    warm = (x * rgb(x, (1.12, 0.80, 0.52)) + rgb(x, (0.06, 0.01, 0.03))).clamp(0, 1)
    sky = mix(rgb(x, (1.0, 0.62, 0.18)), rgb(x, (0.80, 0.24, 0.36)), height_above(x))
    return vignette(glow(mix(warm, sky, 0.15 + 0.30 * height_above(x)), 0.65, 10, 0.5), 0.3)


def greenness(x: Tensor) -> Tensor:
    """How much of a pixel's colour is that of leaves and grass -> [M, 1, H, W]"""
    return smoothstep(x[:, 1:2] - 0.55 * x[:, 0:1] - 0.45 * x[:, 2:3], 0.02, 0.16)


def winter(x: Tensor) -> Tensor:
    tone = luma(x)
    cold = gradient_map(tone, ((0.05, 0.12, 0.25), (0.46, 0.62, 0.80), (0.94, 0.98, 1.0)))
    frost = mix(cold, rgb(x, (0.92, 0.96, 1.0)), 0.65 * greenness(x) + 0.25 * smoothstep(tone, 0.45, 0.9))
    return mix(frost, x, 0.12)


def autumn(x: Tensor) -> Tensor:
    leaves = gradient_map((luma(x) * 1.35).clamp(0, 1), ((0.20, 0.03, 0.01), (0.86, 0.24, 0.02), (1.0, 0.72, 0.15)))
    warm = (saturate(x, 1.15) * rgb(x, (1.16, 0.94, 0.74)) + rgb(x, (0.05, 0.0, 0.0))).clamp(0, 1)
    return mix(warm, leaves, 0.12 + 0.85 * greenness(x))


def fog(x: Tensor, thickness: float = 1.0) -> Tensor:
    drift = 0.10 * grain(x, 60, seed=11, stretch=1.8)
    density = (thickness * (0.55 + 0.34 * height_above(x) + drift)).clamp(0, 0.97)
    return mix(blur(x, 1.5), rgb(x, (0.80, 0.83, 0.86)), density)


def underwater(x: Tensor) -> Tensor:
    column, row = position(x)
    deep = gradient_map(luma(blur(x, 1.0)), ((0.0, 0.07, 0.20), (0.02, 0.42, 0.58), (0.55, 0.95, 0.92)))
    water = mix(deep, x * rgb(x, (0.35, 0.85, 1.0)), 0.35) * (0.55 + 0.55 * height_above(x))
    across = column - 0.35 * row
    rays = (torch.cos(across / 13) * torch.cos(across / 29 + 1)).clamp(0, 1) * height_above(x) ** 1.5
    return screen(water.clamp(0, 1), rays * rgb(x, (0.25, 0.45, 0.45)))


# Drawing


def pencil(x: Tensor) -> Tensor:
    tone = luma(brush(x, 3))
    dodge = (blur(tone, 1.4) + 0.06) / (blur(tone, 6) + 0.06)
    lines = smoothstep(dodge, 0.5, 1.0)
    column, row = position(x)
    hatch = 0.5 + 0.5 * torch.cos((column + row) * (2 * math.pi / 16))
    shade = 1 - 0.30 * smoothstep(1 - blur(tone, 3), 0.35, 0.95) * (0.6 + 0.4 * hatch)
    return mix(rgb(x, (0.18, 0.18, 0.20)), rgb(x, (0.97, 0.96, 0.94)), lines * shade)


def charcoal(x: Tensor) -> Tensor:
    tone = luma(brush(x, 5))
    rough = 0.035 * grain(x, 4, seed=3)
    powder = smoothstep(tone + rough, 0.16, 0.68) * (1 - 0.9 * outlines(luma(x), 2.0, 16))
    return mix(rgb(x, (0.06, 0.06, 0.06)), rgb(x, (0.90, 0.88, 0.84)), powder)


def watercolor(x: Tensor, wet: float = 1.0) -> Tensor:
    wash = saturate(brush(x, 5 * wet), 1.8)
    pigment = 1 + 0.10 * grain(x, 30, seed=5) + 0.03 * grain(x, 6, seed=6)
    thin = 1 - (1 - wash**0.85) * 0.78 * pigment  # paint lets the paper through
    rim = (2.5 * wet * edges(luma(wash), 1.4)).clamp(0, 0.4)
    return (thin * (1 - rim) * rgb(x, (1.0, 0.985, 0.95))).clamp(0, 1)


def oil_painting(x: Tensor, thick: float = 1.0) -> Tensor:
    paint = saturate(brush(brush(x, 7 * thick), 5 * thick), 1.45)
    relief = luma(paint) + 0.06 * thick * grain(x, 5, seed=8, stretch=3)
    right, down = slope(relief, 1.2)
    return contrast(paint + 2.2 * (right + down), 1.15, 0.45)


def cartoon(x: Tensor) -> Tensor:
    flat = blur(brush(x, 7), 1.5)
    tone = luma(flat)
    shaded = flat * ((0.15 + 0.85 * steps(tone, 4, 0.22)) / (tone + 0.05))
    return saturate(shaded.clamp(0, 1), 1.5) * (1 - 0.9 * outlines(luma(brush(x, 5)), 2.4, 14))


def comic(x: Tensor) -> Tensor:
    smooth = blur(brush(x, 6), 2)
    column, row = position(x)
    dots = (torch.cos((column + row) * (math.pi / 8)) + torch.cos((column - row) * (math.pi / 8))) / 4 + 0.5
    screened = smoothstep(dots + 1.6 * (luma(smooth) - 0.36), 0.25, 0.85)
    ink = steps(saturate(smooth, 2.0), 3, 0.25)
    paper = mix(ink, rgb(x, (1.0, 0.97, 0.88)), 0.25)
    return mix(ink * 0.6, paper, screened) * (1 - outlines(luma(brush(x, 5)), 2.4, 16))


def neon(x: Tensor) -> Tensor:
    calm = brush(x, 5)
    line = smoothstep(edges(luma(calm), 2.4), 0.008, 0.05)
    hue = mix(rgb(x, (0.1, 0.95, 1.0)), rgb(x, (1.0, 0.15, 0.85)), height_above(x))
    tubes = line * mix(hue, saturate(blur(x, 6), 3.0), 0.3)
    halo = (blur(tubes, 6) * 1.1).clamp(0, 1)
    return screen(screen(tubes, halo), 0.04 * saturate(x, 1.5))


def cyberpunk(x: Tensor) -> Tensor:
    tone = contrast(luma(blur(x, 1.5)), 1.4, 0.48)
    split = gradient_map(
        tone, ((0.03, 0.0, 0.10), (0.22, 0.04, 0.45), (0.85, 0.10, 0.62), (0.20, 0.90, 0.95), (0.92, 1.0, 1.0))
    )
    lit = mix(split, saturate(x, 1.8) * rgb(x, (0.75, 0.45, 0.95)), 0.28) * 0.9
    line = smoothstep(edges(tone, 2), 0.02, 0.09) * rgb(x, (0.0, 0.75, 0.95))
    return vignette(glow(screen(lit.clamp(0, 1), 0.6 * line), 0.55, 6, 0.6), 0.5)


def emboss(x: Tensor) -> Tensor:
    right, down = slope(luma(x), 2)
    return (0.55 + 5.5 * (right + down)).clamp(0, 1) * rgb(x, (1.0, 0.98, 0.94))


def blueprint(x: Tensor) -> Tensor:
    column, row = position(x)
    grid = torch.maximum(torch.cos(column * (math.pi / 16)), torch.cos(row * (math.pi / 16)))
    paper = mix(rgb(x, (0.04, 0.17, 0.46)), rgb(x, (0.11, 0.29, 0.62)), smoothstep(grid, 0.88, 1.0))
    paper = mix(paper, rgb(x, (0.20, 0.40, 0.75)), 0.25 * luma(blur(x, 4)))
    line = smoothstep(edges(luma(brush(x, 5)), 2.2), 0.008, 0.06)
    return mix(paper, rgb(x, (0.93, 0.97, 1.0)), 0.9 * line)


def chalkboard(x: Tensor) -> Tensor:
    calm = luma(brush(x, 5))
    dust = 0.85 + 0.15 * grain(x, 12, seed=9)
    board = rgb(x, (0.12, 0.23, 0.18)) * (1 + 0.15 * grain(x, 50, seed=10))
    chalk = (smoothstep(edges(calm, 2.4), 0.008, 0.06) + 0.30 * smoothstep(blur(calm, 3), 0.45, 0.95)) * dust
    return mix(board, rgb(x, (0.95, 0.95, 0.88)), chalk.clamp(0, 1))


def pixel_art(x: Tensor) -> Tensor:
    block = max(2, round(8 * scale_of(x)))
    height, width = x.shape[-2:]
    small = F.avg_pool2d(F.pad(x, (0, -width % block, 0, -height % block), mode="replicate"), block)
    small = steps(saturate(contrast(small, 1.1), 1.4), 6, 0.4)
    return F.interpolate(small, scale_factor=block, mode="nearest")[..., :height, :width]


# Film and mood


def vintage(x: Tensor) -> Tensor:
    faded = saturate(x, 0.6) * rgb(x, (0.84, 0.74, 0.56)) + rgb(x, (0.20, 0.15, 0.12))
    column, row = position(x)
    leak = torch.exp(-column / 45) * (0.75 + 0.25 * torch.cos(row / 40))
    film = screen(faded.clamp(0, 1), leak * rgb(x, (0.85, 0.36, 0.08)))
    edge = 1 - smoothstep(distance_from_centre(x), 0.62, 1.0)
    return film * (0.12 + 0.88 * edge)


def dreamy(x: Tensor) -> Tensor:
    soft = screen(x, 0.55 * blur(x, 6))
    veil = mix(rgb(x, (0.80, 0.72, 1.0)), rgb(x, (1.0, 0.76, 0.86)), height_above(x))
    return mix(saturate(soft, 1.15), veil, 0.36)

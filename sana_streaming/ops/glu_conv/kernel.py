"""SiLU, depthwise 3x3 convolution and gate, and their gradients, each with one read of its neighbours.

SiLU is applied in a pass of its own: nine times as many exponentials would cost more than the memory that it takes.
A program works on a tile of columns and channels, [BW, BC], of one row (or, for the gradients of the weights, of all
rows, one after the other) of one picture. Arithmetic is in float32; neighbours come from the cache.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

CHANNELS = 64  # of a tile
ROWS = 16  # cells of a block of the weights' gradient


@triton.jit
def _inside(row, columns, H, W):
    rows = row + tl.zeros_like(columns)
    return (rows >= 0) & (rows < H) & (columns >= 0) & (columns < W)


@triton.jit
def _convolved(h, weight, bias, picture, row, columns, channels, mask_c, H, W, C2, BW: tl.constexpr, BC: tl.constexpr):
    """h convolved, at a tile: columns [BW], channels [BC] of 2 C -> float32 [BW, BC]"""
    acc = tl.zeros([BW, BC], tl.float32) + tl.load(bias + channels, mask=mask_c, other=0.0).to(tl.float32)[None, :]
    for i in tl.static_range(3):
        for j in tl.static_range(3):
            r, c = row + i - 1, columns + j - 1
            inside = _inside(r, c, H, W)[:, None] & mask_c[None, :]
            at = ((picture * H + r) * W + c[:, None]) * C2 + channels[None, :]
            w = tl.load(weight + (i * 3 + j) * C2 + channels, mask=mask_c, other=0.0).to(tl.float32)
            acc += tl.load(h + at, mask=inside, other=0.0).to(tl.float32) * w[None, :]
    return acc


@triton.jit
def forward_kernel(h, weight, bias, out, H, W, C, BW: tl.constexpr, BC: tl.constexpr):
    place = tl.program_id(0).to(tl.int64)
    picture, row = place // H, place % H
    columns, channels = tl.program_id(1) * BW + tl.arange(0, BW), tl.program_id(2) * BC + tl.arange(0, BC)
    mask_c = channels < C
    value = _convolved(h, weight, bias, picture, row, columns, channels, mask_c, H, W, 2 * C, BW, BC)
    gate = _convolved(h, weight, bias, picture, row, columns, channels + C, mask_c, H, W, 2 * C, BW, BC)
    at = ((picture * H + row) * W + columns[:, None]) * C + channels[None, :]
    y = value * gate * tl.sigmoid(gate)
    tl.store(out + at, y.to(out.dtype.element_ty), mask=(columns < W)[:, None] & mask_c[None, :])


@triton.jit
def gate_gradient_kernel(h, weight, bias, dout, dconv, H, W, C, BW: tl.constexpr, BC: tl.constexpr):
    """The gradient of the convolved tensor, [M, H, W, 2 C], from that of the output."""
    place = tl.program_id(0).to(tl.int64)
    picture, row = place // H, place % H
    columns, channels = tl.program_id(1) * BW + tl.arange(0, BW), tl.program_id(2) * BC + tl.arange(0, BC)
    mask_c = channels < C
    mask = (columns < W)[:, None] & mask_c[None, :]
    value = _convolved(h, weight, bias, picture, row, columns, channels, mask_c, H, W, 2 * C, BW, BC)
    gate = _convolved(h, weight, bias, picture, row, columns, channels + C, mask_c, H, W, 2 * C, BW, BC)
    cell = (picture * H + row) * W + columns[:, None]
    d = tl.load(dout + cell * C + channels[None, :], mask=mask, other=0.0).to(tl.float32)
    s = tl.sigmoid(gate)
    at = cell * 2 * C + channels[None, :]
    tl.store(dconv + at, (d * gate * s).to(dconv.dtype.element_ty), mask=mask)
    tl.store(dconv + at + C, (d * value * s * (1 + gate * (1 - s))).to(dconv.dtype.element_ty), mask=mask)


@triton.jit
def input_gradient_kernel(x, weight, dconv, dx, H, W, C2, BW: tl.constexpr, BC: tl.constexpr):
    """The gradient of x, from that of the convolved silu(x)."""
    place = tl.program_id(0).to(tl.int64)
    picture, row = place // H, place % H
    columns, channels = tl.program_id(1) * BW + tl.arange(0, BW), tl.program_id(2) * BC + tl.arange(0, BC)
    mask_c = channels < C2
    mask = (columns < W)[:, None] & mask_c[None, :]
    acc = tl.zeros([BW, BC], tl.float32)
    for i in tl.static_range(3):
        for j in tl.static_range(3):  # the place that reads this one through tap i, j
            r, c = row + 1 - i, columns + 1 - j
            inside = _inside(r, c, H, W)[:, None] & mask
            at = ((picture * H + r) * W + c[:, None]) * C2 + channels[None, :]
            w = tl.load(weight + (i * 3 + j) * C2 + channels, mask=mask_c, other=0.0).to(tl.float32)
            acc += tl.load(dconv + at, mask=inside, other=0.0).to(tl.float32) * w[None, :]
    at = ((picture * H + row) * W + columns[:, None]) * C2 + channels[None, :]
    u = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    s = tl.sigmoid(u)
    tl.store(dx + at, (acc * s * (1 + u * (1 - s))).to(dx.dtype.element_ty), mask=mask)


@triton.jit
def _tap(h, d, cells, row, column, down, right, mask, channels, H, W, C2):
    """d times h at the cells that one tap reads, [BR, BC]"""
    r, c = row + down, column + right
    inside = (r >= 0) & (r < H) & (c >= 0) & (c < W)
    there = cells + down * W + right
    u = tl.load(h + there[:, None] * C2 + channels[None, :], mask=inside[:, None] & mask, other=0.0)
    return d * u.to(tl.float32)


@triton.jit
def weight_gradient_kernel(h, dconv, dparams, M, H, W, C2, BR: tl.constexpr, BC: tl.constexpr):
    """Partial gradients of one row of taps and of the bias, for one part of all cells: dparams [3, parts, 4, 2 C].
    The cells of all pictures are one list, read in blocks [BR, BC]."""
    down, part, parts = tl.program_id(0) - 1, tl.program_id(1), tl.num_programs(1)
    channels = tl.program_id(2) * BC + tl.arange(0, BC)
    mask_c = channels < C2
    left, middle, right = tl.zeros([BR, BC], tl.float32), tl.zeros([BR, BC], tl.float32), tl.zeros([BR, BC], tl.float32)
    bias = tl.zeros([BR, BC], tl.float32)
    for start in range(part * BR, M * H * W, parts * BR):
        cells = start + tl.arange(0, BR).to(tl.int64)
        row, column = (cells // W) % H, cells % W
        mask = (cells < M * H * W)[:, None] & mask_c[None, :]
        d = tl.load(dconv + cells[:, None] * C2 + channels[None, :], mask=mask, other=0.0).to(tl.float32)
        left += _tap(h, d, cells, row, column, down, -1, mask, channels, H, W, C2)
        middle += _tap(h, d, cells, row, column, down, 0, mask, channels, H, W, C2)
        right += _tap(h, d, cells, row, column, down, 1, mask, channels, H, W, C2)
        bias += d
    to = dparams + (tl.program_id(0) * parts + part) * 4 * C2 + channels
    tl.store(to, tl.sum(left, axis=0), mask=mask_c)
    tl.store(to + C2, tl.sum(middle, axis=0), mask=mask_c)
    tl.store(to + 2 * C2, tl.sum(right, axis=0), mask=mask_c)
    tl.store(to + 3 * C2, tl.sum(bias, axis=0), mask=mask_c)


def _tiles(width: int) -> tuple[int, int]:
    """Columns of a tile, and tiles of a row."""
    columns = min(32, triton.next_power_of_2(width))
    return columns, triton.cdiv(width, columns)


def _taps(weight: Tensor) -> Tensor:
    """[2 C, 1, 3, 3] -> [9, 2 C], so that a tap's weights lie side by side"""
    return weight.flatten(1).T.contiguous()


@torch.library.custom_op("sana_streaming::glu_conv", mutates_args=())
def glu_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    hidden, taps, bias = F.silu(x.contiguous()), _taps(weight), bias.contiguous()
    pictures, height, width, channels = x.shape[0], x.shape[1], x.shape[2], x.shape[3] // 2
    out = hidden.new_empty(pictures, height, width, channels)
    columns, tiles = _tiles(width)
    grid = (pictures * height, tiles, triton.cdiv(channels, CHANNELS))
    forward_kernel[grid](hidden, taps, bias, out, height, width, channels, BW=columns, BC=CHANNELS)
    return out


@torch.library.custom_op("sana_streaming::glu_conv_backward", mutates_args=())
def glu_conv_backward(dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, dout, taps, bias = x.contiguous(), dout.contiguous(), _taps(weight), bias.contiguous()
    hidden = F.silu(x)  # again: it is cheaper than keeping it
    pictures, height, width, channels = x.shape[0], x.shape[1], x.shape[2], x.shape[3] // 2
    columns, tiles = _tiles(width)
    size = (height, width)
    dconv, dx = torch.empty_like(x), torch.empty_like(x)
    grid = (pictures * height, tiles, triton.cdiv(channels, CHANNELS))
    gate_gradient_kernel[grid](hidden, taps, bias, dout, dconv, *size, channels, BW=columns, BC=CHANNELS)
    grid = (pictures * height, tiles, triton.cdiv(2 * channels, CHANNELS))
    input_gradient_kernel[grid](x, taps, dconv, dx, *size, 2 * channels, BW=columns, BC=CHANNELS)
    parts = min(64, triton.cdiv(pictures * height * width, ROWS))
    dparams = x.new_empty(3, parts, 4, 2 * channels, dtype=torch.float32)
    grid = (3, parts, triton.cdiv(2 * channels, CHANNELS))
    weight_gradient_kernel[grid](hidden, dconv, dparams, pictures, *size, 2 * channels, BR=ROWS, BC=CHANNELS)
    summed = dparams.sum(dim=1)
    dweight = summed[:, :3].flatten(0, 1).T.to(weight.dtype).contiguous().view(weight.shape)
    return dx, dweight, summed[0, 3].clone().to(bias.dtype)


@glu_conv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:3], x.shape[3] // 2)


@glu_conv_backward.register_fake
def _(dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(weight), torch.empty_like(bias)
    )  # fmt: skip


glu_conv.register_autograd(
    lambda ctx, dout: glu_conv_backward(dout, *ctx.saved_tensors),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)

"""Triton kernels for the convolutions around the fused operation: bias, addition, activation in one pass.

A convolution of NHWC rows is a matrix product whose left operand is read directly from the feature map, tap by tap. A
transposed convolution of stride 2 is a 2x2 convolution with four times the outputs, one group for each output parity.
Sums are fp32, whatever the operands are.
"""

import triton
import triton.language as tl

from ..common.triton_functions import PLAIN, multiply3, pick


@triton.jit(do_not_specialize=PLAIN)
def conv_kernel(
    x,
    weight,
    bias,
    residual,
    out,
    H,
    W,
    out_h,
    out_w,
    tiles_x,
    tiles_y,
    C: tl.constexpr,
    COUT: tl.constexpr,
    SIDE: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    PADDING: tl.constexpr,
    SLOPE: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    UP: tl.constexpr,
    GRADIENT: tl.constexpr,
    ROWS: tl.constexpr,
    TH: tl.constexpr,
    TW: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
    COPIED: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """out[tile, BN] = LReLU(conv(x) + bias + residual) (grid: tiles of TH x TW outputs, COUT / BN).

    weight: (ROWS, SIDE * SIDE * C), ROWS = COUT, taps row-major and channels innermost; COPIED: a descriptor of blocks
    of (BN, BK), for the copy engine. In fp32 these are the upper digits, and as many rows of the lower ones follow.
    What a block has behind row COUT goes into outputs that are not stored. BK divides C, or covers a piece of the taps'
    and channels' joint range.
    GRADIENT: x is the gradient of a convolution's output and out that of its input. weight is that convolution's,
    (ROWS, SIDE * SIDE * COUT), COPIED: in blocks of (BK, BN); its taps are taken backwards. C may be more than ROWS.
    out_h, out_w: the tiled grid of outputs; with UP each of its pixels stands for 2x2 of the result, COUT counts all
    four, and so the result has COUT / 4 channels.
    SLOPE 1 is no activation.
    """
    pid = tl.program_id(0)
    n = (pid // (tiles_x * tiles_y)).to(tl.int64)
    row = tl.arange(0, TH * TW)
    py = ((pid // tiles_x) % tiles_y) * TH + row // TW
    px = (pid % tiles_x) * TW + row % TW
    first = tl.program_id(1) * BN
    cout = first + tl.arange(0, BN)
    wanted = cout < COUT
    ch = tl.arange(0, BK)
    iy, ix = py * STRIDE - PADDING, px * STRIDE - PADDING
    taps: tl.constexpr = SIDE * SIDE
    K: tl.constexpr = taps * C
    wrow = weight if COPIED or GRADIENT else weight + cout[None, :] * K + ch[:, None]
    acc = tl.zeros((TH * TW, BN), dtype=tl.float32)
    if C % BK == 0:
        at = x + n * H * W * C + (iy * W + ix)[:, None] * C + ch[None, :]
        for k in tl.range(0, K // BK, num_stages=STAGES):
            tap = k // (C // BK)
            dy, dx = (tap // SIDE) * DILATION, (tap % SIDE) * DILATION
            inside = (iy + dy >= 0) & (iy + dy < H) & (ix + dx >= 0) & (ix + dx < W)
            a = tl.load(at + ((dy * W + dx) * C + (k % (C // BK)) * BK), mask=inside[:, None], other=0.0)
            if GRADIENT:
                c, column = (k % (C // BK)) * BK, (taps - 1 - tap) * COUT
                if COPIED:
                    b = weight.load([c, column + first])
                else:
                    there = (c + ch < ROWS)[:, None] & wanted[None, :]
                    b = tl.load(weight + (c + ch)[:, None] * (taps * COUT) + column + cout[None, :], there, other=0.0)
            elif COPIED:
                b = weight.load([first, k * BK]).T
            else:
                b = tl.load(wrow + k * BK, mask=wanted[None, :], other=0.0)
            if PRECISION == "tf32x3":
                if COPIED:
                    lower = weight.load([ROWS + first, k * BK]).T
                else:
                    lower = tl.load(wrow + ROWS * K + k * BK, mask=wanted[None, :], other=0.0)
                acc = multiply3(a, b, lower, acc)
            else:
                if UPCAST:
                    a, b = a.to(tl.float32), b.to(tl.float32)
                acc = tl.dot(a, b, acc, input_precision=PRECISION)
    else:
        x += n * H * W * C
        for k in tl.range(0, K, BK):
            tap, c = (k + ch) // C, (k + ch) % C
            y, z = iy[:, None] + ((tap // SIDE) * DILATION)[None, :], ix[:, None] + ((tap % SIDE) * DILATION)[None, :]
            real = (k + ch) < K
            inside = real[None, :] & (y >= 0) & (y < H) & (z >= 0) & (z < W)
            a = tl.load(x + (y * W + z) * C + c[None, :], mask=inside, other=0.0)
            if GRADIENT:
                there = (real & (c < ROWS))[:, None] & wanted[None, :]
                at = c * (taps * COUT) + (taps - 1 - tap) * COUT
                b = tl.load(weight + at[:, None] + cout[None, :], mask=there, other=0.0)
            else:
                b = tl.load(wrow + k, mask=wanted[None, :] & real[:, None], other=0.0)
            if PRECISION == "tf32x3":
                lower = tl.load(wrow + ROWS * K + k, mask=wanted[None, :] & real[:, None], other=0.0)
                acc = multiply3(a, b, lower, acc)
            else:
                if UPCAST:
                    a, b = a.to(tl.float32), b.to(tl.float32)
                acc = tl.dot(a, b, acc, input_precision=PRECISION)

    live = ((py < out_h) & (px < out_w))[:, None] & wanted[None, :]
    if UP:
        CO: tl.constexpr = COUT // 4
        phase, c = cout // CO, cout % CO
        at = ((py * 2)[:, None] + (phase // 2)[None, :]) * (out_w * 2) + (px * 2)[:, None] + (phase % 2)[None, :]
        o = at * CO + c[None, :]
    else:
        c = cout
        o = (py * out_w + px)[:, None] * COUT + cout[None, :]
    if BIAS:
        acc += tl.load(bias + c, mask=wanted, other=0.0).to(tl.float32)[None, :]
    image = n * out_h * out_w * COUT
    if RESIDUAL:
        acc += tl.load(residual + image + o, mask=live, other=0.0).to(tl.float32)
    if SLOPE != 1.0:
        acc = tl.where(acc >= 0, acc, acc * SLOPE)
    tl.store(out + image + o, acc.to(out.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=PLAIN)
def predict_kernel(
    x,
    weight,
    bias,
    out0,
    out1,
    out2,
    out3,
    H,
    W,
    tiles_x,
    tiles_y,
    C: tl.constexpr,
    TH: tl.constexpr,
    TW: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
    COPIED: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """The predictors of an ASPDC: out_m = 3x3 convolution of x with dilation 1, 1, 2, 4 (grid: tiles, 3 dilations).

    weight: (3 * 64, 9 * C), taps row-major and channels innermost; COPIED: as in `conv_kernel`. In fp32 these are the
    upper digits, and as many rows of the lower ones follow. Of a dilation's rows the first 27 are those of module 1, 2
    or 3, and for dilation 1 rows 32 to 40 are those of module 0; the others are zero. bias: (3 * 64). out_0: rows of 9
    values, the others: rows of 27.
    """
    d = tl.program_id(1)
    pid = tl.program_id(0)
    n = (pid // (tiles_x * tiles_y)).to(tl.int64)
    row = tl.arange(0, TH * TW)
    py = ((pid // tiles_x) % tiles_y) * TH + row // TW
    px = (pid % tiles_x) * TW + row % TW
    ch = tl.arange(0, BK)
    dilation = tl.where(d == 0, 1, 2 * d)
    wrow = weight if COPIED else weight + (d * 64 + tl.arange(0, 64))[:, None] * (9 * C) + ch[None, :]
    base = x + n * H * W * C + (py * W + px)[:, None] * C + ch[None, :]
    acc = tl.zeros((TH * TW, 64), dtype=tl.float32)
    for k in tl.range(0, 9 * C // BK, num_stages=STAGES):
        tap = k // (C // BK)
        dy, dx = (tap // 3 - 1) * dilation, (tap % 3 - 1) * dilation
        inside = (py + dy >= 0) & (py + dy < H) & (px + dx >= 0) & (px + dx < W)
        a = tl.load(base + ((dy * W + dx) * C + (k % (C // BK)) * BK), mask=inside[:, None], other=0.0)
        b = weight.load([d * 64, k * BK]) if COPIED else tl.load(wrow + k * BK)
        if PRECISION == "tf32x3":
            lower = weight.load([(3 + d) * 64, k * BK]) if COPIED else tl.load(wrow + 3 * 64 * 9 * C + k * BK)
            acc = multiply3(a, b.T, lower.T, acc)
        else:
            if UPCAST:
                a, b = a.to(tl.float32), b.to(tl.float32)
            acc = tl.dot(a, b.T, acc, input_precision=PRECISION)
    c = tl.arange(0, 64)
    acc += tl.load(bias + d * 64 + c).to(tl.float32)[None, :]
    live = ((py < H) & (px < W))[:, None]
    pixel = ((n * H + py) * W + px)[:, None]
    tl.store(pick(d + 1, out0, out1, out2, out3) + pixel * 27 + c[None, :], acc, mask=live & (c < 27)[None, :])
    if d == 0:
        tl.store(out0 + pixel * 9 + (c - 32)[None, :], acc, mask=live & ((c >= 32) & (c < 41))[None, :])


@triton.jit(do_not_specialize=PLAIN)
def activation_grad_kernel(
    g,
    out,
    through,
    sums,
    P,
    C: tl.constexpr,
    CP: tl.constexpr,
    BC: tl.constexpr,
    BP: tl.constexpr,
    ROUNDS: tl.constexpr,
    SLOPE: tl.constexpr,
    THROUGH: tl.constexpr,
    SUMS: tl.constexpr,
):
    """Through = g where out > 0, else SLOPE * g; sums[program, C] = the program's part of the sum of `through`.

    g, out: NHWC rows of C values, P rows, of which a program takes BP rows ROUNDS times. through: rows of CP values,
    those from C on are zero.
    """
    ch = tl.arange(0, BC)
    acc = tl.zeros((BP, BC), dtype=tl.float32)
    first = tl.program_id(0).to(tl.int64) * (BP * ROUNDS)
    for r in range(ROUNDS):
        row = first + r * BP + tl.arange(0, BP)
        live = (row < P)[:, None] & (ch < C)[None, :]
        at = row[:, None] * C + ch[None, :]
        v = tl.load(g + at, mask=live, other=0.0).to(tl.float32)
        if SLOPE != 1.0:
            v = tl.where(tl.load(out + at, mask=live, other=0.0) > 0, v, v * SLOPE)
        if THROUGH:
            to = row[:, None] * CP + ch[None, :]
            tl.store(through + to, v.to(through.dtype.element_ty), mask=(row < P)[:, None] & (ch < CP)[None, :])
        if SUMS:
            acc += v
    if SUMS:
        tl.store(sums + tl.program_id(0) * C + ch, tl.sum(acc, 0), mask=ch < C)


@triton.jit(do_not_specialize=PLAIN)
def sum_rows_kernel(rows, total, P, C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr):
    """total[C] = the sum of P <= BP rows of C values (grid: pieces of BC values)."""
    ch = tl.program_id(0) * BC + tl.arange(0, BC)
    row = tl.arange(0, BP)
    v = tl.load(rows + row[:, None] * C + ch[None, :], mask=(row < P)[:, None] & (ch < C)[None, :], other=0.0)
    tl.store(total + ch, tl.sum(v, 0), mask=ch < C)

"""Triton kernels of dynamic filtering: a 3x3 kernel for every pixel, reflected borders, one pass over memory.

x, out, g: NHWC rows of C values. logits: NHWC rows of 9 values, row-major taps, of which the softmax is the kernel.
total: of every pixel the logarithm of the sum of exp(logit), so that exp(logit - total) is the kernel.
"""

import triton
import triton.language as tl

from ..common.triton_functions import PLAIN


@triton.jit
def reflect(i, size):
    """Index -1 or size -> the pixel it mirrors; all others stay."""
    i = tl.where(i < 0, -i, i)
    return tl.where(i >= size, 2 * size - 2 - i, i)


@triton.jit
def locate(P, H, W, C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr):
    """(pixel numbers, n, y, x, channels, pixel exists?, value exists?) of a program's BP pixels."""
    p = tl.program_id(0).to(tl.int64) * BP + tl.arange(0, BP)
    ch = tl.arange(0, BC)[None, :]
    live = p < P
    return p, p // (H * W), ((p // W) % H).to(tl.int32), (p % W).to(tl.int32), ch, live, live[:, None] & (ch < C)


@triton.jit(do_not_specialize=PLAIN)
def filter_kernel(x, logits, out, total, P, H, W, C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr):
    """out[p] = sum over taps k of kernel[p, k] * x[reflected p + k]."""
    p, n, py, px, ch, live, real = locate(P, H, W, C, BC, BP)
    largest = tl.load(logits + p * 9, mask=live, other=0.0).to(tl.float32)
    for k in tl.static_range(1, 9):
        largest = tl.maximum(largest, tl.load(logits + p * 9 + k, mask=live, other=0.0).to(tl.float32))
    acc = tl.zeros((BP, BC), dtype=tl.float32)
    s = tl.zeros((BP,), dtype=tl.float32)
    for k in tl.static_range(9):
        q = (n * H + reflect(py + k // 3 - 1, H)) * W + reflect(px + k % 3 - 1, W)
        v = tl.load(x + q[:, None] * C + ch, mask=real, other=0.0).to(tl.float32)
        e = tl.exp(tl.load(logits + p * 9 + k, mask=live, other=0.0).to(tl.float32) - largest)
        s += e
        acc += e[:, None] * v
    tl.store(out + p[:, None] * C + ch, (acc / s[:, None]).to(out.dtype.element_ty), mask=real)
    tl.store(total + p, largest + tl.log(s), mask=live)


@triton.jit(do_not_specialize=PLAIN)
def filter_backward_kernel(
    g, x, logits, total, dx, dlogits, P, H, W, C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr
):  # fmt: skip
    """dlogits[p, k] = kernel[p, k] * (d[k] - sum over l of kernel[p, l] * d[l]), d[k] = <g[p], x[reflected p + k]>;
    dx[q] = sum of kernel[p, k] * g[p] over the p that read q through k.

    Along each axis q is read by its three neighbours (d = 0..2) and, next to a border, once more by reflection: the
    first row reads the second through the tap above it (d = 3), the last the last but one through the tap below it
    (d = 4).
    """
    p, n, py, px, ch, live, real = locate(P, H, W, C, BC, BP)
    grad = tl.load(g + p[:, None] * C + ch, mask=real, other=0.0).to(tl.float32)
    tap = tl.arange(0, 16)[None, :]
    dots = tl.zeros((BP, 16), dtype=tl.float32)
    for k in tl.static_range(9):
        q = (n * H + reflect(py + k // 3 - 1, H)) * W + reflect(px + k % 3 - 1, W)
        v = tl.load(x + q[:, None] * C + ch, mask=real, other=0.0).to(tl.float32)
        dots = tl.where(tap == k, tl.sum(grad * v, 1)[:, None], dots)
    at, exists = p[:, None] * 9 + tap, live[:, None] & (tap < 9)
    logit = tl.load(logits + at, mask=exists, other=float("-inf")).to(tl.float32)
    kernel = tl.exp(logit - tl.load(total + p, mask=live, other=0.0)[:, None])
    mean = tl.sum(kernel * dots, 1)
    tl.store(dlogits + at, (kernel * (dots - mean[:, None])).to(dlogits.dtype.element_ty), mask=exists)

    acc = tl.zeros((BP, BC), dtype=tl.float32)
    border = live & ((py == 1) | (py == H - 2) | (px == 1) | (px == W - 2))
    sources = tl.where(tl.max(border.to(tl.int32), 0) > 0, 5, 3)  # most programs touch no border
    for a in range(sources):
        ky = tl.where(a < 3, a, (a - 3) * 2)
        sy = tl.where(a < 3, py - a + 1, tl.where(a == 3, 0, H - 1))
        read_y = tl.where(a < 3, (sy >= 0) & (sy < H), tl.where(a == 3, py == 1, py == H - 2))
        for b in range(sources):
            kx = tl.where(b < 3, b, (b - 3) * 2)
            sx = tl.where(b < 3, px - b + 1, tl.where(b == 3, 0, W - 1))
            read = live & read_y & tl.where(b < 3, (sx >= 0) & (sx < W), tl.where(b == 3, px == 1, px == W - 2))
            s = (n * H + sy) * W + sx
            z = tl.load(logits + s * 9 + ky * 3 + kx, mask=read, other=0.0).to(tl.float32)
            w = tl.exp(z - tl.load(total + s, mask=read, other=0.0))
            acc += w[:, None] * tl.load(g + s[:, None] * C + ch, mask=read[:, None] & real, other=0.0).to(tl.float32)
    tl.store(dx + p[:, None] * C + ch, acc.to(dx.dtype.element_ty), mask=real)

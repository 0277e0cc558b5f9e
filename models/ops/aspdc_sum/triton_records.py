"""Triton kernel that computes the records of the ASPDC sum: where every tap reads, and with which weights.

Words used in all kernel files:
  tap t    0..35 = module * 9 + (row-major position in the 3x3 window)
  record   what one tap of one pixel reads: the index of its clamped upper left corner in the image (for
           gluon_product.py in the batch), whether the right and lower corners are other pixels, and four corner weights
           that already hold attention * modulation * bilinear weight (0 for a corner outside the image); 16-bit ones
           share one 64-bit number
  tile     TH x TW pixels of one image, worked on by one program or several. Square-ish ones share corners through L1.
Records lie tile after tile, so a program reads its own with unit stride: rec_i[t, slot], rec_w[t, corner, slot].
"""

import triton
import triton.language as tl

from ..common.triton_functions import PLAIN, pick


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def cell(v, size):
    """Coordinate -> (index of the lower grid line, fraction above it). Clamping to [-2, size + 1] changes no
    sample (all of those are zero) and keeps the conversion to int defined for any offset.
    """
    v = tl.minimum(tl.maximum(v, -2.0), size + 1.0)
    lo = tl.floor(v)
    return lo.to(tl.int32), v - lo


@triton.jit
def axis(lo, size):
    """(clamped lower index, clamped upper index, lower inside?, upper inside?) along one axis."""
    return (
        tl.minimum(tl.maximum(lo, 0), size - 1),
        tl.minimum(tl.maximum(lo + 1, 0), size - 1),
        (lo >= 0) & (lo < size),
        (lo >= -1) & (lo < size - 1),
    )


@triton.jit
def tile_pixel(pid, tiles_x, tiles_y, TH: tl.constexpr, TW: tl.constexpr):
    """(image, y, x) of the TH*TW pixels of tile pid; the last tiles of a row or column reach outside the image."""
    row = tl.arange(0, TH * TW)
    y = ((pid // tiles_x) % tiles_y).to(tl.int32) * TH + row // TW
    x = (pid % tiles_x).to(tl.int32) * TW + row % TW
    return pid // (tiles_x * tiles_y), y, x


@triton.jit
def tap_position(at, sc, m, k, py, px, mask):
    """(y, x, modulation) of tap k of module m; at points to the first predictor channel of the pixel."""
    first = tl.where(m == 0, 0, 18)  # channel of the first modulation logit
    mod = sigmoid(tl.load(at + (first + k) * sc, mask=mask, other=0.0))
    shifted = mask & (m > 0)
    y = (py + k // 3 - 1) + tl.load(at + 2 * k * sc, mask=shifted, other=0.0)
    x = (px + k % 3 - 1) + tl.load(at + (2 * k + 1) * sc, mask=shifted, other=0.0)
    return y, x, mod


@triton.jit
def bits(w, part: tl.constexpr, TYPE: tl.constexpr):
    """The 16 bits of a weight as part `part` of a record of 16-bit weights."""
    return w.to(TYPE).to(tl.uint16, bitcast=True).to(tl.int64) << (16 * part)


@triton.jit
def corner_weight(w, part: tl.constexpr, TYPE: tl.constexpr):
    """Weight `part` of a record of 16-bit weights, as a column for the channels to share."""
    return ((w >> (16 * part)) & 0xFFFF).to(tl.uint16).to(TYPE, bitcast=True)[:, None]


@triton.jit(do_not_specialize=PLAIN)
def locate_kernel(
    p0,
    p1,
    p2,
    p3,
    n0,
    c0,
    y0,
    x0,
    n1,
    c1,
    y1,
    x1,
    n2,
    c2,
    y2,
    x2,
    n3,
    c3,
    y3,
    x3,
    att,
    an,
    ac,
    ay,
    ax,
    rec_i,
    rec_w,
    H,
    W,
    tiles_x,
    tiles_y,
    slots,
    TH: tl.constexpr,
    TW: tl.constexpr,
    WEIGHT_TYPE: tl.constexpr,
    BATCH: tl.constexpr,
):
    """Records of one tile and module (grid: tiles, 4), tap by tap: pixels lie side by side in every load and store.

    BATCH: indices count from the first image's first pixel on, instead of from that of each image.
    """
    m = tl.program_id(1)
    ptr = pick(m, p0, p1, p2, p3)
    sn, sc, sy, sx = pick(m, n0, n1, n2, n3), pick(m, c0, c1, c2, c3), pick(m, y0, y1, y2, y3), pick(m, x0, x1, x2, x3)
    pid = tl.program_id(0).to(tl.int64)
    n, py, px = tile_pixel(pid, tiles_x, tiles_y, TH, TW)
    inside = (py < H) & (px < W)
    a = tl.load(att + n * an + m * ac + py.to(tl.int64) * ay + px.to(tl.int64) * ax, mask=inside, other=0.0)
    at = ptr + n * sn + py.to(tl.int64) * sy + px.to(tl.int64) * sx
    slot = pid * (TH * TW) + tl.arange(0, TH * TW)
    top = n.to(tl.int32) * H if BATCH else 0
    taps = ()
    for k in tl.static_range(9):  # all loads before the first store: none would move up past a store
        taps += (tap_position(at, sc, m, k, py, px, inside),)
    for k in tl.static_range(9):
        y, x, mod = taps[k]
        iy, ly = cell(y, H)
        ix, lx = cell(x, W)
        ya, yb, ya_in, yb_in = axis(iy, H)
        xa, xb, xa_in, xb_in = axis(ix, W)
        scale = tl.where(inside, mod * a, 0.0)
        wya, wyb = tl.where(ya_in, 1.0 - ly, 0.0) * scale, tl.where(yb_in, ly, 0.0) * scale
        wxa, wxb = tl.where(xa_in, 1.0 - lx, 0.0), tl.where(xb_in, lx, 0.0)
        t = (m * 9 + k).to(tl.int64)
        tl.store(rec_i + t * slots + slot, tl.where(inside, ((top + ya) * W + xa) * 4 + (yb - ya) * 2 + (xb - xa), 0))
        wa, wb, wc, wd = wya * wxa, wya * wxb, wyb * wxa, wyb * wxb
        if WEIGHT_TYPE is not None:
            w = bits(wa, 0, WEIGHT_TYPE) | bits(wb, 1, WEIGHT_TYPE)
            w |= bits(wc, 2, WEIGHT_TYPE) | bits(wd, 3, WEIGHT_TYPE)
            tl.store(rec_w + t * slots + slot, w)
        else:
            out = rec_w + t * 4 * slots + slot
            tl.store(out, wa.to(rec_w.dtype.element_ty))
            if m > 0:  # module 0 lies on the grid: one corner
                tl.store(out + slots, wb.to(rec_w.dtype.element_ty))
                tl.store(out + 2 * slots, wc.to(rec_w.dtype.element_ty))
                tl.store(out + 3 * slots, wd.to(rec_w.dtype.element_ty))

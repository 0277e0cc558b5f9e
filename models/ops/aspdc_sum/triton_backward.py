"""Triton kernels of the ASPDC sum, backward (words: see triton_records.py).

With g = grad_out and G_t = g @ W_t (one library matrix product, "gcol", NHWC rows of 36*C per pixel), every gradient
is a sum of small pieces, because a sample is linear in its four corners v_c:
  D_c = <G_t[p], v_c>           four numbers per pixel and tap
  d modulation = a * sum_c w_c D_c,   d attention_i = sum_taps m * sum_c w_c D_c + <g, b_i>
  d offset_y   = a * m * ((1-lx)(D_10 - D_00) + lx (D_11 - D_01)), likewise x
  d f[q]       = sum of a*m*w_c*G_t[p] over the (p, t, c) whose corner c is q
  d W_t        = g^T @ (a*m*sample_t), again one library matrix product
The sum for d f is a gather: (p, t) are sorted by the grid cell that holds the sample, so all contributions to q lie in
four cells, which are two runs of the sorted list. No floating-point atomics.
"""

import triton
import triton.language as tl

from ..common.triton_functions import PLAIN, pick
from .triton_records import axis, cell, sigmoid, tap_position, tile_pixel


@triton.jit
def corner(q, g, w, mask):
    """(<G, v>, w * v) of one corner for a vector of pixels, in fp32."""
    v = tl.load(q, mask=mask, other=0.0).to(g.dtype)
    return tl.sum(g * v, 1), w.to(g.dtype)[:, None] * v


@triton.jit(do_not_specialize=PLAIN)
def taps_kernel(
    f,
    gcol,
    rec_i,
    rec_w,
    dots,
    cols,
    H,
    W,
    tiles_x,
    tiles_y,
    slots,
    C: tl.constexpr,
    BC: tl.constexpr,
    TH: tl.constexpr,
    TW: tl.constexpr,
    PX: tl.constexpr,
    FIRST: tl.constexpr,
    COLS: tl.constexpr,
):
    """D_c of every tap -> dots[t, corner, slot], and (COLS) the columns a*m*sample, which the weight gradient needs.

    A program has PX px of a tile. With whole tiles it takes longer: more has to arrive before a program goes on.
    FIRST: module 0, one corner (grid: slots / PX, 1); else modules 1..3 (grid: slots / PX, 3). The corners are read
    once for both results. Clamped corners give D_c of some other pixel; finish_kernel drops them.
    """
    begin = tl.program_id(0).to(tl.int64) * PX
    tile, place = begin // (TH * TW), begin % (TH * TW) + tl.arange(0, PX)
    n = tile // (tiles_x * tiles_y)
    py = (tile // tiles_x % tiles_y * TH + place // TW).to(tl.int32)
    px = (tile % tiles_x * TW + place % TW).to(tl.int32)
    slot = begin + tl.arange(0, PX)
    ch = tl.arange(0, BC)[None, :]
    live = ((py < H) & (px < W))[:, None] & (ch < C)
    at = ((n * H + py) * W + px)[:, None] * (36 * C) + ch
    f += n * H * W * C
    rec_i += slot
    rec_w += slot
    dots += slot
    ty: tl.constexpr = tl.float64 if f.dtype.element_ty == tl.float64 else tl.float32
    first = 0 if FIRST else 9 + tl.program_id(1) * 9
    for t in tl.range(first, first + 9, num_stages=3):
        i = tl.load(rec_i + t * slots)
        w = rec_w + t * 4 * slots
        d = dots + t * 4 * slots
        g = tl.load(gcol + at + t * C, mask=live, other=0.0).to(ty)
        q = f + (i >> 2).to(tl.int64)[:, None] * C + ch
        da, col = corner(q, g, tl.load(w), live)
        tl.store(d, da)
        if not FIRST:
            right, below = ((i & 1) * C)[:, None], (((i >> 1) & 1) * (W * C))[:, None]
            db, part = corner(q + right, g, tl.load(w + slots), live)
            col += part
            dc, part = corner(q + below, g, tl.load(w + 2 * slots), live)
            col += part
            dd, part = corner(q + below + right, g, tl.load(w + 3 * slots), live)
            col += part
            tl.store(d + slots, db)
            tl.store(d + 2 * slots, dc)
            tl.store(d + 3 * slots, dd)
        if COLS:
            tl.store(cols + at + t * C, col.to(cols.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=PLAIN)
def finish_kernel(
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
    dots,
    g,
    bias,
    g0,
    g1,
    g2,
    g3,
    gatt,
    H,
    W,
    tiles_x,
    tiles_y,
    slots,
    COUT: tl.constexpr,
    BC: tl.constexpr,
    TH: tl.constexpr,
    TW: tl.constexpr,
):
    """Gradients of offsets, logits and attention from dots (grid: tiles, 4).

    g: rows of COUT values; bias: (4, COUT). g_m: contiguous rows of 9 or 27 like the predictor maps; gatt: rows of 4.
    """
    m = tl.program_id(1)
    ptr = pick(m, p0, p1, p2, p3)
    sn, sc, sy, sx = pick(m, n0, n1, n2, n3), pick(m, c0, c1, c2, c3), pick(m, y0, y1, y2, y3), pick(m, x0, x1, x2, x3)
    gp = pick(m, g0, g1, g2, g3)
    pid = tl.program_id(0).to(tl.int64)
    n, py, px = tile_pixel(pid, tiles_x, tiles_y, TH, TW)
    inside = (py < H) & (px < W)
    a = tl.load(att + n * an + m * ac + py.to(tl.int64) * ay + px.to(tl.int64) * ax, mask=inside, other=0.0)
    k = tl.arange(0, 16)[None, :]
    mask = inside[:, None] & (k < 9)
    at = ptr + n * sn + py.to(tl.int64)[:, None] * sy + px.to(tl.int64)[:, None] * sx
    y, x, mod = tap_position(at, sc, m, k, py[:, None], px[:, None], mask)
    iy, ly = cell(y, H)
    ix, lx = cell(x, W)
    _, _, ya_in, yb_in = axis(iy, H)
    _, _, xa_in, xb_in = axis(ix, W)
    four = mask & (m > 0)
    d = dots + (m * 9 + k) * 4 * slots + pid * (TH * TW) + tl.arange(0, TH * TW)[:, None]
    da = tl.load(d, mask=mask & ya_in & xa_in, other=0.0)
    db = tl.load(d + slots, mask=four & ya_in & xb_in, other=0.0)
    dc = tl.load(d + 2 * slots, mask=four & yb_in & xa_in, other=0.0)
    dd = tl.load(d + 3 * slots, mask=four & yb_in & xb_in, other=0.0)
    hy, hx = 1.0 - ly, 1.0 - lx
    D = hy * (hx * da + lx * db) + ly * (hx * dc + lx * dd)
    p = (n * H + py) * W + px
    ch = tl.arange(0, BC)
    rows = tl.load(g + p[:, None] * COUT + ch[None, :], mask=inside[:, None] & (ch < COUT)[None, :], other=0.0)
    b = tl.load(bias + m * COUT + ch, mask=ch < COUT, other=0.0)
    ga = tl.sum(tl.where(mask, mod * D, 0.0), 1) + tl.sum(rows.to(D.dtype) * b.to(D.dtype)[None, :], 1)
    tl.store(gatt + p * 4 + m, ga.to(gatt.dtype.element_ty), mask=inside)
    s = a[:, None] * mod
    first = tl.where(m == 0, 0, 18)
    o = gp + p[:, None] * (first + 9)
    tl.store(o + first + k, s * (1.0 - mod) * D, mask=mask)
    tl.store(o + 2 * k, s * (hx * (dc - da) + lx * (dd - db)), mask=four)
    tl.store(o + 2 * k + 1, s * (hy * (db - da) + ly * (dd - dc)), mask=four)


@triton.jit(do_not_specialize=PLAIN)
def bin_kernel(
    p1,
    p2,
    p3,
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
    count,
    cells,
    rank,
    wts,
    H,
    W,
    P,
    BM: tl.constexpr,
    RANK: tl.constexpr,
):
    """Counts the samples of every cell of the (H+1) x (W+1) grid between pixels (grid: pixel blocks, 27 taps).

    Entry e = tap * P + pixel gets its cell (-1: entirely outside the image), the corner weights
    wts[corner, e] and, with RANK, its index within the cell in order of arrival.
    """
    t = tl.program_id(1)
    m, k = t // 9 + 1, t % 9
    ptr = pick(m, p1, p1, p2, p3)
    sn, sc, sy, sx = pick(m, n1, n1, n2, n3), pick(m, c1, c1, c2, c3), pick(m, y1, y1, y2, y3), pick(m, x1, x1, x2, x3)
    p = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    live = p < P
    px, py, n = (p % W).to(tl.int32), ((p // W) % H).to(tl.int32), p // (H * W)
    at = ptr + n * sn + py.to(tl.int64) * sy + px.to(tl.int64) * sx
    a = tl.load(att + n * an + m * ac + py.to(tl.int64) * ay + px.to(tl.int64) * ax, mask=live, other=0.0)
    y, x, mod = tap_position(at, sc, m, k, py, px, live)
    iy, ly = cell(y, H)
    ix, lx = cell(x, W)
    hit = live & (iy >= -1) & (iy < H) & (ix >= -1) & (ix < W)
    c = (n * (H + 1) + iy + 1) * (W + 1) + ix + 1
    e = t.to(tl.int64) * P + p
    tl.store(cells + e, tl.where(hit, c, -1).to(tl.int32), mask=live)
    r = tl.atomic_add(count + c, 1, mask=hit, sem="relaxed")
    if RANK:
        tl.store(rank + e, r, mask=hit)
    s, E = a * mod, P.to(tl.int64) * 27
    tl.store(wts + e, s * (1.0 - ly) * (1.0 - lx), mask=live)
    tl.store(wts + E + e, s * (1.0 - ly) * lx, mask=live)
    tl.store(wts + 2 * E + e, s * ly * (1.0 - lx), mask=live)
    tl.store(wts + 3 * E + e, s * ly * lx, mask=live)


@triton.jit(do_not_specialize=PLAIN)
def order_kernel(cells, rank, start, wts, order, ws, P, E, BM: tl.constexpr):
    """Entries into the order of their cells: order = row of gcol, ws = its four corner weights."""
    e = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    c = tl.load(cells + e, mask=e < E, other=-1)
    hit = c >= 0
    to = tl.load(start + c, mask=hit, other=0) + tl.load(rank + e, mask=hit, other=0)
    tl.store(order + to, ((e % P) * 36 + 9 + e // P).to(tl.int32), mask=hit)
    for j in tl.static_range(4):
        w = tl.load(wts + j * E.to(tl.int64) + e, mask=hit, other=0.0)
        tl.store(ws + to.to(tl.int64) * 4 + j, w, mask=hit)


@triton.jit(do_not_specialize=PLAIN)
def gather_kernel(
    gcol,
    order,
    ws,
    start,
    p0,
    n0,
    c0,
    y0,
    x0,
    att,
    an,
    ac,
    ay,
    ax,
    gf,
    H,
    W,
    C: tl.constexpr,
    BC: tl.constexpr,
    J: tl.constexpr,
):
    """D f of one pixel q per program: module 0's nine neighbours, then the two runs of sorted entries."""
    q = tl.program_id(0).to(tl.int64)
    x, y, n = (q % W).to(tl.int32), ((q // W) % H).to(tl.int32), q // (H * W)
    ch = tl.arange(0, BC)[None, :]
    cm = ch < C
    ty: tl.constexpr = tl.float64 if gcol.dtype.element_ty == tl.float64 else tl.float32

    k = tl.arange(0, 16)  # module 0: pixel p sees q through tap k
    py, px = y + 1 - k // 3, x + 1 - k % 3
    near = (k < 9) & (py >= 0) & (py < H) & (px >= 0) & (px < W)
    z = tl.load(p0 + n * n0 + py.to(tl.int64) * y0 + px.to(tl.int64) * x0 + k * c0, mask=near, other=0.0)
    w0 = sigmoid(z) * tl.load(att + n * an + py.to(tl.int64) * ay + px.to(tl.int64) * ax, mask=near, other=0.0)
    r0 = ((n * H + py) * W + px) * 36 + k
    v0 = tl.load(gcol + r0[:, None] * C + ch, mask=near[:, None] & cm, other=0.0).to(ty)
    total = tl.sum(w0[:, None] * v0, 0)

    acc = tl.zeros((J, BC), dtype=ty)
    jj = tl.arange(0, J)
    for lower in tl.static_range(2):  # cells above q (q is their lower corner), then below
        at = start + (n * (H + 1) + y + lower) * (W + 1) + x
        lo, mid, hi = tl.load(at), tl.load(at + 1), tl.load(at + 2)
        for s in range(lo, hi, J):
            j = s + jj
            on = j < hi
            corner = (2 - 2 * lower) + tl.where(j < mid, 1, 0)
            w = tl.load(ws + j.to(tl.int64) * 4 + corner, mask=on, other=0.0)
            r = tl.load(order + j, mask=on, other=0).to(tl.int64)
            v = tl.load(gcol + r[:, None] * C + ch, mask=on[:, None] & cm, other=0.0).to(ty)
            acc += w[:, None] * v
    total += tl.sum(acc, 0)
    chv = tl.arange(0, BC)
    tl.store(gf + q * C + chv, total.to(gf.dtype.element_ty), mask=chv < C)

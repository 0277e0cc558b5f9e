"""Triton kernels of the fused operation, forward.

Words used in both kernel files:
  tap t    0..35 = module * 9 + (row-major position in the 3x3 window)
  record   what one tap of one pixel reads: the index of its clamped upper left corner in the image, whether the
           right and lower corners are other pixels, and four corner weights that already hold
           attention * modulation * bilinear weight (0 for a corner outside the image); 16-bit ones packed into one
           64-bit number
  tile     TH x TW pixels of one image, worked on by one program. Square-ish tiles share corners through L1.
Records lie tile after tile, so a program reads its own with unit stride: rec_i[t, slot], rec_w[t, corner, slot].
"""

import triton
import triton.language as tl

# Sizes and strides stay plain numbers: Triton would turn a 1 among them into a constant of another type.
PLAIN = [a + str(i) for i in range(4) for a in "ncyx"] + [
    "an",
    "ac",
    "ay",
    "ax",
    "H",
    "W",
    "P",
    "E",
    "tiles_x",
    "tiles_y",
]


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def pick(i, v0, v1, v2, v3):
    """v_i: one kernel serves the four modules, each with a predictor map of its own."""
    r = v0
    if i == 1:
        r = v1
    if i == 2:
        r = v2
    if i == 3:
        r = v3
    return r


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
def tap_place(at, sc, m, k, py, px, mask):
    """(y, x, modulation) of tap k of module m; at points to the first predictor channel of the pixel."""
    first = tl.where(m == 0, 0, 18)  # channel of the first modulation logit
    mod = sigmoid(tl.load(at + (first + k) * sc, mask=mask, other=0.0))
    shifted = mask & (m > 0)
    y = (py + k // 3 - 1) + tl.load(at + 2 * k * sc, mask=shifted, other=0.0)
    x = (px + k % 3 - 1) + tl.load(at + (2 * k + 1) * sc, mask=shifted, other=0.0)
    return y, x, mod


@triton.jit
def bits(w, place: tl.constexpr, TYPE: tl.constexpr):
    """The 16 bits of a weight as part `place` of a packed record."""
    return w.to(TYPE).to(tl.uint16, bitcast=True).to(tl.int64) << (16 * place)


@triton.jit
def unpacked(w, place: tl.constexpr, TYPE: tl.constexpr):
    """Weight `place` of a packed record, as a column for the channels to share."""
    return ((w >> (16 * place)) & 0xFFFF).to(tl.uint16).to(TYPE, bitcast=True)[:, None]


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
    PACKED: tl.constexpr,
):
    """Records of one tile and module (grid: tiles, 4), tap by tap: pixels lie side by side in every load and store."""
    m = tl.program_id(1)
    ptr = pick(m, p0, p1, p2, p3)
    sn, sc, sy, sx = pick(m, n0, n1, n2, n3), pick(m, c0, c1, c2, c3), pick(m, y0, y1, y2, y3), pick(m, x0, x1, x2, x3)
    pid = tl.program_id(0).to(tl.int64)
    n, py, px = tile_pixel(pid, tiles_x, tiles_y, TH, TW)
    inside = (py < H) & (px < W)
    a = tl.load(att + n * an + m * ac + py.to(tl.int64) * ay + px.to(tl.int64) * ax, mask=inside, other=0.0)
    at = ptr + n * sn + py.to(tl.int64) * sy + px.to(tl.int64) * sx
    slot = pid * (TH * TW) + tl.arange(0, TH * TW)
    for k in tl.static_range(9):
        y, x, mod = tap_place(at, sc, m, k, py, px, inside)
        iy, ly = cell(y, H)
        ix, lx = cell(x, W)
        ya, yb, ya_in, yb_in = axis(iy, H)
        xa, xb, xa_in, xb_in = axis(ix, W)
        scale = tl.where(inside, mod * a, 0.0)
        wya, wyb = tl.where(ya_in, 1.0 - ly, 0.0) * scale, tl.where(yb_in, ly, 0.0) * scale
        wxa, wxb = tl.where(xa_in, 1.0 - lx, 0.0), tl.where(xb_in, lx, 0.0)
        t = (m * 9 + k).to(tl.int64)
        tl.store(rec_i + t * slots + slot, tl.where(inside, (ya * W + xa) * 4 + (yb - ya) * 2 + (xb - xa), 0))
        wa, wb, wc, wd = wya * wxa, wya * wxb, wyb * wxa, wyb * wxb
        if PACKED is not None:
            w = bits(wa, 0, PACKED) | bits(wb, 1, PACKED) | bits(wc, 2, PACKED) | bits(wd, 3, PACKED)
            tl.store(rec_w + t * slots + slot, w)
        else:
            out = rec_w + t * 4 * slots + slot
            tl.store(out, wa.to(rec_w.dtype.element_ty))
            if m > 0:  # module 0 lies on the grid: one corner
                tl.store(out + slots, wb.to(rec_w.dtype.element_ty))
                tl.store(out + 2 * slots, wc.to(rec_w.dtype.element_ty))
                tl.store(out + 3 * slots, wd.to(rec_w.dtype.element_ty))


@triton.jit
def blend1(v, w, BLEND: tl.constexpr):
    if BLEND == "bf16x2":
        return tl.inline_asm_elementwise(
            "mul.rn.bf16x2 $0, $1, $2;", "=r,r,r", [v, w], dtype=tl.bfloat16, is_pure=True, pack=2
        )
    elif BLEND == "f16x2":
        return tl.inline_asm_elementwise(
            "mul.rn.f16x2 $0, $1, $2;", "=r,r,r", [v, w], dtype=tl.float16, is_pure=True, pack=2
        )
    elif BLEND == "fp32":
        return (v.to(tl.float32) * w.to(tl.float32)).to(v.dtype)
    else:
        return v * w


@triton.jit
def blend4(va, vb, vc, vd, wa, wb, wc, wd, BLEND: tl.constexpr):
    """The modulated sample. 16-bit types: in fp32, or two channels per instruction in their own type."""
    if BLEND == "bf16x2":
        return tl.inline_asm_elementwise(
            "mul.rn.bf16x2 $0, $1, $5; fma.rn.bf16x2 $0, $2, $6, $0; fma.rn.bf16x2 $0, $3, $7, $0; "
            "fma.rn.bf16x2 $0, $4, $8, $0;",
            "=&r,r,r,r,r,r,r,r,r",
            [va, vb, vc, vd, wa, wb, wc, wd],
            dtype=tl.bfloat16,
            is_pure=True,
            pack=2,
        )
    elif BLEND == "f16x2":
        return tl.inline_asm_elementwise(
            "mul.rn.f16x2 $0, $1, $5; fma.rn.f16x2 $0, $2, $6, $0; fma.rn.f16x2 $0, $3, $7, $0; "
            "fma.rn.f16x2 $0, $4, $8, $0;",
            "=&r,r,r,r,r,r,r,r,r",
            [va, vb, vc, vd, wa, wb, wc, wd],
            dtype=tl.float16,
            is_pure=True,
            pack=2,
        )
    elif BLEND == "fp32":
        s = va.to(tl.float32) * wa.to(tl.float32) + vb.to(tl.float32) * wb.to(tl.float32)
        s += vc.to(tl.float32) * wc.to(tl.float32)
        s += vd.to(tl.float32) * wd.to(tl.float32)
        return s.to(va.dtype)
    else:
        return va * wa + vb * wb + vc * wc + vd * wd


@triton.jit
def sample0(f, rec_w, t, slots, i, ch, C: tl.constexpr, BLEND: tl.constexpr, WIDE: tl.constexpr):
    """Samples of tap t of module 0, which lies on the grid: one corner. i: the tap's records."""
    i = i >> 2
    if WIDE:
        i = i.to(tl.int64)
    v = tl.load(f + (i * C)[:, None] + ch[None, :])
    if rec_w.dtype.element_ty == tl.int64:
        return blend1(v, unpacked(tl.load(rec_w + t * slots), 0, v.dtype), BLEND)
    else:
        return blend1(v, tl.load(rec_w + t * 4 * slots)[:, None], BLEND)


@triton.jit
def sample(f, rec_w, t, slots, i, W, ch, C: tl.constexpr, BLEND: tl.constexpr, WIDE: tl.constexpr):
    """Samples of tap t: four corners, every one a row of consecutive channels. Never masked: a corner outside the
    image is a clamped address with weight 0.
    """
    right, below = ((i & 1) * C)[:, None], (((i >> 1) & 1) * (W * C))[:, None]
    i = i >> 2
    if WIDE:
        i = i.to(tl.int64)
    q = f + (i * C)[:, None] + ch[None, :]
    va, vb, vc, vd = tl.load(q), tl.load(q + right), tl.load(q + below), tl.load(q + below + right)
    T: tl.constexpr = va.dtype
    if rec_w.dtype.element_ty == tl.int64:
        w = tl.load(rec_w + t * slots)
        wa, wb, wc, wd = unpacked(w, 0, T), unpacked(w, 1, T), unpacked(w, 2, T), unpacked(w, 3, T)
    else:
        w = rec_w + t * 4 * slots
        wa, wb = tl.load(w)[:, None], tl.load(w + slots)[:, None]
        wc, wd = tl.load(w + 2 * slots)[:, None], tl.load(w + 3 * slots)[:, None]
    return blend4(va, vb, vc, vd, wa, wb, wc, wd, BLEND)


@triton.jit
def multiply(a, weight, cout, k, acc, PRECISION: tl.constexpr, UPCAST: tl.constexpr):
    b = weight.load([cout, k])
    if UPCAST:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b.T, acc, input_precision=PRECISION, out_dtype=acc.dtype)


@triton.jit(do_not_specialize=PLAIN)
def product_kernel(
    f,
    rec_i,
    rec_w,
    weight,
    att,
    an,
    ac,
    ay,
    ax,
    bias,
    out,
    H,
    W,
    tiles_x,
    tiles_y,
    slots,
    COUT,
    C: tl.constexpr,
    TH: tl.constexpr,
    TW: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BLEND: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDE: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """out[tile, BN outputs] = sum over taps and channels of sample * weight, + sum_i a_i b_i (grid: tiles, Cout/BN).

    f, out: NHWC. weight: descriptor of (Cout, 36 * C) in blocks of (BN, BK), which the copy engine brings to shared
    memory past L1 and the registers. BK channels at a time, all taps of them before the next BK: the part of the image
    in use stays small enough for L1.
    Samples are carried around the loop (made for tap t+1 after the product of tap t). Besides the order of work this
    fixes their layout in Triton: made and used in one iteration, each of the four corners is moved to the matrix
    units' layout through shared memory before the blend (18 barriers an iteration where this form has 2).
    WIDE: an image has 2^31 or more values, so offsets into it need 64 bits.
    UPCAST: the interpreter's dot takes bf16 for integers, so there the rounded operands go in as fp32.
    """
    BM: tl.constexpr = TH * TW
    pid = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, BM)
    n, py, px = tile_pixel(pid, tiles_x, tiles_y, TH, TW)
    first = tl.program_id(1) * BN
    cout = first + tl.arange(0, BN)
    ch = tl.arange(0, BK)
    f += n * H * W * C
    rec_i += pid * BM + row
    rec_w += pid * BM + row
    ty: tl.constexpr = tl.float64 if f.dtype.element_ty == tl.float64 else tl.float32
    acc = tl.zeros((BM, BN), dtype=ty)

    for c in tl.range(0, C, BK, num_stages=1):
        a = sample0(f, rec_w, 0, slots, tl.load(rec_i), ch, C, BLEND, WIDE)
        i = tl.load(rec_i + slots)  # records one tap ahead of the samples
        for t in tl.range(0, 9, num_stages=1):
            acc = multiply(a, weight, first, t * C + c, acc, PRECISION, UPCAST)
            a = sample0(f, rec_w, tl.minimum(t + 1, 8), slots, i, ch, C, BLEND, WIDE)
            i = tl.load(rec_i + tl.minimum(t + 2, 8) * slots)

        a = sample(f, rec_w, 9, slots, tl.load(rec_i + 9 * slots), W, ch, C, BLEND, WIDE)
        i = tl.load(rec_i + 10 * slots)
        for t in tl.range(9, 36, num_stages=1):
            acc = multiply(a, weight, first, t * C + c, acc, PRECISION, UPCAST)
            a = sample(f, rec_w, tl.minimum(t + 1, 35), slots, i, W, ch, C, BLEND, WIDE)
            i = tl.load(rec_i + tl.minimum(t + 2, 35) * slots)
        ch += BK

    inside = (py < H) & (px < W)
    at = att + n * an + py.to(tl.int64) * ay + px.to(tl.int64) * ax
    for m in tl.range(4, num_stages=1):
        a_m = tl.load(at + m * ac, mask=inside, other=0.0).to(ty)
        b_m = tl.load(bias + m * COUT + cout, mask=cout < COUT, other=0.0).to(ty)
        acc += a_m[:, None] * b_m[None, :]
    o = out + ((n * H + py) * W + px)[:, None] * COUT + cout[None, :]
    tl.store(o, acc.to(out.dtype.element_ty), mask=inside[:, None] & (cout < COUT)[None, :])

"""Triton kernel of the ASPDC sum, forward (words: see triton_records.py)."""

import triton
import triton.language as tl

from ..common.triton_functions import PLAIN
from .triton_records import corner_weight, tile_pixel


@triton.jit
def blend1(v, w, BLEND: tl.constexpr):
    if BLEND == "bf16x2":
        return tl.inline_asm_elementwise(
            "{ .reg .b32 z; mov.b32 z, 0x80008000; fma.rn.bf16x2 $0, $1, $2, z; }",
            "=r,r,r",
            [v, w],
            dtype=tl.bfloat16,
            is_pure=True,
            pack=2,
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
            "{ .reg .b32 z; mov.b32 z, 0x80008000; fma.rn.bf16x2 $0, $1, $5, z; fma.rn.bf16x2 $0, $2, $6, $0; "
            "fma.rn.bf16x2 $0, $3, $7, $0; fma.rn.bf16x2 $0, $4, $8, $0; }",
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
        return blend1(v, corner_weight(tl.load(rec_w + t * slots), 0, v.dtype), BLEND)
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
        wa, wb, wc, wd = corner_weight(w, 0, T), corner_weight(w, 1, T), corner_weight(w, 2, T), corner_weight(w, 3, T)
    else:
        w = rec_w + t * 4 * slots
        wa, wb = tl.load(w)[:, None], tl.load(w + slots)[:, None]
        wc, wd = tl.load(w + 2 * slots)[:, None], tl.load(w + 3 * slots)[:, None]
    return blend4(va, vb, vc, vd, wa, wb, wc, wd, BLEND)


@triton.jit
def multiply(a, weight, cout, k, acc, COPIED: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr):
    b = weight.load([cout, k]) if COPIED else tl.load(weight + k)
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
    COPIED: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDE: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """out[tile, BN outputs] = sum over taps and channels of sample * weight, + sum_i a_i b_i (grid: tiles, Cout/BN).

    f, out: NHWC. weight: (Cout, 36 * C); COPIED: a descriptor of blocks of (BN, BK), which the copy engine brings to
    shared memory past L1 and the registers. BK channels at a time, all taps of them before the next BK: the part of the
    image in use stays small enough for L1.
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
    if not COPIED:  # a row in place of those behind the last one, whose outputs are not stored
        weight += tl.minimum(cout, COUT - 1)[:, None] * (36 * C) + ch[None, :]
    rec_i += pid * BM + row
    rec_w += pid * BM + row
    ty: tl.constexpr = tl.float64 if f.dtype.element_ty == tl.float64 else tl.float32
    acc = tl.zeros((BM, BN), dtype=ty)

    for c in tl.range(0, C, BK, num_stages=1):
        a = sample0(f, rec_w, 0, slots, tl.load(rec_i), ch, C, BLEND, WIDE)
        i = tl.load(rec_i + slots)  # records one tap ahead of the samples
        for t in tl.range(0, 9, num_stages=1):
            acc = multiply(a, weight, first, t * C + c, acc, COPIED, PRECISION, UPCAST)
            a = sample0(f, rec_w, tl.minimum(t + 1, 8), slots, i, ch, C, BLEND, WIDE)
            i = tl.load(rec_i + tl.minimum(t + 2, 8) * slots)

        a = sample(f, rec_w, 9, slots, tl.load(rec_i + 9 * slots), W, ch, C, BLEND, WIDE)
        i = tl.load(rec_i + 10 * slots)
        for t in tl.range(9, 36, num_stages=1):
            acc = multiply(a, weight, first, t * C + c, acc, COPIED, PRECISION, UPCAST)
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

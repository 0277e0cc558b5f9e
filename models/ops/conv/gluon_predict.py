"""The predictors of an ASPDC for GPUs of compute capability 9 in 16-bit types and 128 channels, in Gluon.

It does what `triton_kernels.predict_kernel` does with a third of its traffic between L2 and shared memory, which bounds
that one. Units, tiles, partitions, rings and views are those of `gluon_conv.py`, which says what they are.

**Stages and steps.** A tile takes, for each half of the channels, seven stages: its features shifted by dx = -1, 1, -2,
2, -4, 4 and 0, with as many rows above and below as the dilation reaches. In the first six a step of three products,
one for each dy, belongs to the one dilation of that reach; the last stage has such a step for each dilation. A step has
its block of weights: three taps of 64 rows for dilation 1, which are two modules', and of 32 for the others.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from .gluon_conv import BOX, FLAT, after, before, new_barriers, tile_at

SLOTS_X = gl.constexpr(3)  # of features
SLOTS_W = gl.constexpr(4)  # of weights; together 216 of the 227 KB that a program can have
ROWS = gl.constexpr(40)  # of 8 px in a feature slot
PARTS = gl.constexpr(6)  # of 32 rows in a weight slot


@gluon.jit
def load_features(x, x_rows, slots, slot, full, n, y, left, c, units, EXTRA: gl.constexpr):
    """EXTRA: rows more than those of the units; x_rows: descriptor of boxes of so many rows."""
    for count in gl.static_range(1, 5):  # the number of bytes has to be a constant
        mbarrier.expect(full, count * 8192 + EXTRA * 1024, pred=units == count)
    for i in gl.static_range(4):
        to = slots.index(slot * ROWS + 8 * i)._reinterpret(x.dtype, [1, 8, 8, 64], BOX)
        tma.async_copy_global_to_shared(x, [n, y + 8 * i, left, c], full, to, pred=i < units)
    to = slots.index(slot * ROWS + 8 * units)._reinterpret(x.dtype, [1, EXTRA, 8, 64], BOX)
    tma.async_copy_global_to_shared(x_rows, [n, y + 8 * units, left, c], full, to)


@gluon.jit
def load_weights(weight, slots, slot, full, c, column: gl.constexpr, D: gl.constexpr):
    MANY: gl.constexpr = 1 if D else 2
    mbarrier.expect(full, 3 * MANY * 4096)
    for row in gl.static_range(3):
        for i in gl.static_range(MANY):
            at = [D * 64 + i * 32, (row * 3 + column) * 128 + c]
            tma.async_copy_global_to_shared(weight, at, full, slots.index(slot * PARTS + row * MANY + i))


@gluon.jit
def load_stage(descriptors, buffers, barriers, ring, n, y, left, c, units, S: gl.constexpr):
    x, x2, x4, weight = descriptors
    x_slots, w_slots = buffers
    full_x, empty_x, full_w, empty_w = barriers
    xs, xp, ws, wp = ring
    D: gl.constexpr = S // 2 if S < 6 else 2
    REACH: gl.constexpr = 1 << D
    DX: gl.constexpr = 0 if S == 6 else (REACH if S % 2 else -REACH)
    COLUMN: gl.constexpr = 1 if S == 6 else (2 if S % 2 else 0)
    rows = x2 if D == 0 else (x4 if D == 1 else x)
    mbarrier.wait(empty_x.index(xs), xp)
    load_features(x, rows, x_slots, xs, full_x.index(xs), n, y - REACH, left + DX, c, units, 2 * REACH)
    xs, xp = after(xs, xp, SLOTS_X)
    for d in gl.static_range(3):
        if S == 6 or d == D:
            mbarrier.wait(empty_w.index(ws), wp)
            load_weights(weight, w_slots, ws, full_w.index(ws), c, COLUMN, d)
            ws, wp = after(ws, wp, SLOTS_W)
    return xs, xp, ws, wp


@gluon.jit
def produce(descriptors, buffers, barriers, numbers):
    unit, end, height, width = numbers
    xs, xp, ws, wp = 0, 1, 0, 1
    while unit < end:
        n, y, left, units = tile_at(unit, end, height, width)
        for half in range(2):
            for s in gl.static_range(7):
                ring = xs, xp, ws, wp
                xs, xp, ws, wp = load_stage(descriptors, buffers, barriers, ring, n, y, left, half * 64, units, s)
        unit += units


@gluon.jit
def step(x_slots, w_slots, xs, ws, row, acc, REACHED: gl.constexpr, D: gl.constexpr, M: gl.constexpr):
    """Three products of a dilation; REACHED: how many rows its features begin above the tile."""
    N: gl.constexpr = 32 if D else 64
    for dy in gl.static_range(3):
        first = xs * ROWS + row + REACHED + (dy - 1) * (1 << D)
        features = x_slots.index(first)._reinterpret(x_slots.dtype, [M, 64], FLAT)
        taps = w_slots.index(ws * PARTS + dy * (N // 32))._reinterpret(w_slots.dtype, [N, 64], FLAT)
        acc = warpgroup_mma(features, taps.permute((1, 0)), acc, is_async=True)
    return acc


@gluon.jit
def multiply_stage(
    sums, buffers, barriers, ring, half, row, S: gl.constexpr, M: gl.constexpr, UNITS: gl.constexpr
):  # fmt: skip
    x_slots, w_slots = buffers
    full_x, empty_x, full_w, empty_w = barriers
    xs, xp, ws, wp = ring
    a0, a1, a2 = sums
    D: gl.constexpr = S // 2 if S < 6 else 2
    mbarrier.wait(full_x.index(xs), xp)
    for d in gl.static_range(3):
        if S == 6 or d == D:
            mbarrier.wait(full_w.index(ws), wp)
            if UNITS > 0:
                if d == 0:
                    a0 = step(x_slots, w_slots, xs, ws, row, a0, 1 << D, d, M)
                elif d == 1:
                    a1 = step(x_slots, w_slots, xs, ws, row, a1, 1 << D, d, M)
                else:
                    a2 = step(x_slots, w_slots, xs, ws, row, a2, 1 << D, d, M)
                a0, a1, a2 = warpgroup_mma_wait(3, deps=(a0, a1, a2))
            # The products before these three have read their operands.
            if S == 0:
                mbarrier.arrive(empty_w.index(before(ws, SLOTS_W)), pred=half > 0)
                mbarrier.arrive(empty_x.index(before(xs, SLOTS_X)), pred=half > 0)
            else:
                mbarrier.arrive(empty_w.index(before(ws, SLOTS_W)))
                if S < 6 or d == 0:
                    mbarrier.arrive(empty_x.index(before(xs, SLOTS_X)))
            ws, wp = after(ws, wp, SLOTS_W)
    xs, xp = after(xs, xp, SLOTS_X)
    return a0, a1, a2, xs, xp, ws, wp


@gluon.jit
def products(
    buffers, barriers, ring, row, WIDE: gl.constexpr, NARROW: gl.constexpr, M: gl.constexpr, UNITS: gl.constexpr
):  # fmt: skip
    """The sums of a consumer's part of a tile for the three dilations, and where the rings are then."""
    _, empty_x, _, empty_w = barriers
    xs, xp, ws, wp = ring
    a0 = gl.zeros([M, 64], gl.float32, WIDE)
    a1 = gl.zeros([M, 32], gl.float32, NARROW)
    a2 = gl.zeros([M, 32], gl.float32, NARROW)
    for half in range(2):
        for s in gl.static_range(7):
            a0, a1, a2, xs, xp, ws, wp = multiply_stage(
                (a0, a1, a2), buffers, barriers, (xs, xp, ws, wp), half, row, s, M, UNITS
            )
    if UNITS > 0:
        a0, a1, a2 = warpgroup_mma_wait(0, deps=(a0, a1, a2))
    mbarrier.arrive(empty_w.index(before(ws, SLOTS_W)))
    mbarrier.arrive(empty_x.index(before(xs, SLOTS_X)))
    return a0, a1, a2, xs, xp, ws, wp


@gluon.jit
def halves(x):
    """The first and the last half of a tensor's columns."""
    return x.reshape([x.shape[0], 2, x.shape[1] // 2]).permute(0, 2, 1).split()


@gluon.jit
def store_map(acc, bias, out, place, n, y, left, MODULE: gl.constexpr):
    """Store what a module predicts, the first 9 or 27 columns of acc, (M, 32), whose rows are 8 px of a row each."""
    H, W = place
    CHANNELS: gl.constexpr = 27 if MODULE else 9
    FIRST: gl.constexpr = (MODULE - 1) * 64 if MODULE else 32  # row of the weights
    row = gl.arange(0, acc.shape[0], gl.SliceLayout(1, acc.type.layout))
    c = gl.arange(0, 32, gl.SliceLayout(0, acc.type.layout))
    acc += gl.load(bias + FIRST + c).to(gl.float32)[None, :]
    py, px = y + row // 8, left + row % 8
    pixel = py * W + px
    o = pixel[:, None] + (c * (H * W))[None, :]
    out += n.to(gl.int64) * (CHANNELS * H * W)
    gl.store(out + o, acc, mask=((py < H) & (px < W))[:, None] & (c < CHANNELS)[None, :])


@gluon.jit
def consume_tile(outputs, bias, place, buffers, barriers, ring, n, y, left, row, UNITS: gl.constexpr):
    """Compute a consumer's part of a tile, as in `gluon_conv.py`."""
    M: gl.constexpr = 64 * UNITS if UNITS > 0 else 64
    wide: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    narrow: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 32, 16])
    a0, a1, a2, xs, xp, ws, wp = products(buffers, barriers, ring, row, wide, narrow, M, UNITS)
    if UNITS > 0:
        one, zero = halves(a0)
        out0, out1, out2, out3 = outputs
        store_map(zero, bias, out0, place, n, y, left, 0)
        store_map(one, bias, out1, place, n, y, left, 1)
        store_map(a1, bias, out2, place, n, y, left, 2)
        store_map(a2, bias, out3, place, n, y, left, 3)
    return xs, xp, ws, wp


@gluon.jit
def consume(outputs, bias, place, buffers, barriers, numbers, PART: gl.constexpr):
    unit, end, height, width = numbers
    xs, xp, ws, wp = 0, 0, 0, 0
    while unit < end:
        n, y, left, units = tile_at(unit, end, height, width)
        upper = (units + 1) // 2
        first = PART * upper
        mine = units - upper if PART else upper
        ring = xs, xp, ws, wp
        for count in gl.static_range(1 - PART, 3):  # the upper part has a unit at least
            if mine == count:
                xs, xp, ws, wp = consume_tile(
                    outputs, bias, place, buffers, barriers, ring, n, y + first * 8, left, first * 8, count
                )
        unit += units


@gluon.jit(do_not_specialize=["total", "share", "height", "width", "H", "W"])
def gluon_predict_kernel(x, x2, x4, weight, bias, out0, out1, out2, out3, H, W, total, share, height, width):
    """What `predict_kernel` computes, but each map channel by channel (grid: total / share).

    x, x2, x4: descriptors of (N, H, W, 128) in blocks of (1, 8, 8, 64), (1, 2, 8, 64) and (1, 4, 8, 64).
    weight: of (192, 9 * 128) in blocks of (32, 64), bias: (192), both as `predict_kernel` has them.
    out_0: (N, 9, H, W), the others: (N, 27, H, W), contiguous.
    total, share, height, width: as in `gluon_conv_kernel`.
    """
    x_slots = gl.allocate_shared_memory(x.dtype, [SLOTS_X * ROWS, 8, 64], FLAT)
    w_slots = gl.allocate_shared_memory(x.dtype, [SLOTS_W * PARTS, 32, 64], FLAT)
    full_x, empty_x = new_barriers(SLOTS_X, 1), new_barriers(SLOTS_X, 2)
    full_w, empty_w = new_barriers(SLOTS_W, 1), new_barriers(SLOTS_W, 2)
    fence_async_shared()  # the copy engine sees them

    unit = gl.program_id(0) * share
    outputs, place = (out0, out1, out2, out3), (H, W)
    buffers = x_slots, w_slots
    barriers = full_x, empty_x, full_w, empty_w
    numbers = unit, gl.minimum(unit + share, total), height, width
    gl.warp_specialize(
        [
            (consume, (outputs, bias, place, buffers, barriers, numbers, 0)),
            (consume, (outputs, bias, place, buffers, barriers, numbers, 1)),
            (produce, ((x, x2, x4, weight), buffers, barriers, numbers)),
        ],
        [4, 1],  # warps of the last two
        [224, 56],  # and their registers; with 40 the producer lacks two
    )

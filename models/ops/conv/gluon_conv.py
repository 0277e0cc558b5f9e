"""A 3x3 convolution of 128 channels into 128 for GPUs of compute capability 9 in 16-bit types, written in Gluon.

It does what `triton_kernels.conv_kernel` does with half of its traffic between L2 and shared memory, which bounds that
one: a feature is loaded three times instead of nine. On an H200 it takes 26 to 29 us at 1x128x180x320, of which 25
remain when nothing is loaded: the products, the start, and what is done with the sums.

**Units and tiles.** A unit is 8x8 px, 64 rows of the matrix product. A strip is a column of units, 8 px wide; all
strips of all images stand one after another. A program takes `share` units of this row, in tiles of up to four units
that lie below each other, so a tile ends where a strip ends. Any share balances the GPU, whatever the image's height.

**Stages and steps.** A tile takes six stages: 64 of the channels, shifted by dx. Its features come as boxes of 8 px x
64 channels = 1 KB a row, two rows more than the tile has: three steps, one for each dy, multiply them from row dy on.
No copy is needed, and a view that begins at a full KB keeps the swizzle of 128 bytes. Each step has its block of
weights. The copy engine (TMA) writes zeros for what is outside the image, and leaves out what is stored there.

**Partitions.** A producer, one warp, starts all copies into shared memory. Two consumers of four warps multiply: the
first the upper (units + 1) // 2 units of a tile, the second the others, which may be none.

**Rings and barriers.** Feature slots and weight slots are two rings. A slot's `full` barrier completes when its bytes
have arrived, its `empty` barrier when both consumers have arrived, each after its product has read the slot. A product
waits for the one before it, whose slots are free then. The buffer of results is a slot as well: a tile's residual is
loaded into it, replaced by the result in place, and stored from it. Its `empty` barrier completes once in each tile,
when the last tile's results have been read out.

**Phases.** A barrier's phase is the parity of how often it has completed; a wait names a phase and passes when that one
is over. So the waits for a slot name 0 in the first round of its ring, 1 in the second, and so on. The producer, whose
slots are empty at the start, names 1 first, which passes at once on a new barrier.

**A trap of Triton's front end.** Inside a loop, a variable that lives before it must not be set to another such
variable unchanged (`last = slot` before the slot moves on). What a loop carries is found by comparing values after a
trial run of its body, in which such a copy looks unchanged: it would be constant, and here a barrier would wait
forever. So the last slot is computed, by `before(slot)`.
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

SLOTS_X = gl.constexpr(2)  # of features
SLOTS_W = gl.constexpr(5)  # of weights; with the results 212 of the 227 KB that a program can have
ROWS = gl.constexpr(34)  # of 8 px in a feature slot
FLAT = gl.constexpr(gl.NVMMASharedLayout(128, 16, 2))
BOX = gl.constexpr(gl.NVMMASharedLayout(128, 16, 4))


@gluon.jit
def tile_at(unit, end, height, width):
    """Image, first row, first column and number of units of the tile that begins with a unit."""
    strip = unit // height
    y = unit % height
    units = gl.minimum(gl.minimum(height - y, end - unit), 4)
    return strip // width, y * 8, (strip % width) * 8, units


@gluon.jit
def after(slot, phase, SLOTS: gl.constexpr):
    last = slot == SLOTS - 1
    return gl.where(last, 0, slot + 1), gl.where(last, phase ^ 1, phase)


@gluon.jit
def before(slot, SLOTS: gl.constexpr):
    return gl.where(slot == 0, SLOTS - 1, slot - 1)


@gluon.jit
def new_barriers(NUMBER: gl.constexpr, ARRIVALS: gl.constexpr):
    barriers = gl.allocate_shared_memory(gl.int64, [NUMBER, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(NUMBER):
        mbarrier.init(barriers.index(i), count=ARRIVALS)
    return barriers


@gluon.jit
def load_features(x, x_rows, slots, slot, full, n, y, left, c, units):
    for count in gl.static_range(1, 5):  # the number of bytes has to be a constant
        mbarrier.expect(full, count * 8192 + 2048, pred=units == count)
    for i in gl.static_range(4):
        to = slots.index(slot * ROWS + 8 * i)._reinterpret(x.dtype, [1, 8, 8, 64], BOX)
        tma.async_copy_global_to_shared(x, [n, y + 8 * i, left, c], full, to, pred=i < units)
    to = slots.index(slot * ROWS + 8 * units)._reinterpret(x.dtype, [1, 2, 8, 64], BOX)
    tma.async_copy_global_to_shared(x_rows, [n, y + 8 * units, left, c], full, to)


@gluon.jit
def load_residual(residual, results, full, n, y, left, units):
    # A consumer's part is a matrix of 128 columns: all its units' first 64 channels, then the others.
    upper = (units + 1) // 2
    for count in gl.static_range(1, 5):
        mbarrier.expect(full, count * 16384, pred=units == count)
    for i in gl.static_range(4):
        for j in gl.static_range(2):
            block = gl.where(i < upper, j * upper + i, 4 + j * (units - upper) + i - upper)
            to = results.index(block)._reinterpret(residual.dtype, [1, 8, 8, 64], BOX)
            tma.async_copy_global_to_shared(residual, [n, y + 8 * i, left, j * 64], full, to, pred=i < units)


@gluon.jit
def produce(descriptors, buffers, barriers, numbers, RESIDUAL: gl.constexpr, GRADIENT: gl.constexpr):
    x, x_rows, weight, residual = descriptors
    x_slots, w_slots, results = buffers
    full_x, empty_x, full_w, empty_w, full_r, empty_r = barriers
    unit, end, height, width = numbers
    xs, xp, ws, wp, rp = 0, 1, 0, 1, 0
    while unit < end:
        n, y, left, units = tile_at(unit, end, height, width)
        for s in range(6):
            c = (s // 3) * 64
            dx = s % 3
            mbarrier.wait(empty_x.index(xs), xp)
            load_features(x, x_rows, x_slots, xs, full_x.index(xs), n, y - 1, left + dx - 1, c, units)
            xs, xp = after(xs, xp, SLOTS_X)
            for dy in gl.static_range(3):
                mbarrier.wait(empty_w.index(ws), wp)
                mbarrier.expect(full_w.index(ws), 16384)
                tap = dy * 3 + dx
                at = [c, (8 - tap) * 128] if GRADIENT else [0, tap * 128 + c]
                tma.async_copy_global_to_shared(weight, at, full_w.index(ws), w_slots.index(ws))
                ws, wp = after(ws, wp, SLOTS_W)
            if RESIDUAL and s == 4:  # the consumers free the buffer in stage 1, and all of that is on its way
                mbarrier.wait(empty_r, rp)
                rp = rp ^ 1
                load_residual(residual, results, full_r, n, y, left, units)
        unit += units


@gluon.jit
def consume_tile(
    out, bias, buffers, barriers, ring, rp, n, y, left, row,
    SLOPE: gl.constexpr, BIAS: gl.constexpr, RESIDUAL: gl.constexpr, GRADIENT: gl.constexpr,
    PART: gl.constexpr, UNITS: gl.constexpr,
):  # fmt: skip
    """Compute a consumer's part of a tile: UNITS units, 0 to 2, from row `row` of the slot, which is row y on."""
    x_slots, w_slots, results = buffers
    full_x, empty_x, full_w, empty_w, full_r, empty_r = barriers
    xs, xp, ws, wp = ring
    M: gl.constexpr = 64 * UNITS if UNITS > 0 else 64
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 16])
    acc = gl.zeros([M, 128], gl.float32, layout)
    if BIAS and UNITS > 0:
        b = gl.load(bias + gl.arange(0, 128, gl.SliceLayout(0, layout))).to(gl.float32)
    for s in range(6):
        last_x = before(xs, SLOTS_X)
        mbarrier.wait(full_x.index(xs), xp)
        for dy in gl.static_range(3):
            mbarrier.wait(full_w.index(ws), wp)
            if UNITS > 0:
                features = x_slots.index(xs * ROWS + row + dy)._reinterpret(out.dtype, [M, 64], FLAT)
                taps = w_slots.index(ws) if GRADIENT else w_slots.index(ws).permute((1, 0))
                acc = warpgroup_mma(features, taps, acc, is_async=True)
                acc = warpgroup_mma_wait(1, deps=(acc,))
            # The product before this one has read its operands.
            last_w = before(ws, SLOTS_W)
            if dy == 0:
                mbarrier.arrive(empty_w.index(last_w), pred=s > 0)
                mbarrier.arrive(empty_x.index(last_x), pred=s > 0)
            else:
                mbarrier.arrive(empty_w.index(last_w))
            ws, wp = after(ws, wp, SLOTS_W)
        xs, xp = after(xs, xp, SLOTS_X)
        if s == 1:
            tma.store_wait(0)
            fence_async_shared()
            mbarrier.arrive(empty_r)
    if UNITS > 0:
        acc = warpgroup_mma_wait(0, deps=(acc,))
    mbarrier.arrive(empty_w.index(before(ws, SLOTS_W)))
    mbarrier.arrive(empty_x.index(before(xs, SLOTS_X)))
    if RESIDUAL:
        mbarrier.wait(full_r, rp)
    if UNITS > 0:
        result = results.index(PART * 4)._reinterpret(out.dtype, [M, 128], FLAT)
        if BIAS:
            acc = acc + gl.expand_dims(b, 0)
        if RESIDUAL:
            acc = acc + result.load(layout).to(gl.float32)
        if SLOPE != 1.0:
            acc = gl.where(acc >= 0, acc, acc * SLOPE)
        result.store(acc.to(out.dtype))
        fence_async_shared()
        for j in gl.static_range(2):
            for i in gl.static_range(UNITS):
                block = results.index(PART * 4 + j * UNITS + i)._reinterpret(out.dtype, [1, 8, 8, 64], BOX)
                tma.async_copy_shared_to_global(out, [n, y + 8 * i, left, j * 64], block)
    return xs, xp, ws, wp


@gluon.jit
def consume(
    out, bias, buffers, barriers, numbers,
    SLOPE: gl.constexpr, BIAS: gl.constexpr, RESIDUAL: gl.constexpr, GRADIENT: gl.constexpr, PART: gl.constexpr,
):  # fmt: skip
    unit, end, height, width = numbers
    xs, xp, ws, wp, rp = 0, 0, 0, 0, 0
    while unit < end:
        n, y, left, units = tile_at(unit, end, height, width)
        upper = (units + 1) // 2
        first = PART * upper
        mine = units - upper if PART else upper
        ring = xs, xp, ws, wp
        for count in gl.static_range(1 - PART, 3):  # the upper part has a unit at least
            if mine == count:
                xs, xp, ws, wp = consume_tile(
                    out, bias, buffers, barriers, ring, rp, n, y + first * 8, left, first * 8,
                    SLOPE, BIAS, RESIDUAL, GRADIENT, PART, count,
                )  # fmt: skip
        rp = rp ^ 1
        unit += units
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["total", "share", "height", "width"])
def gluon_conv_kernel(
    x, x_rows, weight, residual, out, bias, total, share, height, width,
    SLOPE: gl.constexpr, BIAS: gl.constexpr, RESIDUAL: gl.constexpr, GRADIENT: gl.constexpr,
):  # fmt: skip
    """Out = LReLU(3x3 convolution of x + bias + residual), padding 1 (grid: total / share).

    x, residual, out: descriptors of (N, H, W, 128) in blocks of (1, 8, 8, 64); x_rows: of x in blocks of (1, 2, 8, 64).
    weight: of (128, 9 * 128) in blocks of (128, 64), with GRADIENT of (64, 128), both as `conv_kernel` has them.
    total: number of units, height: of a strip, in units, width: of an image, in strips, share: units of a program.
    """
    x_slots = gl.allocate_shared_memory(x.dtype, [SLOTS_X * ROWS, 8, 64], FLAT)
    w_slots = gl.allocate_shared_memory(x.dtype, [SLOTS_W, weight.block_shape[0], weight.block_shape[1]], FLAT)
    results = gl.allocate_shared_memory(x.dtype, [8, 64, 64], FLAT)
    full_x, empty_x = new_barriers(SLOTS_X, 1), new_barriers(SLOTS_X, 2)
    full_w, empty_w = new_barriers(SLOTS_W, 1), new_barriers(SLOTS_W, 2)
    full_r, empty_r = new_barriers(1, 1).index(0), new_barriers(1, 2).index(0)
    fence_async_shared()  # the copy engine sees them

    unit = gl.program_id(0) * share
    buffers = x_slots, w_slots, results
    barriers = full_x, empty_x, full_w, empty_w, full_r, empty_r
    numbers = unit, gl.minimum(unit + share, total), height, width
    gl.warp_specialize(
        [
            (consume, (out, bias, buffers, barriers, numbers, SLOPE, BIAS, RESIDUAL, GRADIENT, 0)),
            (consume, (out, bias, buffers, barriers, numbers, SLOPE, BIAS, RESIDUAL, GRADIENT, 1)),
            (produce, ((x, x_rows, weight, residual), buffers, barriers, numbers, RESIDUAL, GRADIENT)),
        ],
        [4, 1],  # warps of the last two
        [232, 40],  # and their registers
    )

"""A 3x3 convolution of 32 channels into 32 or fewer for GPUs of compute capability 9 in 16-bit types, in Gluon.

It does what `triton_kernels.conv_kernel` does with a seventh of its traffic from L2, which bounds that one: a feature
is loaded 1.3 times instead of nine times. Barriers and phases are those of `gluon_conv.py`, which says what they are.

**Tiles and positions.** The features of a tile are a box of 10 rows of 32 px. A position is a place in this box, row by
row: 64 bytes, one row of the matrix product. A tap is the same positions, so many further on, so a product reads its
features from a view that begins there, and nothing is copied. Of 32 results of a row the last two mix the ends of two
rows; a tile is 8 rows of 30 px. For these two a view reads up to two positions behind the box, which nothing else uses.

**A view that begins anywhere.** Features are swizzled by the address of their bytes: the copy engine and the matrix
units both exchange the blocks of 16 bytes in 64 by the bits 7 and 8 of an address in shared memory, so a view may begin
at any position. That holds for these two alone: for threads Triton computes a swizzle from the beginning of the view.

**Weights** are loaded once by each program. Their outputs stand in another order, so that the columns of a row whose
sums a thread has, 2t, 2t + 1, 8 + 2t, ..., are eight channels that follow each other: it stores 16 bytes at a time.

**Partitions.** A producer, one warp, copies boxes into a ring of slots. Three consumers of four warps multiply and
store every third tile each; what is added to its sums is on its way during the products. A slot is always the same
consumer's: one that came to a slot before its last box, another consumer's, has arrived would take that box's phase for
its own.
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

from .gluon_conv import new_barriers

CONSUMERS = gl.constexpr(3)
ROWS = gl.constexpr(8)  # of a tile
COLUMNS = gl.constexpr(30)
SLOTS = gl.constexpr(9)  # of features, a multiple of CONSUMERS; with the weights 198 of the 227 KB of a program
POSITIONS = gl.constexpr(10 * 32)  # of a slot
FLAT = gl.constexpr(gl.NVMMASharedLayout(64, 16, 2))
BOX = gl.constexpr(gl.NVMMASharedLayout(64, 16, 4))


@gluon.jit
def place_of(tile, height, width):
    """Image, first row and first column of a tile."""
    return tile // (height * width), tile // width % height * ROWS, tile % width * COLUMNS


@gluon.jit
def ring_at(i):
    """Slot of a program's i-th tile, and how often it has been filled before, modulo 2."""
    return i % SLOTS, i // SLOTS % 2


@gluon.constexpr_function
def in_order_layout(M, N):
    """How `in_order` leaves (M, N) values: N / 4 columns that follow each other are one thread's."""
    columns = [[0, 1 << i] for i in range((N // 4).bit_length() - 1)]
    rows = [[8, 0], *([64 << i, 0] for i in range((M // 64).bit_length() - 1))]
    lanes = [[0, N // 4], [0, N // 2], [1, 0], [2, 0], [4, 0]]
    return gl.DistributedLinearLayout(columns + rows, lanes, [[16, 0], [32, 0]], [], [M, N])


@gluon.jit
def in_order(sums):
    """Put a product's columns, which `load_weights` has moved, in order. No value changes its thread."""
    M: gl.constexpr = sums.shape[0]
    N: gl.constexpr = sums.shape[1]
    sums = sums.reshape([M, N // 8, 4, 2]).permute(0, 2, 1, 3).reshape([M, N])
    return gl.convert_layout(sums, in_order_layout(M, N), assert_trivial=True)


@gluon.jit
def load_weights(weight, slots, COUT: gl.constexpr, GRADIENT: gl.constexpr):
    N: gl.constexpr = slots.shape[1]
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [8, 4], [4, 1], [1, 0])
    row = gl.arange(0, N, gl.SliceLayout(1, layout))
    k = gl.arange(0, 32, gl.SliceLayout(0, layout))[None, :]
    c = (row % 8 // 2 * (N // 4) + row // 8 * 2 + row % 2)[:, None]
    taps = ()
    for tap in gl.static_range(9):
        at = k * (9 * COUT) + (8 - tap) * COUT + c if GRADIENT else c * (9 * 32) + tap * 32 + k
        taps += (gl.load(weight + at, mask=c < COUT, other=0.0),)  # all of them before the first is stored
    for tap in gl.static_range(9):
        slots.index(tap).store(taps[tap])


@gluon.jit
def produce(x, x_rows, slots, barriers, numbers):
    full, empty = barriers
    first, step, count, height, width = numbers
    for i in range(count):
        slot, phase = ring_at(i)
        n, y, left = place_of(first + i * step, height, width)
        filled = full.index(slot)
        mbarrier.wait(empty.index(slot), phase ^ 1)
        mbarrier.expect(filled, POSITIONS * 64)
        upper = slots.index(slot * POSITIONS)._reinterpret(x.dtype, [1, ROWS, 32, 32], BOX)
        lower = slots.index(slot * POSITIONS + ROWS * 32)._reinterpret(x.dtype, [1, 2, 32, 32], BOX)
        tma.async_copy_global_to_shared(x, [n, y - 1, left - 1, 0], filled, upper)
        tma.async_copy_global_to_shared(x_rows, [n, y - 1 + ROWS, left - 1, 0], filled, lower)


@gluon.jit
def consume(
    tensors, slots, weights, barriers, numbers, size,
    COUT: gl.constexpr, SLOPE: gl.constexpr, BIAS: gl.constexpr, RESIDUAL: gl.constexpr, PART: gl.constexpr,
):  # fmt: skip
    bias, residual, out = tensors
    full, empty = barriers
    first, step, count, height, width = numbers
    H, W = size
    M: gl.constexpr = ROWS * 32
    N: gl.constexpr = weights.shape[1]
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 16])
    ordered: gl.constexpr = in_order_layout(M, N)
    position = gl.arange(0, M, gl.SliceLayout(1, ordered))
    c = gl.arange(0, N, gl.SliceLayout(0, ordered))[None, :]
    if BIAS:
        b = gl.load(bias + c, mask=c < COUT, other=0.0).to(gl.float32)
    for i in range(PART, count, CONSUMERS):
        slot, phase = ring_at(i)
        n, y, left = place_of(first + i * step, height, width)
        py, px = y + position // 32, left + position % 32
        wanted = ((position % 32 < COLUMNS) & (py < H) & (px < W))[:, None]
        if COUT < N:
            wanted = wanted & (c < COUT)
        image = n.to(gl.int64) * H * W * COUT
        at = ((py * W + px) * COUT)[:, None] + c
        if RESIDUAL:
            added = gl.load(residual + image + at, mask=wanted, other=0.0)
        acc = gl.zeros([M, N], gl.float32, layout)
        mbarrier.wait(full.index(slot), phase)
        for tap in gl.static_range(9):
            begin = slot * POSITIONS + tap // 3 * 32 + tap % 3
            features = slots.index(begin)._reinterpret(slots.dtype, [M, 32], FLAT)
            acc = warpgroup_mma(features, weights.index(tap).permute((1, 0)), acc, is_async=True)
        acc = warpgroup_mma_wait(0, deps=(acc,))
        mbarrier.arrive(empty.index(slot))
        sums = in_order(acc)
        if BIAS:
            sums = sums + b
        if RESIDUAL:
            sums = sums + added.to(gl.float32)
        if SLOPE != 1.0:
            sums = gl.where(sums >= 0, sums, sums * SLOPE)
        gl.store(out + image + at, sums.to(out.dtype.element_ty), mask=wanted)


@gluon.jit(do_not_specialize=["tiles", "height", "width", "H", "W"])
def gluon_narrow_kernel(
    x, x_rows, weight, bias, residual, out, tiles, height, width, H, W,
    COUT: gl.constexpr, N: gl.constexpr, SLOPE: gl.constexpr, BIAS: gl.constexpr, RESIDUAL: gl.constexpr,
    GRADIENT: gl.constexpr,
):  # fmt: skip
    """Out = LReLU(3x3 convolution of x + bias + residual), padding 1 (grid: any number of programs).

    x: descriptor of (N, H, W, 32) in blocks of (1, 8, 32, 32), x_rows: in blocks of (1, 2, 32, 32).
    weight: of (COUT, 9 * 32), with GRADIENT of (32, 9 * COUT), both as `conv_kernel` has them; bias: (COUT).
    residual, out: (N, H, W, COUT), each of any type. N: 8, 16 or 32, no less than COUT.
    tiles: number of tiles in all, height, width: that of an image in tiles.
    """
    slots = gl.allocate_shared_memory(x.dtype, [SLOTS * POSITIONS + 8, 1, 32], FLAT)
    weights = gl.allocate_shared_memory(x.dtype, [9, N, 32], FLAT)
    barriers = new_barriers(SLOTS, 1), new_barriers(SLOTS, 1)
    load_weights(weight, weights, COUT, GRADIENT)
    fence_async_shared()  # the copy engine sees the barriers, the matrix units the weights

    first, step = gl.program_id(0), gl.num_programs(0)
    numbers = first, step, (tiles - first + step - 1) // step, height, width
    tensors, size = (bias, residual, out), (H, W)
    gl.warp_specialize(
        [
            (consume, (tensors, slots, weights, barriers, numbers, size, COUT, SLOPE, BIAS, RESIDUAL, 0)),
            (consume, (tensors, slots, weights, barriers, numbers, size, COUT, SLOPE, BIAS, RESIDUAL, 1)),
            (consume, (tensors, slots, weights, barriers, numbers, size, COUT, SLOPE, BIAS, RESIDUAL, 2)),
            (produce, (x, x_rows, slots, barriers, numbers)),
        ],
        [4, 4, 1],  # warps of the last three
        [160, 160, 32],  # and their registers
    )

"""The ASPDC product of 128 channels on Hopper, in Gluon: some warps sample, others multiply (words: triton_records.py).

In `product_kernel` each warp samples and multiplies by turns, and each tile of 64 px has all weights, 1.2 MB, brought
from the L2 cache. Here a program has a multiprocessor to itself, works on two tiles at a time, and has four partitions
of four warps, which run at the same time:

    sampler 0 to 2  load the corners of a stage's px, blend them and store the samples in shared memory
    multiplier      has the copy engine (TMA) bring a stage's weights and the matrix units multiply samples by them
                    (wgmma); at the end adds the biases and stores

What they hand over is a *stage*: one tap's samples of 64 channels, [px, 64], and its weights for these, [outputs, 64],
in rows of 128 bytes, swizzled as TMA and wgmma have it. Sampler i has the stages of the taps i, i + 3, i + 6, ..., 12
*rounds* in a *pass* (all taps of 64 channels), and for these a place of its own, 32 KiB and two barriers:

    full    a phase takes two arrivals: of the sampler, when all rows are stored, and of the multiplier, which announces
            how many bytes of weights will come; and these bytes
    empty   a phase takes one arrival: of the multiplier, when the product that read the stage has ended

A pass has 12 rounds, an even number, so the parity of a phase is that of its round. The multiplier waits for `full`
with it; samplers wait for `empty` with that of the round before, which a new barrier lets pass. `full` of a round is
complete only after its sampler has passed `empty` before it, `empty` of a round only after `full` of it: nobody who
waits is two phases behind, which a parity could not tell from none.

Sums have the order of `product_kernel`, 64 channels of all taps before the others, and its bits.

What bounds it: corners from L1, samples written and read, weights written and read all pass one memory of 128 bytes a
cycle, which is busy for 82 % of the time on an H200 (Nsight Compute), where it takes 200 us for 180x320 px. With two
samplers, each of half the px, it took 226, and that memory was busy for 71 %. With the little L1 that Triton leaves two
took 245 (SHARED_PERCENT).

Small images are not left to `product_kernel`: 45x80 px, a tile a program, take 32 us here, 77 there.
"""

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia import hopper
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from ..common.launch import launcher, limit_shared_memory
from ..common.triton_functions import PLAIN
from .gluon_sampling import BK, SAMPLERS, SIDE, TAPS, TILE, WIDTH, WORDS, sampler

REGISTERS = gl.constexpr(128)  # of a thread at the start; 512 threads share 65,536
SAMPLER_REGISTERS = gl.constexpr(112)  # then; the multiplier has the others, 176
SHARED_PERCENT = 43  # of 228 KiB: 98, for which CUDA takes 100; the stages need 96. The other 156 KiB are L1.


@gluon.jit
def bring(weight, b, full, k, place, wanted):
    """If wanted, have the copy engine bring the weights of stage k of a tile's two passes; that place is free."""
    mbarrier.expect(full.index(place), WIDTH * BK * 2, pred=wanted)
    column = k % TAPS * WIDTH + k // TAPS * BK
    tma.async_copy_global_to_shared(weight, [0, column], full.index(place), b.index(place), pred=wanted)


@gluon.jit
def multiply(to_read, size, att, bias, out, first, count, PX: gl.constexpr):
    """Multiply what `sample` samples, add sum_i a_i b_i and store."""
    weight, a, b, full, empty = to_read
    H, W, tiles_x, tiles_y = size
    at, an, ac, ay, ax = att
    L: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, WIDTH, 16])
    row = gl.arange(0, PX, layout=gl.SliceLayout(1, L))
    output = gl.arange(0, WIDTH, layout=gl.SliceLayout(0, L))
    for stage in gl.static_range(SAMPLERS):
        bring(weight, b, full, stage, stage, True)
    for j in range(count):
        more = j + 1 < count
        acc = gl.zeros((PX, WIDTH), dtype=gl.float32, layout=L)
        for k in range(2 * TAPS):
            place = k % SAMPLERS
            mbarrier.wait(full.index(place), (k // SAMPLERS) & 1)
            # Shows the samplers' stores to the matrix units. In the samplers it would wait for their loads.
            hopper.fence_async_shared()
            samples, weights = a.index(place).slice(0, PX, dim=0), b.index(place).permute((1, 0))
            acc = hopper.warpgroup_mma(samples, weights, acc, is_async=True)
            acc = hopper.warpgroup_mma_wait(num_outstanding=1, deps=(acc,))
            # The product before this one has ended; its place is that of the stage after the next.
            after, released = k + SAMPLERS - 1, (k + SAMPLERS - 1) % SAMPLERS
            bring(weight, b, full, after % (2 * TAPS), released, (k > 0) & ((after < 2 * TAPS) | more))
            mbarrier.arrive(empty.index(released), count=1, pred=k > 0)
        acc = hopper.warpgroup_mma_wait(num_outstanding=0, deps=(acc,))
        bring(weight, b, full, SAMPLERS - 1, SAMPLERS - 1, more)
        mbarrier.arrive(empty.index(SAMPLERS - 1), count=1)

        tile = first + j * (PX // TILE) + row // TILE
        image = (tile // (tiles_x * tiles_y)).to(gl.int64)
        y = tile // tiles_x % tiles_y * SIDE + row % TILE // SIDE
        x = tile % tiles_x * SIDE + row % SIDE
        inside = (y < H) & (x < W)
        pixel = at + image * an + y.to(gl.int64) * ay + x.to(gl.int64) * ax
        for m in range(4):
            a_m = gl.load(pixel + m * ac, mask=inside, other=0.0)
            b_m = gl.load(bias + m * WIDTH + output).to(gl.float32)
            acc += a_m[:, None] * b_m[None, :]
        o = out + ((image * H + y) * W + x)[:, None] * WIDTH + output[None, :]
        gl.store(o, acc.to(out.dtype.element_ty), mask=inside[:, None])


@gluon.jit
def multiplier(to_read, size, att, bias, out, first, count):
    """The tiles as `sampler` has them."""
    if count > 1:
        multiply(to_read, size, att, bias, out, first, count // 2, 2 * TILE)
    if count % 2:
        multiply(to_read, size, att, bias, out, first + count - 1, 1, TILE)


@gluon.jit(do_not_specialize=PLAIN)
def gluon_product_kernel(
    f, rec_i, rec_w, weight, att, an, ac, ay, ax, bias, out, H, W, tiles_x, tiles_y, slots, TYPE: gl.constexpr
):
    """What `product_kernel` computes, for WIDTH channels and outputs (grid: no more programs than tiles).

    f: NHWC, two channels to a word. weight: a descriptor of blocks of (WIDTH, BK).
    """
    T: gl.constexpr = out.dtype.element_ty
    L: gl.constexpr = gl.NVMMASharedLayout(128, 16, 2)
    samples = gl.allocate_shared_memory(gl.int32, [SAMPLERS, 2 * TILE, WORDS], gl.NVMMASharedLayout(128, 32, 2))
    values = samples._reinterpret(T, [SAMPLERS, 2 * TILE, BK], L)
    b = gl.allocate_shared_memory(T, [SAMPLERS, WIDTH, BK], L)
    full = gl.allocate_shared_memory(gl.int64, [SAMPLERS, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [SAMPLERS, 1], mbarrier.MBarrierLayout())
    for place in gl.static_range(SAMPLERS):
        mbarrier.init(full.index(place), count=2)
        mbarrier.init(empty.index(place), count=1)
    tiles = slots // TILE
    first = gl.program_id(0) * tiles // gl.num_programs(0)
    count = (gl.program_id(0) + 1) * tiles // gl.num_programs(0) - first
    records, to_fill = (rec_i, rec_w, slots), (samples, full, empty)
    to_read = (weight, values, b, full, empty)
    whole, attention = (H, W, tiles_x, tiles_y), (att, an, ac, ay, ax)
    gl.warp_specialize(
        [
            (multiplier, (to_read, whole, attention, bias, out, first, count)),
            (sampler, (f, W, records, to_fill, first, count, 0, TYPE)),
            (sampler, (f, W, records, to_fill, first, count, 1, TYPE)),
            (sampler, (f, W, records, to_fill, first, count, 2, TYPE)),
        ],
        [4, 4, 4],
        [SAMPLER_REGISTERS, SAMPLER_REGISTERS, SAMPLER_REGISTERS],
    )


def launch_product(f, rec_i, rec_w, weight, att, att_strides, bias, out, tiles_x, tiles_y):
    """Launch it on the records of tiles of 8 x 8 px, in f's 16-bit type."""
    slots, kind = rec_i.shape[1], "bf16x2" if f.dtype == torch.bfloat16 else "f16x2"
    descriptor = TensorDescriptor.from_tensor(weight, [WIDTH.value, BK.value], gl.NVMMASharedLayout(128, 16, 2))
    programs = min(slots // TILE.value, torch.cuda.get_device_properties(f.device).multi_processor_count)
    words = f.permute(0, 2, 3, 1).flatten().view(torch.int32)  # flat, since strides may be any where a size is 1
    tensors = (words, rec_i, rec_w, descriptor, att, *att_strides, bias, out)
    options = {"TYPE": kind, "num_warps": 4, "maxnreg": REGISTERS.value}
    launcher(gluon_product_kernel, (programs,))(*tensors, *f.shape[2:], tiles_x, tiles_y, slots, **options)


limit_shared_memory("gluon_product_kernel", SHARED_PERCENT)

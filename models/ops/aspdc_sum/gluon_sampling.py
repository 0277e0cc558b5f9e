"""What the sampling warps of gluon_product.py do, which says what stages, places and their barriers are.

Samples are words of two channels. Values of 16 bits that are carried around a loop are moved at its end, and a move
waits for a load that should be on its way.

A thread has one counter for all loads that are needed behind a branch or around a loop, so that who waits for one waits
for all of them. Therefore a sampler has few loads on their way, and there are three: while one waits or blends, the
corners of the others arrive.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

WIDTH = gl.constexpr(128)  # channels, and outputs
SIDE = gl.constexpr(8)  # px, of a tile
TILE = gl.constexpr(64)  # px
TAPS = gl.constexpr(36)
BK = gl.constexpr(64)  # channels of a stage
WORDS = gl.constexpr(32)  # that hold them
SAMPLERS = gl.constexpr(3)  # each fills a place of its own
ROUNDS = gl.constexpr(12)  # taps of a sampler, an even number
ON_GRID = gl.constexpr(3)  # rounds, the first, whose taps are those of module 0, with one corner
CHUNKS = gl.constexpr(4)  # parts of a stage's rows


meet = gl.barrier if hasattr(gl, "barrier") else gl.thread_barrier  # of a partition's warps, by Triton's version


@gluon.jit
def corner_weight(w, part: gl.constexpr):
    """Weight `part` of a record, twice in a word, as a column for the channels to share."""
    word = (w >> (32 * (part // 2))).to(gl.int32)
    twice: gl.constexpr = "prmt.b32 $0, $1, $1, 0x3232;" if part % 2 else "prmt.b32 $0, $1, $1, 0x1010;"
    return gl.inline_asm_elementwise(twice, "=r,r", [word], dtype=gl.int32, is_pure=True, pack=1)[:, None]


@gluon.jit
def blend(corners, w, FOUR: gl.constexpr, TYPE: gl.constexpr):
    """Modulated samples as by `blend4` and `blend1`; TYPE: bf16x2 or f16x2. Adding -0 leaves a product as it is."""
    zero: gl.constexpr = "{ .reg .b32 z; mov.b32 z, 0x80008000; "
    fma: gl.constexpr = "fma.rn." + TYPE
    if FOUR:
        two: gl.constexpr = zero + fma + " $0, $1, $5, z; " + fma + " $0, $2, $6, $0; "
        four: gl.constexpr = two + fma + " $0, $3, $7, $0; " + fma + " $0, $4, $8, $0; }"
        va, vb, vc, vd = corners
        wa, wb, wc, wd = corner_weight(w, 0), corner_weight(w, 1), corner_weight(w, 2), corner_weight(w, 3)
        values = [va, vb, vc, vd, wa, wb, wc, wd]
        return gl.inline_asm_elementwise(four, "=&r,r,r,r,r,r,r,r,r", values, dtype=gl.int32, is_pure=True, pack=1)
    else:
        one: gl.constexpr = zero + fma + " $0, $1, $2, z; }"
        values = [corners[0], corner_weight(w, 0)]
        return gl.inline_asm_elementwise(one, "=r,r,r", values, dtype=gl.int32, is_pure=True, pack=1)


@gluon.jit
def load_corners(f, half, i, W, word, FOUR: gl.constexpr):
    """Four corners, or the one of a tap on the grid, of the channels that begin at word `half` of a pixel.

    Never masked: see `sample` in triton_forward.py.
    """
    q = f + (((i >> 2) * (WIDTH // 2) + half)[:, None] + word[None, :])
    if FOUR:
        right, below = ((i & 1) * (WIDTH // 2))[:, None], (((i >> 1) & 1) * (W * (WIDTH // 2)))[:, None]
        return gl.load(q), gl.load(q + right), gl.load(q + below), gl.load(q + below + right)
    else:
        return (gl.load(q),)


@gluon.jit
def sample_tap(
    given, halves, at, step, r, ahead, PX: gl.constexpr, PART: gl.constexpr, TYPE: gl.constexpr,
    FOUR: gl.constexpr, NEXT_FOUR: gl.constexpr,
):  # fmt: skip
    """Fill this sampler's place in round r, with tap r * SAMPLERS + PART, chunk by chunk.

    As soon as a chunk is blended, the corners of the next but one are on their way; the last two's are those of the
    next round. The first chunk waits for its place in registers, until the second is blended, too.
    halves: where the channels of this round and of the next begin in a pixel, in words.
    at, step: where the records of the first chunk lie, and how much further those of the next round.
    ahead: two chunks' corners and weights, and the indices of two more; returned for the next round.
    FOUR, NEXT_FOUR: whether the taps of this round and of the next have four corners.
    """
    f, rec_i, rec_w, W, word, a, full, empty = given
    now, following = halves
    chunks, indices = ahead
    CHUNK: gl.constexpr = PX // CHUNKS
    place = a.index(PART)
    next_at = at + step
    for q in gl.static_range(CHUNKS):  # in another order of these steps registers do not suffice
        corners, w = chunks[q]
        values = blend(corners, w, FOUR, TYPE)
        if q < CHUNKS - 2:
            w = gl.load(rec_w + at + (q + 2) * CHUNK)
            corners = load_corners(f, now, indices[q], W, word, FOUR)
        else:
            w = gl.load(rec_w + next_at + (q + 2 - CHUNKS) * CHUNK)
            corners = load_corners(f, following, indices[q], W, word, NEXT_FOUR)
        indices += (gl.load(rec_i + next_at + q * CHUNK),)
        if q == 0:
            first = values
        else:
            if q == 1:  # with two chunks blended, and the corners of the next two on their way
                mbarrier.wait(empty.index(PART), (r & 1) ^ 1)
                place.slice(0, CHUNK, dim=0).store(first)
            meet()  # as Triton 3.6 has warps do between two stores; with 3.7 registers would not suffice otherwise
            place.slice(q * CHUNK, CHUNK, dim=0).store(values)
        chunks += ((corners, w),)
    mbarrier.arrive(full.index(PART), count=1)
    return (chunks[CHUNKS], chunks[CHUNKS + 1]), (indices[CHUNKS], indices[CHUNKS + 1])


@gluon.jit
def sample(f, W, records, to_fill, first, count, PX: gl.constexpr, PART: gl.constexpr, TYPE: gl.constexpr):
    """Sample count times PX px, from tile `first` on."""
    rec_i, rec_w, slots = records
    a, full, empty = to_fill
    CHUNK: gl.constexpr = PX // CHUNKS
    # 16 bytes a thread: eight threads read the 128 bytes of a row.
    L: gl.constexpr = gl.BlockedLayout([CHUNK // 16, 4], [4, 8], [4, 1], [1, 0])
    row = gl.arange(0, CHUNK, layout=gl.SliceLayout(1, L))
    word = gl.arange(0, WORDS, layout=gl.SliceLayout(0, L))
    given = (f, rec_i, rec_w, W, word, a, full, empty)
    at, step = PART * slots + first * TILE + row, SAMPLERS * slots
    chunks, indices = (), ()
    for q in gl.static_range(CHUNKS):
        i = gl.load(rec_i + at + q * CHUNK)
        if q < 2:
            chunks += ((load_corners(f, 0, i, W, word, False), gl.load(rec_w + at + q * CHUNK)),)
        else:
            indices += (i,)
    ahead = (chunks, indices)
    for h in range(2 * count):  # passes, two for PX px
        half = h % 2 * WORDS
        for r in range(ON_GRID - 1):
            ahead = sample_tap(given, (half, half), at, step, r, ahead, PX, PART, TYPE, False, False)
            at += step
        ahead = sample_tap(given, (half, half), at, step, ON_GRID - 1, ahead, PX, PART, TYPE, False, True)
        at += step
        for r in range(ON_GRID, ROUNDS - 1):
            ahead = sample_tap(given, (half, half), at, step, r, ahead, PX, PART, TYPE, True, True)
            at += step
        # Back to the first taps, after two passes of the next px. The last pass loads its own corners again, in vain.
        back = gl.where((h % 2 == 1) & (h + 1 < 2 * count), PX, 0) - (ROUNDS - 1) * step
        ahead = sample_tap(given, (half, WORDS - half), at, back, ROUNDS - 1, ahead, PX, PART, TYPE, True, False)
        at += back


@gluon.jit
def sampler(f, W, records, to_fill, first, count, PART: gl.constexpr, TYPE: gl.constexpr):
    """Two tiles at a time; of an odd count the last one alone."""
    if count > 1:
        sample(f, W, records, to_fill, first, count // 2, 2 * TILE, PART, TYPE)
    if count % 2:
        sample(f, W, records, to_fill, first + count - 1, 1, TILE, PART, TYPE)

"""What the sampling warps of gluon_product.py do, which says what stages, places and their barriers are.

Samples are words of two channels. Values of 16 bits that are carried around a loop are moved at its end, and a move
waits for a load that should be on its way.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma

WIDTH = gl.constexpr(128)  # channels, and outputs
SIDE = gl.constexpr(8)  # px, of a tile
TILE = gl.constexpr(64)  # px
TAPS = gl.constexpr(36)
BK = gl.constexpr(64)  # channels of a stage
WORDS = gl.constexpr(32)  # that hold them
STAGES = gl.constexpr(3)


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
def load_corners(f, i, W, word, FOUR: gl.constexpr):
    """Four corners, or the one of a tap on the grid. Never masked: see `sample` in triton_forward.py."""
    q = f + ((i >> 2) * (WIDTH // 2))[:, None] + word[None, :]
    if FOUR:
        right, below = ((i & 1) * (WIDTH // 2))[:, None], (((i >> 1) & 1) * (W * (WIDTH // 2)))[:, None]
        return gl.load(q), gl.load(q + right), gl.load(q + below), gl.load(q + below + right)
    else:
        return (gl.load(q),)


@gluon.jit
def records_of(t, slots, slot, next_slot):
    """Where the records of tap t are, of the rows from `slot` on; taps from 36 on are the next pass's."""
    over = t >= TAPS
    return gl.where(over, t - TAPS, t) * slots + gl.where(over, next_slot, slot)


@gluon.jit
def sample_tap(
    given, f, f_next, slot, next_slot, n, t, c, ahead, PX: gl.constexpr, PART: gl.constexpr, TYPE: gl.constexpr,
    FOUR: gl.constexpr, NEXT_FOUR: gl.constexpr,
):  # fmt: skip
    """Store this sampler's rows of stage n, tap t of the 64 channels from c on, in two halves of the rows.

    While one half is blended, the corners of the next are on their way: the lower half's, then those of the next tap's
    upper half. The halves have registers of their own, so that nothing is moved.
    ahead: corners and weights of the upper half, indices and weights of the lower half, indices of the next tap's upper
    half; returned for the next tap. FOUR, NEXT_FOUR: whether this tap and the next have four corners.
    """
    rec_i, rec_w, slots, W, row, word, weight, a, b, full, empty = given
    corners, upper_w, lower_i, lower_w, next_i = ahead
    ROWS: gl.constexpr = PX // 2
    place = n % STAGES
    mbarrier.wait(empty.index(place), ((n // STAGES) & 1) ^ 1)
    if PART == 0:
        mbarrier.expect(full.index(place), WIDTH * BK * 2)
        tma.async_copy_global_to_shared(weight, [0, t * WIDTH + c], full.index(place), b.index(place))
    following = records_of(t + 1, slots, slot, next_slot)
    lower_corners = load_corners(f, lower_i, W, word, FOUR)
    lower_i = gl.load(rec_i + following + ROWS // 2 + row)
    upper = blend(corners, upper_w, FOUR, TYPE)
    upper_w = gl.load(rec_w + following + row)
    corners = load_corners(f_next, next_i, W, word, NEXT_FOUR)
    next_i = gl.load(rec_i + records_of(t + 2, slots, slot, next_slot) + row)
    lower = blend(lower_corners, lower_w, FOUR, TYPE)
    # One store: between two Triton would have all warps meet.
    both = gl.permute(gl.join(upper, lower), (2, 0, 1)).reshape([ROWS, WORDS])
    a.index(place).slice(PART * ROWS, ROWS, dim=0).store(both)
    lower_w = gl.load(rec_w + following + ROWS // 2 + row)
    mbarrier.arrive(full.index(place), count=1)
    return corners, upper_w, lower_i, lower_w, next_i


@gluon.jit
def pass_start(f, size, first, h, PX: gl.constexpr, PART: gl.constexpr):
    """(first slot of a sampler's rows in pass h, where the pass's 64 channels begin in the image of these rows).

    PX px take two passes. A sampler's rows are those of one tile, or half of them, so they are of one image.
    """
    H, W, tiles = size
    slot = (first + h // 2 * (PX // TILE)) * TILE + PART * (PX // 2)
    image = (slot // TILE // tiles).to(gl.int64)
    return slot, f + image * (H * W * (WIDTH // 2)) + h % 2 * WORDS


@gluon.jit
def sample(f, size, records, to_fill, first, count, start, PX: gl.constexpr, PART: gl.constexpr, TYPE: gl.constexpr):
    """Sample count times PX px, from tile `first` and stage `start` on."""
    rec_i, rec_w, slots = records
    weight, a, b, full, empty = to_fill
    HALF: gl.constexpr = PX // 4
    # 16 bytes a thread: eight threads read the 128 bytes of a row.
    L: gl.constexpr = gl.BlockedLayout([HALF // 16, 4], [4, 8], [4, 1], [1, 0])
    row = gl.arange(0, HALF, layout=gl.SliceLayout(1, L))
    word = gl.arange(0, WORDS, layout=gl.SliceLayout(0, L))
    given = (rec_i, rec_w, slots, size[1], row, word, weight, a, b, full, empty)
    slot, f_now = pass_start(f, size, first, 0, PX, PART)
    corners = load_corners(f_now, gl.load(rec_i + slot + row), size[1], word, False)
    upper_w, next_i = gl.load(rec_w + slot + row), gl.load(rec_i + slots + slot + row)
    lower_i, lower_w = gl.load(rec_i + slot + HALF + row), gl.load(rec_w + slot + HALF + row)
    ahead = (corners, upper_w, lower_i, lower_w, next_i)
    for h in range(2 * count):
        n, c = start + h * TAPS, h % 2 * BK
        # The last pass loads its own first corners again, in vain.
        after, f_after = pass_start(f, size, first, gl.minimum(h + 1, 2 * count - 1), PX, PART)
        for t in range(8):
            ahead = sample_tap(given, f_now, f_now, slot, after, n + t, t, c, ahead, PX, PART, TYPE, False, False)
        ahead = sample_tap(given, f_now, f_now, slot, after, n + 8, 8, c, ahead, PX, PART, TYPE, False, True)
        for t in range(9, 35):
            ahead = sample_tap(given, f_now, f_now, slot, after, n + t, t, c, ahead, PX, PART, TYPE, True, True)
        ahead = sample_tap(given, f_now, f_after, slot, after, n + 35, 35, c, ahead, PX, PART, TYPE, True, False)
        slot, f_now = after, f_after


@gluon.jit
def sampler(f, size, records, to_fill, first, count, PART: gl.constexpr, TYPE: gl.constexpr):
    """Two tiles at a time; of an odd count the last one alone."""
    if count > 1:
        sample(f, size, records, to_fill, first, count // 2, 0, 2 * TILE, PART, TYPE)
    if count % 2:
        sample(f, size, records, to_fill, first + count - 1, 1, count // 2 * 2 * TAPS, TILE, PART, TYPE)

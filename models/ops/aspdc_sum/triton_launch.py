"""How the Triton kernels of the ASPDC sum are launched: tiles, buffers, configurations."""

import torch
import triton.language as tl  # pyright: ignore[reportMissingImports] (optional)
from triton.tools.tensor_descriptor import TensorDescriptor  # pyright: ignore[reportMissingImports] (optional)

from ..common.launch import (
    INTERPRET,
    ceil_div,
    device_of,
    empty_nhwc,
    gluon_runs,
    has_copy_engine,
    launcher,
    next_power_of_2,
)
from ..common.streams import run_concurrently
from . import triton_backward as kb
from .reference import MODULES, TAPS
from .triton_forward import product_kernel
from .triton_records import locate_kernel

ALL_TAPS = MODULES * TAPS

# Tiles by dtype: TH x TW pixels, BK channels at a time (128 bytes a row), how corners are blended, and a register limit
# that lets several programs share a multiprocessor, one sampling while another multiplies. Chosen by timing on an H200
# (docs/performance.md).
CONFIG = {
    torch.bfloat16: {"TH": 8, "TW": 8, "BK": 64, "BLEND": "bf16x2", "num_warps": 4, "maxnreg": 128},
    torch.float16: {"TH": 8, "TW": 8, "BK": 64, "BLEND": "f16x2", "num_warps": 4, "maxnreg": 128},
    torch.float32: {"TH": 8, "TW": 8, "BK": 32, "BLEND": "own", "num_warps": 4, "maxnreg": 128},  # tf32
    (torch.float32, "tf32x3"): {"TH": 8, "TW": 8, "BK": 32, "BLEND": "own", "num_warps": 4, "maxnreg": 168},
    torch.float64: {"TH": 4, "TW": 4, "BK": 16, "BLEND": "own", "num_warps": 4},
}
# Without a copy engine, where threads load the weights as well: with half the channels at a time next to nothing is
# spilled (compiled for 8.0, 8.6 and 8.9, not timed).
THREADS_LOAD = {"num_warps": 8, "maxnreg": 128}
TRITON_TYPES = {None: None, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
BACKWARD_TILE = 4, 4
TAPS_PIXELS = 16 if INTERPRET else 4  # of a program of taps_kernel; the interpreter takes as long for few as for many


def strides(t):
    """(image, channel, row, column): any strided map is taken as it lies, slices of a merged map included."""
    return t.stride(0), t.stride(1), t.stride(2), t.stride(3)


def tiling(n, h, w, th, tw):
    """(tiles, tile columns, tile rows, record slots)."""
    tx, ty = ceil_div(w, tw), ceil_div(h, th)
    slots = n * tx * ty * th * tw
    if slots * ALL_TAPS * 4 >= 2**31:  # kernels number the records with 32 bits
        raise ValueError(f"{n} images of {h}x{w} are too many pixels for one call; split the batch")
    return n * tx * ty, tx, ty, slots


def locate(preds, att, shape, th, tw, weight_type=None, batch=False):
    """(indices, corner weights) of every tap; `weight_type` is theirs where it has 16 bits: four share a number.

    batch: indices are those of the batch's pixels, not of an image's.
    """
    n, _, h, w = shape
    tiles, tx, ty, slots = tiling(n, h, w, th, tw)
    rec_i = torch.empty(ALL_TAPS, slots, device=att.device, dtype=torch.int32)
    if weight_type is None:
        rec_w = torch.empty(ALL_TAPS, 4, slots, device=att.device, dtype=preds[0].dtype)
    else:
        rec_w = torch.empty(ALL_TAPS, slots, device=att.device, dtype=torch.int64)
    launcher(locate_kernel, (tiles, MODULES))(
        *preds,
        *[s for p in preds for s in strides(p)],
        att,
        *strides(att),
        rec_i,
        rec_w,
        h,
        w,
        tx,
        ty,
        slots,
        TH=th,
        TW=tw,
        WEIGHT_TYPE=TRITON_TYPES[weight_type],
        BATCH=batch,
        num_warps=max(1, th * tw // 32),  # a thread each: more warps would do the same work again
    )
    return rec_i, rec_w


def forward_launch(f, p0, p1, p2, p3, att, weight, bias, precision, config=None):
    n, c, h, w = f.shape
    key = (f.dtype, precision)
    cfg, copied = dict(CONFIG[key if key in CONFIG else f.dtype]), has_copy_engine(f.device)
    if not copied:
        cfg |= {"BK": max(16, cfg["BK"] // 2)} | THREADS_LOAD
    cfg |= config or {}
    if INTERPRET:
        cfg["BLEND"] = "fp32" if f.dtype.itemsize == 2 else "own"
    cout, bk = weight.shape[0], cfg["BK"]
    while c % bk:
        bk //= 2
    bn = min(128, max(16, next_power_of_2(cout)))
    f = f.contiguous(memory_format=torch.channels_last)
    weight, bias = weight.contiguous(), bias.contiguous()
    out = empty_nhwc(n, h, w, cout, f)
    th, tw = cfg["TH"], cfg["TW"]
    tiles, tx, ty, slots = tiling(n, h, w, th, tw)
    extra = {"maxnreg": cfg["maxnreg"]} if cfg.get("maxnreg") else {}
    # The networks' width, with 16 bytes a load; numbers have 32 bits, which is enough for what `tiling` lets pass.
    fits = f.dtype.itemsize == 2 and c == cout == 128 and f.data_ptr() % 16 == 0
    in_gluon = config is None and fits and gluon_runs(f.device)
    with device_of(f):
        weight_type = f.dtype if f.dtype.itemsize == 2 else None
        rec_i, rec_w = locate((p0, p1, p2, p3), att, f.shape, th, tw, weight_type, in_gluon)
        if in_gluon:
            from .gluon_product import launch_product

            launch_product(f, rec_i, rec_w, weight, att, strides(att), bias, out, tx, ty)
            return out
        launcher(product_kernel, (tiles, ceil_div(cout, bn)))(
            f,
            rec_i,
            rec_w,
            TensorDescriptor.from_tensor(weight, [bn, bk]) if copied else weight,
            att,
            *strides(att),
            bias,
            out,
            h,
            w,
            tx,
            ty,
            slots,
            cout,
            C=c,
            TH=th,
            TW=tw,
            BN=bn,
            BK=bk,
            BLEND=cfg["BLEND"],
            COPIED=copied,
            PRECISION=precision,
            WIDE=cfg.get("WIDE", h * w * c >= 2**31),
            UPCAST=INTERPRET and f.dtype == torch.bfloat16,
            num_warps=cfg["num_warps"],
            num_stages=1,
            **extra,
        )
    return out


def backward_launch(g, f, p0, p1, p2, p3, att, weight, bias, need_f, need_columns, deterministic):
    """Gradients of f, p0..p3, att, and the columns (empty where not needed). Holds two arrays of 36*C values a pixel:
    gcol, and with need_columns the columns.
    """
    preds = (p0, p1, p2, p3)
    f, g = (each.contiguous(memory_format=torch.channels_last) for each in (f, g))
    with device_of(f):
        samples, gcol = run_concurrently(
            lambda: sort_samples(f.shape, preds, att, deterministic) if need_f else (),
            lambda: g.permute(0, 2, 3, 1).flatten(0, 2) @ weight,
            f,
        )
        gf, (gp, gatt, cols) = run_concurrently(
            lambda: gather_grad(gcol, samples, f, preds, att) if need_f else f.new_empty(0),
            lambda: sample_grads(g, gcol, f, preds, att, bias, need_columns),
            f,
        )
    return (gf, *gp, gatt, cols)


def sample_grads(g, gcol, f, preds, att, bias, need_columns):
    """(gradients of the maps, of the attention, the columns or nothing)."""
    n, c, h, w = f.shape
    cols = torch.empty_like(gcol) if need_columns else gcol.new_empty(0)
    gp = [empty_nhwc(n, h, w, p.shape[1], p) for p in preds]
    gatt = empty_nhwc(n, h, w, MODULES, att)
    th, tw = BACKWARD_TILE
    tiles, tx, ty, slots = tiling(n, h, w, th, tw)
    dots = torch.empty(ALL_TAPS, 4, slots, device=f.device, dtype=preds[0].dtype)
    rec_i, rec_w = locate(preds, att, f.shape, th, tw)
    for first, modules in ((True, 1), (False, 3)):
        launcher(kb.taps_kernel, (slots // TAPS_PIXELS, modules))(
            f,
            gcol,
            rec_i,
            rec_w,
            dots,
            cols,
            h,
            w,
            tx,
            ty,
            slots,
            C=c,
            BC=next_power_of_2(c),
            TH=th,
            TW=tw,
            PX=TAPS_PIXELS,
            FIRST=first,
            COLS=need_columns,
            num_warps=1,
            num_stages=1,
        )
    cout = g.shape[1]
    launcher(kb.finish_kernel, (tiles, MODULES))(
        *preds,
        *[s for p in preds for s in strides(p)],
        att,
        *strides(att),
        dots,
        g,
        bias.contiguous(),
        *gp,
        gatt,
        h,
        w,
        tx,
        ty,
        slots,
        COUT=cout,
        BC=next_power_of_2(cout),
        TH=th,
        TW=tw,
        num_warps=4,
    )
    return gp, gatt, cols


def sort_samples(shape, preds, att, deterministic):
    """(rows of gcol in the order of the cells that hold their samples, their corner weights, start of each cell)."""
    n, _, h, w = shape
    pixels, dev = n * h * w, att.device
    entries, grid = 27 * pixels, n * (h + 1) * (w + 1)
    count = torch.zeros(grid + 2, device=dev, dtype=torch.int32)  # shifted by one: cumsum gives starts
    cells = torch.empty(entries, device=dev, dtype=torch.int32)
    rank = torch.empty(1 if deterministic else entries, device=dev, dtype=torch.int32)
    wts = torch.empty(4, entries, device=dev, dtype=att.dtype)
    launcher(kb.bin_kernel, (ceil_div(pixels, 128), 27))(
        *preds[1:],
        *[s for p in preds[1:] for s in strides(p)],
        att,
        *strides(att),
        count[1:],
        cells,
        rank,
        wts,
        h,
        w,
        pixels,
        BM=128,
        RANK=not deterministic,
        num_warps=4,
    )
    start = torch.cumsum(count, 0, dtype=torch.int32)
    order = torch.empty(entries, device=dev, dtype=torch.int32)
    ws = torch.empty(entries, 4, device=dev, dtype=att.dtype)
    if deterministic:  # ties in order of the entry's number, so every run adds in the same order
        key = torch.where(cells < 0, grid, cells)
        e = torch.sort(key, stable=True).indices
        order.copy_((e % pixels) * 36 + 9 + e // pixels)
        ws.copy_(wts.t()[e])
    else:
        launcher(kb.order_kernel, (ceil_div(entries, 256),))(
            cells, rank, start, wts, order, ws, pixels, entries, BM=256, num_warps=4
        )
    return order, ws, start


def gather_grad(gcol, samples, f, preds, att):
    """D f: every pixel sums its own of the sorted samples."""
    n, c, h, w = f.shape
    gf = empty_nhwc(n, h, w, c, f)
    launcher(kb.gather_kernel, (n * h * w,))(
        gcol,
        *samples,
        preds[0],
        *strides(preds[0]),
        att,
        *strides(att),
        gf,
        h,
        w,
        C=c,
        BC=next_power_of_2(c),
        J=8,
        num_warps=1,
    )
    return gf

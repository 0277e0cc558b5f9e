"""3×3 convolutions on the CPU in a fifth of the multiplications: Winograd's, F(6×6, 3×3), by NNPACK, a part of PyTorch.

`F.conv2d` takes NNPACK only for 16 images and more; oneDNN, which it takes otherwise, has no such algorithm. NNPACK's
own threads wait busily for their next work, which takes the cores from PyTorch's. So each strip of the image is
computed in a thread of ours, from the convolution to the activation, and NNPACK has one thread.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.kernel_weights import kernel_weights

TILE = 6  # rows of a tile's result; strips that begin with a tile give the same bits, whatever their number
LEAST_CHANNELS = 64  # with fewer, the transforms take what the multiplications save
LEAST_SIDE = 40  # px; of smaller ones oneDNN takes about as long and rounds less, of 16×24 it takes less


def winograd_possible(deform_op: str, x: Tensor, layer: nn.Conv2d) -> bool:
    """Return whether `winograd_conv` is to take x, (N, C, H, W): one image in fp32 on the CPU, without gradients."""
    return (
        deform_op in ("auto", "fused")
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not (torch.is_autocast_enabled("cpu") or torch.is_grad_enabled() or torch.compiler.is_compiling())
        and x.shape[0] == 1
        and min(x.shape[2:]) >= LEAST_SIDE
        and min(layer.in_channels, layer.out_channels) >= LEAST_CHANNELS
        and (layer.kernel_size, layer.stride) == ((3, 3), (1, 1))
        and (layer.padding, layer.dilation) == ((1, 1), (1, 1))
        and _nnpack_available()
    )


def winograd_conv(x: Tensor, layer: nn.Conv2d, residual: Tensor | None = None, slope: float = 1.0) -> Tensor:
    """Return LReLU(convolution of x + residual) of one image, without gradients.

    Its rounding errors are about seven times those of a direct convolution.

    Args:
        x: (1, C, H, W).
        layer: a 3×3 convolution with stride 1 and padding 1.
        residual: of the result's shape.
        slope: of the leaky ReLU; 1 is none.

    Returns:
        (1, out, H, W) in contiguous memory.
    """
    height, width = x.shape[2:]
    threads = torch.get_num_threads()
    rows = -(-height // (TILE * threads)) * TILE  # of a strip
    inference = torch.is_inference_mode_enabled()
    weight = kernel_weights(layer, "winograd", layer.weight.contiguous)  # else each strip would copy it
    out = x.new_empty(1, layer.out_channels, height, width)

    def convolve(top: int) -> None:
        bottom = min(top + rows, height)
        before, after = max(top - 1, 0), min(bottom + 1, height)
        with torch.inference_mode() if inference else torch.no_grad():  # each thread has modes of its own
            strip = F.pad(x[:, :, before:after], (0, 0, before - top + 1, bottom + 1 - after))
            y = torch.ops.aten._nnpack_spatial_convolution(strip, weight, layer.bias, (0, 1))
            y = y if residual is None else y.add_(residual[:, :, top:bottom])
            out[:, :, top:bottom] = y if slope == 1.0 else F.leaky_relu_(y, slope)

    run = _workers(threads).map if threads > 1 else map
    list(run(convolve, range(0, height, rows)))
    return out


@cache
def _nnpack_available() -> bool:
    # Not in every build of PyTorch. The question initialises NNPACK, too: before, it refuses all convolutions.
    return getattr(torch, "_nnpack_available", bool)()


@cache
def _workers(threads: int) -> ThreadPoolExecutor:
    """Return so many threads, in each of which PyTorch, and NNPACK with it, has but that one."""
    started = Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()  # the first question would undo what follows
        torch.set_num_threads(1)  # of this thread, and of all that start from now on
        started.wait()

    workers = ThreadPoolExecutor(threads, "winograd", start)
    for _ in range(threads):
        workers.submit(int)
    started.wait()
    torch.set_num_threads(threads)
    return workers


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_workers.cache_clear)  # a forked process has none of them

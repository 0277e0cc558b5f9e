"""The parts of the backward pass of convolutions on CUDA, by Triton kernels and, for the weights, by cuDNN."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.launch import empty_nhwc, operation
from .weights import gradient_parts, kernel_layout


@operation("activation_grad")
def activation_grad(
    g: Tensor, out: Tensor | None, slope: float, channels: int, dtype: torch.dtype, need_bias: bool
) -> tuple[Tensor, Tensor]:
    """Take the gradient g, (N, C, H, W), through the activation that gave `out`, None for none.

    Returns:
        (N, channels, H, W) in `dtype`, zero from channel C on, empty where that would be g itself; sums over parts of
        the pixels, (parts, C) in fp32, empty unless `need_bias`.
    """
    from .triton_launch import activation_grad_launch

    return activation_grad_launch(g, out, slope, channels, dtype, need_bias)


@activation_grad.register_fake
def _(g, out, slope, channels, dtype, need_bias):
    n, c, h, w = g.shape
    needed = out is not None or channels != c or dtype != g.dtype
    through = empty_nhwc(n, h, w, channels, g, dtype) if needed else g.new_empty(0, dtype=dtype)
    parts = gradient_parts(n * h * w, channels)[0] if need_bias else 0
    return through, g.new_empty(parts, c, dtype=torch.float32)


@operation("sum_rows")
def sum_rows(rows: Tensor) -> Tensor:
    """Return the sums, (C,), over the rows of (parts, C) in fp32, always added in the same order."""
    from .triton_launch import sum_rows_launch

    return sum_rows_launch(rows)


@sum_rows.register_fake
def _(rows):
    return rows.new_empty(rows.shape[1])


@operation("conv_input_grad")
def input_grad(
    g: Tensor, weight: Tensor, h: int, w: int, stride: int, padding: int, dilation: int, transposed: bool
) -> Tensor:
    """Return the gradient of a convolution's input, (N, C, h, w): a convolution of g.

    Args:
        g: gradient of the output, (N, out, ...), or with channels of zeros after those.
        weight: in g's type, best in channels_last memory.
        h, w: size of the input.
        stride, padding, dilation, transposed: those of the convolution.
    """
    from .triton_launch import conv_launch, input_grad_launch

    if stride == 1:
        return input_grad_launch(g, weight, padding, dilation)
    out_axis = 1 if transposed else 0
    if extra := g.shape[1] - weight.shape[out_axis]:
        weight = F.pad(weight, (0, 0, 0, 0, *((0, extra) if transposed else (0, 0, 0, extra))))
    if transposed:  # the gradient of a transposed convolution is a convolution, and the other way round
        return conv_launch(g, kernel_layout(weight), None, None, stride, padding, dilation, False, 1.0, g.dtype)
    if (stride, padding, dilation, weight.shape[2]) != (2, 1, 1, 3):
        raise ValueError(f"stride {stride} goes with 3×3 kernels and padding 1, not {tuple(weight.shape)}, {padding}")
    whole = conv_launch(g, kernel_layout(weight, transposed=True), None, None, 1, 0, 1, True, 1.0, g.dtype)
    return whole if whole.shape[2:] == (h, w) else whole[:, :, :h, :w].contiguous(memory_format=torch.channels_last)


@input_grad.register_fake
def _(g, weight, h, w, stride, padding, dilation, transposed):
    return empty_nhwc(g.shape[0], h, w, weight.shape[0 if transposed else 1], g)


def weight_grad(
    g: Tensor, x: Tensor, shape: Sequence[int], stride: int, padding: int, dilation: int, transposed: bool
) -> Tensor:
    """Return the gradient of a convolution's weight, with as many outputs as g has, in x's type.

    Args:
        g: gradient of the output, (N, out, ...).
        x: the input.
        shape: of the weight, of any number of outputs.
        stride, padding, dilation, transposed: those of the convolution.
    """
    shape = (shape[0], g.shape[1], *shape[2:]) if transposed else (g.shape[1], *shape[1:])
    like = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)  # for its shape
    geometry = ([each] * 2 for each in (stride, padding, dilation))
    _, dweight, _ = torch.ops.aten.convolution_backward(
        g, x, like, None, *geometry, transposed, [int(transposed)] * 2, 1, [False, True, False]
    )
    return dweight

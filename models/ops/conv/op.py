"""Convolution, bias, addition and activation as one autograd operation on CUDA (definition: reference.py).

The result and the input's gradient are convolutions by Triton kernels, the weight's gradient is cuDNN's. Triton is
optional, so what launches its kernels is imported by what runs on CUDA alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..back_ends import CHANNEL_MULTIPLE, uses_kernels
from ..common.launch import empty_nhwc, op_name
from .weights import ConvWeights, convolved_size, kernel_layout, phase_weight, weight_and_bias

KERNEL_TYPES = (torch.bfloat16, torch.float16, torch.float32)
LARGEST_IMAGE = 2**31  # values; the kernels number those of one image with 32 bits
ALIGNED_CHANNELS = 8  # 16 bytes; cuDNN's and cuBLAS' 16-bit kernels for others are many times slower


def kernel_dtype(deform_op: str, x: Tensor, layer: nn.Conv2d | nn.ConvTranspose2d) -> torch.dtype | None:
    """Return the type in which the kernels multiply x, (N, C, H, W), or None where PyTorch's operation takes it."""
    if not uses_kernels(deform_op, x) or x.numel() == 0:
        return None
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    growth = 4 if isinstance(layer, nn.ConvTranspose2d) else 1
    values = x.shape[2] * x.shape[3] * max(x.shape[1], growth * layer.out_channels)
    return dtype if dtype in KERNEL_TYPES and values < LARGEST_IMAGE else None


def fused_conv(
    x: Tensor,
    weights: ConvWeights,
    layer: nn.Conv2d | nn.ConvTranspose2d,
    slope: float = 1.0,
    residual: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Return LReLU(convolution of x + residual) in one pass, differentiable in every tensor.

    Args:
        x: (N, C, H, W), best in channels_last memory.
        weights: of `conv_weights`, in the type that `kernel_dtype` names.
        layer: stride, padding and dilation of the convolution, the same along both axes; a transposed one is 3×3 with
            stride 2 and doubles the size.
        slope: of the leaky ReLU; 1 is none.
        residual: of the result's shape and any type.
        out_dtype: of the result where it is not that of the products.

    Returns:
        (N, out, H', W') in the weights' type, in channels_last memory.
    """
    weight, bias, kernel_weight = weights
    stride, padding, dilation = layer.stride[0], layer.padding[0], layer.dilation[0]
    transposed = isinstance(layer, nn.ConvTranspose2d)
    x, out_dtype = x.to(weight.dtype), out_dtype or weight.dtype
    return convolution(
        x, weight, bias, residual, kernel_weight, stride, padding, dilation, transposed, slope, out_dtype
    )


def chunk_weights(layer: nn.Conv2d, chunks: int, dtype: torch.dtype) -> list[ConvWeights]:
    """Return what `fused_chunked_conv` takes for input channels that come in so many tensors."""
    weight, bias = (each.detach().to(dtype) for each in weight_and_bias(layer))
    return [(part, bias, kernel_layout(part)) for part in weight.chunk(chunks, dim=1)]


def fused_chunked_conv(x: Sequence[Tensor], weights: Sequence[ConvWeights], layer: nn.Conv2d, slope: float) -> Tensor:
    """Return LReLU(convolution of x, concatenated), without concatenating them and without gradients.

    Args:
        x: tensors (N, C, H, W) of one shape.
        weights: of `chunk_weights`.
        layer: stride, padding and dilation of the convolution.
        slope: of the leaky ReLU.
    """
    geometry = layer.stride[0], layer.padding[0], layer.dilation[0]
    total = None
    for i, (chunk, (weight, bias, kernel_weight)) in enumerate(zip(x, weights, strict=True), start=1):
        # The last one adds the bias and takes the sum through the activation.
        finish = (bias, slope) if i == len(x) else (None, 1.0)
        total = convolution(
            chunk.to(weight.dtype), weight, finish[0], total, kernel_weight, *geometry, False, finish[1], weight.dtype
        )
    assert total is not None  # there is at least one
    return total


def fused_predictions_possible(x: Tensor, layers: Sequence[nn.Conv2d]) -> bool:
    """Return whether `fused_predictions` takes x, (N, C, H, W): without gradients, predictors that are all padded."""
    padded = all(layer.padding == layer.dilation for layer in layers)
    return padded and not torch.is_grad_enabled() and x.shape[1] % CHANNEL_MULTIPLE == 0


@torch.library.custom_op(op_name("predict"), mutates_args=())
def fused_predictions(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what the four modules of an ASPDC predict from x, (N, C, H, W), C a multiple of 16.

    Args:
        x: features.
        weight: `predictor_layout` of the 3×3 predictors' weights, whose dilations are 1, 1, 2 and 4: 9 outputs for the
            first module, 27 in all for each of the others.
        bias: that of their biases.

    Returns:
        (N, 9, H, W) and three times (N, 27, H, W) in fp32.
    """
    from .triton_launch import predict_launch

    map0, map1, map2, map3 = predict_launch(x, weight, bias)
    return map0, map1, map2, map3


@fused_predictions.register_fake
def _(x, weight, bias):
    n, _, h, w = x.shape
    return tuple(empty_nhwc(n, h, w, channels, x, torch.float32) for channels in (9, 27, 27, 27))


@torch.library.custom_op(op_name("activation_grad"), mutates_args=())
def activation_grad(
    g: Tensor, out: Tensor | None, slope: float, channels: int, dtype: torch.dtype, need_bias: bool
) -> tuple[Tensor, Tensor]:
    """Take the gradient g, (N, C, H, W), through the activation that gave `out`, None for none.

    Returns:
        (N, channels, H, W) in `dtype`, zero from channel C on, empty where that would be g itself; the sums over
        pixels, (C,) in fp32, empty unless `need_bias`.
    """
    from .triton_launch import activation_grad_launch

    return activation_grad_launch(g, out, slope, channels, dtype, need_bias)


@activation_grad.register_fake
def _(g, out, slope, channels, dtype, need_bias):
    n, c, h, w = g.shape
    needed = out is not None or channels != c or dtype != g.dtype
    through = empty_nhwc(n, h, w, channels, g, dtype) if needed else g.new_empty(0, dtype=dtype)
    return through, g.new_empty(c if need_bias else 0, dtype=torch.float32)


@torch.library.custom_op(op_name("conv"), mutates_args=())
def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    kernel_weight: Tensor,
    stride: int,
    padding: int,
    dilation: int,
    transposed: bool,
    slope: float,
    dtype: torch.dtype,
) -> Tensor:
    """Return LReLU(convolution of x + residual); `kernel_weight` is the weight's `kernel_layout`."""
    from .triton_launch import conv_launch

    return conv_launch(x, kernel_weight, bias, residual, stride, padding, dilation, transposed, slope, dtype)


@convolution.register_fake
def _(x, weight, bias, residual, kernel_weight, stride, padding, dilation, transposed, slope, dtype):
    n, _, h, w = x.shape
    if transposed:
        return empty_nhwc(n, 2 * h, 2 * w, weight.shape[1], x, dtype)
    h, w = convolved_size(h, w, weight.shape[2], stride, padding, dilation)
    return empty_nhwc(n, h, w, weight.shape[0], x, dtype)


def _setup(ctx, inputs, output):
    x, weight, bias, residual, _, ctx.stride, ctx.padding, ctx.dilation, ctx.transposed, ctx.slope, _ = inputs
    ctx.save_for_backward(x, weight, *([output] if ctx.slope != 1.0 else []))
    ctx.bias_dtype, ctx.residual_dtype = (None if each is None else each.dtype for each in (bias, residual))


@torch.library.custom_op(op_name("conv_input_grad"), mutates_args=())
def input_grad(
    g: Tensor, weight: Tensor, h: int, w: int, stride: int, padding: int, dilation: int, transposed: bool
) -> Tensor:
    """Return the gradient of a convolution's input, (N, C, h, w): a convolution of g, (N, out, ...)."""
    from .triton_launch import conv_launch

    if transposed:  # the gradient of a transposed convolution is a convolution, and the other way round
        return conv_launch(g, kernel_layout(weight), None, None, stride, padding, dilation, False, 1.0, g.dtype)
    if stride == 1:
        kernel_weight = kernel_layout(weight.flip(2, 3).transpose(0, 1))
        padding = dilation * (weight.shape[2] - 1) - padding
        return conv_launch(g, kernel_weight, None, None, 1, padding, dilation, False, 1.0, g.dtype)
    if (stride, padding, dilation, weight.shape[2]) != (2, 1, 1, 3):
        raise ValueError(f"stride {stride} goes with 3×3 kernels and padding 1, not {tuple(weight.shape)}, {padding}")
    whole = conv_launch(g, phase_weight(weight), None, None, 1, 0, 1, True, 1.0, g.dtype)
    return whole if whole.shape[2:] == (h, w) else whole[:, :, :h, :w].contiguous(memory_format=torch.channels_last)


@input_grad.register_fake
def _(g, weight, h, w, stride, padding, dilation, transposed):
    return empty_nhwc(g.shape[0], h, w, weight.shape[0 if transposed else 1], g)


def _backward(ctx, g):
    x, weight, *out = ctx.saved_tensors
    need_x, need_weight, need_bias, need_residual = ctx.needs_input_grad[:4]
    out_axis = 1 if ctx.transposed else 0
    cout = weight.shape[out_axis]
    extra = -cout % ALIGNED_CHANNELS
    if extra:
        weight = F.pad(weight, (0, 0, 0, 0, *((0, extra) if ctx.transposed else (0, 0, 0, extra))))
    activation = out[0] if out else None
    through, bias_grad = activation_grad(g, activation, ctx.slope, cout + extra, x.dtype, need_bias)
    through = through if through.numel() else g
    geometry = ctx.stride, ctx.padding, ctx.dilation, ctx.transposed
    dx = input_grad(through, weight, *x.shape[2:], *geometry) if need_x else None
    dweight = None
    if need_weight:
        output_padding = [int(ctx.transposed)] * 2
        stride, padding, dilation = ([each] * 2 for each in geometry[:3])
        _, dweight, _ = torch.ops.aten.convolution_backward(
            through, x, weight, None, stride, padding, dilation, ctx.transposed, output_padding, 1, [False, True, False]
        )
        dweight = dweight.narrow(out_axis, 0, cout)
    return (
        dx,
        dweight,
        bias_grad.to(ctx.bias_dtype) if need_bias else None,
        through[:, :cout].to(ctx.residual_dtype) if need_residual else None,
        *[None] * 7,
    )


convolution.register_autograd(_backward, setup_context=_setup)

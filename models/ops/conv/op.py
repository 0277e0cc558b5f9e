"""Convolution, bias, addition and activation as one autograd operation on CUDA (definition: reference.py).

The result and the input's gradient are convolutions by Triton kernels, the weight's gradient is cuDNN's. Triton is
optional, so what launches its kernels is imported by what runs on CUDA alone.
"""

from typing import Sequence  # noqa: UP035 (of these, custom operations of torch 2.4 take no other)

import torch
from torch import Tensor, nn

from ..back_ends import CHANNEL_MULTIPLE, uses_kernels
from ..common.launch import empty_nhwc, operation
from ..common.streams import run_with_parameter_gradients
from .gluon_launch import predicts_in_gluon
from .gradients import activation_grad, input_grad, sum_rows, weight_grad
from .weights import ConvWeights, as_weight, convolved_size, kernel_layout, weight_and_bias, weight_parts

KERNEL_TYPES = (torch.bfloat16, torch.float16, torch.float32)
LARGEST_IMAGE = 2**31  # values; the kernels number those of one image with 32 bits
PREDICTED_DILATIONS = (1, 1, 1, 2, 2, 4, 4)  # of the predictors that `predict_launch` computes
ALIGNED_CHANNELS = 8  # 16 bytes; cuDNN's 16-bit kernels for others are many times slower


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
        weights: of `conv_weights`, for the type that `kernel_dtype` names.
        layer: stride, padding and dilation of the convolution, the same along both axes; a transposed one is 3×3 with
            stride 2 and doubles the size.
        slope: of the leaky ReLU; 1 is none.
        residual: of the result's shape and any type.
        out_dtype: of the result where it is not that of the products.

    Returns:
        (N, out, H', W') in the type of the products, in channels_last memory.
    """
    kernel_weight = weights.kernel_weight
    stride, padding, dilation = layer.stride[0], layer.padding[0], layer.dilation[0]
    transposed = isinstance(layer, nn.ConvTranspose2d)
    x, out_dtype = x.to(kernel_weight.dtype), out_dtype or kernel_weight.dtype
    return convolution(
        x, weights.weights, weights.biases, residual, kernel_weight, weights.kernel_bias, stride, padding, dilation,
        transposed, slope, out_dtype,
    )  # fmt: skip


def chunk_weights(layer: nn.Conv2d, chunks: int, dtype: torch.dtype) -> list[ConvWeights]:
    """Return what `fused_chunked_conv` takes for input channels that come in so many tensors."""
    weight, bias = (each.detach() for each in weight_and_bias(layer))
    parts = weight.chunk(chunks, dim=1)
    return [ConvWeights([part], [bias], kernel_layout(part.to(dtype)), bias) for part in parts]


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
    for i, (chunk, part) in enumerate(zip(x, weights, strict=True), start=1):
        # The last one adds the bias and takes the sum through the activation.
        bias, last_slope = (part.kernel_bias, slope) if i == len(x) else (None, 1.0)
        dtype = part.kernel_weight.dtype
        total = convolution(
            chunk.to(dtype), part.weights, [], total, part.kernel_weight, bias, *geometry, False, last_slope, dtype
        )
    assert total is not None  # there is at least one
    return total


def fused_predictions_possible(x: Tensor, layers: Sequence[nn.Conv2d]) -> bool:
    """Return whether `fused_predictions` takes x, (N, C, H, W): without gradients, predictors of its dilations."""
    geometry = [(layer.stride, layer.padding, layer.dilation) for layer in layers]
    fits = geometry == [((1, 1), (each, each), (each, each)) for each in PREDICTED_DILATIONS]
    return fits and not torch.is_grad_enabled() and x.shape[1] % CHANNEL_MULTIPLE == 0


@operation("predict")
def fused_predictions(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what the four modules of an ASPDC predict from x, (N, C, H, W), C a multiple of 16.

    Args:
        x: features.
        weight: `predictor_layout` of the 3×3 predictors' weights, whose dilations are 1, 1, 2 and 4: 9 outputs for the
            first module, 27 in all for each of the others.
        bias: that of their biases.

    Returns:
        (N, 9, H, W) and three times (N, 27, H, W) in fp32, in memory as `predict_launch` says.
    """
    from .triton_launch import predict_launch

    map0, map1, map2, map3 = predict_launch(x, weight, bias)
    return map0, map1, map2, map3


@fused_predictions.register_fake
def _(x, weight, bias):
    n, _, h, w = x.shape
    if x.is_cuda and predicts_in_gluon(x):
        return tuple(x.new_empty(n, channels, h, w, dtype=torch.float32) for channels in (9, 27, 27, 27))
    return tuple(empty_nhwc(n, h, w, channels, x, torch.float32) for channels in (9, 27, 27, 27))


@operation("conv")
def convolution(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    residual: Tensor | None,
    kernel_weight: Tensor,
    kernel_bias: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    transposed: bool,
    slope: float,
    dtype: torch.dtype,
) -> Tensor:
    """Return LReLU(convolution of x + residual).

    Args:
        x: (N, C, H, W).
        weights: of one convolution, or of several whose outputs are concatenated; they get the gradients.
        biases: theirs, or none.
        residual: of the result's shape.
        kernel_weight: the weights' `kernel_layout` in x's type.
        kernel_bias: the biases in one tensor.
        stride, padding, dilation, transposed: of the convolutions.
        slope: of the leaky ReLU; 1 is none.
        dtype: of the result.
    """
    from .triton_launch import conv_launch

    return conv_launch(x, kernel_weight, kernel_bias, residual, stride, padding, dilation, transposed, slope, dtype)


@convolution.register_fake
def _(x, weights, biases, residual, kernel_weight, kernel_bias, stride, padding, dilation, transposed, slope, dtype):
    n, _, h, w = x.shape
    if transposed:
        return empty_nhwc(n, 2 * h, 2 * w, weights[0].shape[1], x, dtype)
    h, w = convolved_size(h, w, weights[0].shape[2], stride, padding, dilation)
    return empty_nhwc(n, h, w, sum(map(len, weights)), x, dtype)


def _setup(ctx, inputs, output):
    x, weights, biases, residual, kernel_weight, _, *geometry, ctx.slope, _ = inputs
    ctx.stride, ctx.padding, ctx.dilation, ctx.transposed = geometry
    activation = [output] if ctx.slope != 1.0 else []
    ctx.save_for_backward(x, kernel_weight, *weights, *biases, *activation)
    ctx.layers, ctx.biases = len(weights), len(biases)
    ctx.residual_dtype = None if residual is None else residual.dtype


def _backward(ctx, g):
    x, kernel_weight, *saved = ctx.saved_tensors
    weights, biases = saved[: ctx.layers], saved[ctx.layers : ctx.layers + ctx.biases]
    activation = saved[-1] if ctx.slope != 1.0 else None
    need_x, need_weights, need_biases, need_residual = ctx.needs_input_grad[:4]
    out_axis = 1 if ctx.transposed else 0
    outputs = [weight.shape[out_axis] for weight in weights]
    cout, geometry = sum(outputs), (ctx.stride, ctx.padding, ctx.dilation, ctx.transposed)
    padded = cout + -cout % ALIGNED_CHANNELS
    through, sums = activation_grad(g, activation, ctx.slope, padded, x.dtype, any(need_biases))
    through = through if through.numel() else g

    def parameter_gradients() -> list[Tensor | None]:
        gradients: list[Tensor | None] = [None] * len(weights)
        if any(need_weights):
            dweight = weight_grad(through, x, weights[0].shape, *geometry)
            parts = dweight.narrow(out_axis, 0, cout).split(outputs, out_axis)
            gradients = [torch.empty_like(weight).copy_(part) for part, weight in zip(parts, weights, strict=True)]
        if not any(need_biases):
            return [*gradients, *[None] * len(biases)]
        parts = sum_rows(sums).split(outputs)
        return [*gradients, *(part.to(bias.dtype) for part, bias in zip(parts, biases, strict=True))]

    def input_gradient() -> Tensor | None:
        if not need_x:
            return None
        # kernel_weight is no such weight in phases or in two parts, and a second derivative, which is refused, has to
        # find the weights themselves.
        if ctx.transposed or weight_parts(x.dtype) > 1 or torch.is_grad_enabled():
            weight = torch.cat(weights).to(x.dtype)
        else:
            weight = as_weight(kernel_weight, weights[0].shape)
        return input_grad(through, weight, *x.shape[2:], *geometry)

    gradients, dx = run_with_parameter_gradients(parameter_gradients, input_gradient, x, [*weights, *biases])
    dresidual = through[:, :cout].to(ctx.residual_dtype) if need_residual else None
    return dx, gradients[: ctx.layers], gradients[ctx.layers :], dresidual, *[None] * 8


convolution.register_autograd(_backward, setup_context=_setup)

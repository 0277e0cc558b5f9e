"""Operations that do in one what PyTorch does in several: an ASPDC's weighted sum, convolutions, dynamic filtering."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from models.ops.aspdc_sum.cpu import TAPS, fused_sum_cpu
from models.ops.common.kernel_weights import forget_kernel_weights, kernel_weights
from models.ops.common.streams import on_side_stream, run_concurrently, wait_side_stream

OLDEST_TRITON = (3, 6)
OLDEST_GPU = (9, 0)
CHANNEL_MULTIPLE = 16

CONV_TYPES = (torch.bfloat16, torch.float16, torch.float32)
LARGEST_IMAGE = 2**31  # values; the convolution kernels number those of one image with 32 bits

_switch = {"enabled": True}

__all__ = [
    "forget_kernel_weights",
    "fused_conv",
    "fused_conv_type",
    "fused_filter",
    "fused_filter_possible",
    "fused_part",
    "fused_predictions",
    "fused_problem",
    "fused_sum",
    "on_side_stream",
    "run_concurrently",
    "use_fused_operations",
    "wait_side_stream",
    "weight_and_bias",
]


def fused_problem(device_type: str, channels: int | None = None) -> str | None:
    """Return why the fused operation cannot run on this kind of device, on so many channels, or None where it can."""
    problem = _device_problem(device_type)
    if problem is None and device_type == "cuda" and channels is not None and channels % CHANNEL_MULTIPLE:
        return f"the fused kernels take multiples of {CHANNEL_MULTIPLE} channels, not {channels}"
    return problem


@cache
def _device_problem(device_type: str) -> str | None:
    if device_type == "cpu":
        return None
    if device_type != "cuda":
        return f"the fused operation runs on the CPU and on CUDA, not on {device_type}"
    try:
        import triton  # pyright: ignore[reportMissingImports] (optional)
    except ImportError as error:
        return f"the fused operation needs Triton on CUDA, which cannot be imported ({error})"
    if tuple(map(int, triton.__version__.split(".")[:2])) < OLDEST_TRITON:
        return (
            f"the fused operation needs Triton {'.'.join(map(str, OLDEST_TRITON))} or newer, not {triton.__version__}"
        )
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < OLDEST_GPU:
        return "the fused kernels use instructions of compute capability 9.0 (Hopper) and newer"
    return None


def fused_sum(
    f: Tensor,
    maps: Sequence[Tensor],
    attention: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
) -> Tensor:
    """Return Σ_i a_i · (modulated deformable convolution i of f), differentiable in every argument.

    Each convolution is 3×3 with padding 1 and one offset group, see `models.ops.deform_conv`.

    Args:
        f: (N, C, H, W), best in channels_last memory; its type is that of the products.
        maps: for each of M modules its predictions: (N, 27, H, W), 18 offsets in px (y, x per row-major tap), then 9
            modulations before their sigmoid; or (N, 9, H, W), the modulations of a module without offsets.
        attention: (N, M, H, W).
        weights: M times (out, C, 3, 3).
        biases: M times (out,).

    Returns:
        (N, out, H, W) in f's type and channels_last memory.

    Raises:
        ValueError: an empty batch, or shapes that do not fit.
        RuntimeError: neither on the CPU nor, with Triton, on CUDA.
    """
    if problem := fused_problem(f.device.type):
        raise RuntimeError(problem)
    if f.dim() != 4 or f.numel() == 0:
        raise ValueError(f"f should be a non-empty N×C×H×W tensor, got {tuple(f.shape)}")
    modules = len(maps)
    if len(weights) != modules or len(biases) != modules:
        raise ValueError(f"{modules} maps with {len(weights)} weights and {len(biases)} biases")
    batch, channels, height, width = f.shape
    out = weights[0].shape[0]
    expected = [("attention", attention, (batch, modules, height, width))]
    for i, (each, weight, bias) in enumerate(zip(maps, weights, biases, strict=True)):
        predicted = TAPS if each.shape[1] == TAPS else 3 * TAPS
        expected += [
            (f"map {i}", each, (batch, predicted, height, width)),
            (f"weight {i}", weight, (out, channels, 3, 3)),
            (f"bias {i}", bias, (out,)),
        ]
    for name, tensor, shape in expected:
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} should have shape {shape}, got {tuple(tensor.shape)}")
    if f.device.type == "cpu":
        return fused_sum_cpu(f, maps, attention, weights, biases)
    from models.ops.aspdc_sum.op import fused_sum_triton

    return fused_sum_triton(f, maps, attention, weights, biases)


def use_fused_operations(enabled: bool) -> None:
    """Turn `fused_conv`, `fused_predictions` and `fused_filter` on or off in this process; they are on at first."""
    _switch["enabled"] = enabled


def weight_and_bias(layer: nn.Conv2d | nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Return the parameters of a convolution; all those of the networks have a bias."""
    assert layer.bias is not None
    return layer.weight, layer.bias


def fused_conv_type(x: Tensor, layer: nn.Conv2d | nn.ConvTranspose2d) -> torch.dtype | None:
    """Return the type in which `fused_conv` multiplies x, (N, C, H, W), or None where it cannot take it."""
    if not x.is_cuda or not _switch["enabled"] or x.numel() == 0 or fused_problem("cuda"):
        return None
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    growth = 4 if isinstance(layer, nn.ConvTranspose2d) else 1
    values = x.shape[2] * x.shape[3] * max(x.shape[1], growth * layer.out_channels)
    return dtype if dtype in CONV_TYPES and values < LARGEST_IMAGE else None


def fused_conv(
    x: Tensor,
    parameters: Sequence[Tensor],
    layer: nn.Conv2d | nn.ConvTranspose2d,
    slope: float = 1.0,
    residual: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Return LReLU(convolution of x + residual) in one pass, differentiable in every tensor.

    Args:
        x: (N, C, H, W), best in channels_last memory.
        parameters: weights, then as many biases; several of them are convolutions of x whose outputs are concatenated.
        layer: stride, padding and dilation of the convolution, the same along both axes; a transposed one is 3×3 with
            stride 2 and doubles the size.
        slope: of the leaky ReLU; 1 is none.
        residual: of the result's shape and any type.
        out_dtype: of the result where it is not that of the products.

    Returns:
        (N, out, H', W') in the type that `fused_conv_type` names, in channels_last memory.
    """
    from models.ops.conv.op import convolution
    from models.ops.conv.triton_launch import kernel_form

    dtype = fused_conv_type(x, layer)
    assert dtype is not None  # it is for the caller to ask before
    x = x.to(dtype)
    stride, padding, dilation = layer.stride[0], layer.padding[0], layer.dilation[0]
    transposed = isinstance(layer, nn.ConvTranspose2d)

    def build() -> tuple[Tensor, Tensor, Tensor]:
        count = len(parameters) // 2
        weight, bias = (
            (each[0] if count == 1 else torch.cat(tuple(each))).to(dtype)
            for each in (parameters[:count], parameters[count:])
        )
        return weight, bias, kernel_form(weight.detach(), transposed)

    weight, bias, kernel_weight = kernel_weights("convolution", parameters, dtype, build)
    return convolution(
        x, weight, bias, residual, kernel_weight, stride, padding, dilation, transposed, slope, out_dtype or dtype
    )


def fused_part(x: Tensor, layer: nn.Conv2d, part: int, total: Tensor | None, slope: float) -> Tensor:
    """Return total + the convolution of one part of the input's channels, x, (N, C, H, W); without gradients.

    The last part adds the bias and takes the sum through the leaky ReLU.
    """
    from models.ops.conv.op import convolution
    from models.ops.conv.triton_launch import kernel_form

    dtype, channels = fused_conv_type(x, layer), x.shape[1]
    assert dtype is not None  # it is for the caller to ask before
    parameters = weight_and_bias(layer)
    last = (part + 1) * channels == layer.in_channels

    def build() -> tuple[Tensor, Tensor, Tensor]:
        weight = parameters[0][:, part * channels : (part + 1) * channels].to(dtype)
        return weight, parameters[1].to(dtype), kernel_form(weight)

    weight, bias, kernel_weight = kernel_weights(f"part {part}", parameters, dtype, build)
    geometry = layer.stride[0], layer.padding[0], layer.dilation[0]
    return convolution(
        x.to(dtype),
        weight,
        bias if last else None,
        total,
        kernel_weight,
        *geometry,
        False,
        slope if last else 1.0,
        dtype,
    )


def fused_predictions(x: Tensor, layers: Sequence[Sequence[nn.Conv2d]]) -> list[Tensor] | None:
    """Return what the four modules of an ASPDC predict from x, (N, C, H, W), or None where one launch cannot do it.

    Without gradients, on CUDA.

    Args:
        x: features, C a multiple of 16.
        layers: each module's 3×3 predictors, whose dilations are 1, 1, 2 and 4: 9 outputs for the first module, 27 in
            all for each of the others.

    Returns:
        (N, 9, H, W) and three times (N, 27, H, W) in fp32.
    """
    flat = [layer for module in layers for layer in module]
    dtype = fused_conv_type(x, flat[-1])
    plain = all(layer.padding == layer.dilation for layer in flat)
    if dtype is None or torch.is_grad_enabled() or x.shape[1] % CHANNEL_MULTIPLE or not plain:
        return None
    from models.ops.conv.op import predictions
    from models.ops.conv.triton_launch import predict_form

    def build() -> tuple[Tensor, Tensor]:
        weights, biases = (
            predict_form([[weight_and_bias(layer)[i].to(dtype) for layer in module] for module in layers])
            for i in range(2)
        )
        return weights, biases

    sources = [parameter for layer in flat for parameter in weight_and_bias(layer)]
    return list(predictions(x.to(dtype), *kernel_weights("predictors", sources, dtype, build)))


def fused_filter_possible(x: Tensor) -> bool:
    """Say whether `fused_filter` can take x, (N, C, H, W)."""
    return x.is_cuda and _switch["enabled"] and fused_problem("cuda") is None


def fused_filter(x: Tensor, kernel: Tensor) -> Tensor:
    """Compute `models.reblurring_net.dynamic_filter`, see there, in one pass over memory."""
    from models.ops.dynamic_filter.op import filtered

    return filtered(x, kernel)

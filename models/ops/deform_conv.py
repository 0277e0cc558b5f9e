"""Modulated deformable convolution (DCNv2, Zhu et al., CVPR 2019, eq. 1) on interchangeable back ends.

The back ends give the same numbers. mmcv's (mmcv-full 1.x, mmcv 2.x or onedl-mmcv) is used where it is installed,
torchvision's otherwise; see `models.ops.back_ends`.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from .back_ends import resolve_single_op
from .common.block import Block

Pair = tuple[int, int]  # vertical, horizontal


def _check(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    deform_groups: int,
) -> None:
    """Raise ValueError or TypeError unless every tensor fits the others (mmcv itself checks almost nothing)."""
    for name, tensor in (("input", x), ("weight", weight), ("offset", offset), ("mask", mask)):
        if tensor.dim() != 4:
            raise ValueError(f"{name} should have 4 dimensions, got shape {tuple(tensor.shape)}")
    batch, in_channels, height, width = x.shape
    out_channels, group_channels, *kernel = weight.shape
    if batch == 0:
        raise ValueError("the batch is empty: input has 0 images")
    if groups < 1 or in_channels % groups or out_channels % groups or group_channels * groups != in_channels:
        raise ValueError(
            f"weight {tuple(weight.shape)} with groups {groups} does not fit {in_channels} input channels: expected "
            "(out, in / groups, kernel height, kernel width), in and out multiples of groups"
        )
    if deform_groups < 1 or in_channels % deform_groups:
        raise ValueError(f"deform_groups {deform_groups} should divide the {in_channels} input channels")
    out_size = tuple(
        (size + 2 * pad - dil * (k - 1) - 1) // step + 1
        for size, pad, dil, k, step in zip((height, width), padding, dilation, kernel, stride, strict=True)
    )
    if min(out_size) < 1:
        raise ValueError(f"input of {height}×{width} is smaller than the dilated kernel: the output would be empty")
    taps = deform_groups * kernel[0] * kernel[1]
    expected = {"offset": (batch, 2 * taps, *out_size), "mask": (batch, taps, *out_size)}
    for name, tensor in (("offset", offset), ("mask", mask)):
        if tuple(tensor.shape) != expected[name]:
            raise ValueError(f"{name} should have shape {expected[name]}, got {tuple(tensor.shape)}")
    if bias is not None and tuple(bias.shape) != (out_channels,):
        raise ValueError(f"bias should have shape {(out_channels,)}, got {tuple(bias.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"input should be of a floating-point type, got {x.dtype}")
    for name, tensor in (("offset", offset), ("mask", mask), ("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.dtype != x.dtype:
            raise TypeError(f"{name} should have the input's type {x.dtype}, got {tensor.dtype}")
        if tensor is not None and tensor.device != x.device:
            raise ValueError(f"{name} should be on the input's device {x.device}, got {tensor.device}")


def modulated_deform_conv2d(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    deform_groups: int = 1,
    deform_op: str = "auto",
) -> Tensor:
    """Convolve with moved and modulated taps: out(p) = Σ_k w_k · m_k(p) · x(p + p_k + Δ_k(p)) + bias.

    Positions between pixels are bilinear, those outside the image count as zero. The order of arguments is mmcv's.

    Args:
        input: (N, C, H, W), float32 or float64.
        offset: (N, 2 · deform_groups · K, H', W') in px: y, x of each of the K taps, taps in row-major order.
        mask: (N, deform_groups · K, H', W'), the modulation, usually in [0, 1].
        weight: (out, C / groups, kernel height, kernel width).
        bias: (out,) or None.
        stride: step between outputs, one number or (vertical, horizontal); so are `padding` and `dilation`.
        padding: zeros around the input.
        dilation: distance between taps.
        groups: blocks of channels that are convolved apart.
        deform_groups: blocks of input channels with offsets and modulations of their own.
        deform_op: the back end, one of `models.ops.back_ends.DEFORM_OPS`.

    Returns:
        (N, out, H', W').

    Raises:
        ValueError: a shape or device that does not fit, an empty batch, or an unknown back end.
        TypeError: the tensors differ in type or are not floating-point.
        RuntimeError: the back end asked for cannot run here.
    """
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    _check(input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups)
    # Of NaN both back ends make an index and read somewhere in memory.
    offset = torch.where(offset.isnan(), torch.zeros_like(offset), offset)
    if resolve_single_op(deform_op, input.device) == "torchvision":
        # Two seconds to import, with PyTorch's compiler: not for those who use another back end.
        from torchvision.ops import deform_conv2d

        # It derives both kinds of groups from the shapes.
        return deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)
    from mmcv.ops import modulated_deform_conv2d as mmcv_op  # pyright: ignore[reportMissingImports] (optional)

    # mmcv's kernels walk flat buffers by the shapes alone.
    tensors = (tensor.contiguous() for tensor in (input, offset, mask, weight))
    return mmcv_op(*tensors, bias, stride, padding, dilation, groups, deform_groups)


class ModulatedDeformConv2d(Block, nn.Conv2d):
    """The weights of a modulated deformable convolution; the offsets and the modulation come with each call.

    Parameters (`weight`, `bias`) and arguments have mmcv's names. The initialisation is that of `nn.Conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        deform_groups: int = 1,
        bias: bool = True,
        deform_op: str = "auto",
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.deform_groups = deform_groups
        self.deform_op = deform_op

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] (of nn.Conv2d it has but the parameters)
        self, x: Tensor, offset: Tensor, mask: Tensor
    ) -> Tensor:
        """Return `modulated_deform_conv2d` of x (N, C, H, W) with this module's weights.

        Computed in fp32 where types are shorter; the result has x's type, under autocast fp32.
        """
        weight, bias = self.weight, self.bias
        autocast, dtype = torch.is_autocast_enabled(x.device.type), x.dtype
        if autocast or dtype.itemsize == 2:  # the back ends want one type, and coordinates need fp32
            x, offset, mask, weight = (_at_least_fp32(tensor) for tensor in (x, offset, mask, weight))
            bias = None if bias is None else _at_least_fp32(bias)
        stride, padding, dilation = _pair(self.stride), _pair(self.padding), _pair(self.dilation)
        with torch.autocast(x.device.type, enabled=False):
            result = modulated_deform_conv2d(
                x,
                offset,
                mask,
                weight,
                bias,
                stride,
                padding,
                dilation,
                self.groups,
                self.deform_groups,
                self.deform_op,
            )
        return result if autocast else result.to(dtype)


def _at_least_fp32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

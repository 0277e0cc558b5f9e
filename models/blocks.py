"""Building blocks that both networks share: convolutions, residual blocks, initialisation, padding."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .ops.common.block import Block
from .ops.common.kernel_weights import kernel_weights
from .ops.conv.cpu import winograd_conv, winograd_possible
from .ops.conv.op import chunk_weights, fused_chunked_conv, fused_conv, kernel_dtype
from .ops.conv.weights import conv_weights

LRELU_SLOPE = 0.1
MIN_SIZE = 8  # px; reflection needs more pixels than it adds, and the reblurring network adds up to 7

Layer = TypeVar("Layer", bound=nn.Module)

if TYPE_CHECKING:

    class ModuleList(nn.ModuleList, Generic[Layer]):
        """PyTorch's, whose own types forget of what kind the modules are."""

        def __init__(self, modules: Iterable[Layer]) -> None: ...
        def __iter__(self) -> Iterator[Layer]: ...
        @overload
        def __getitem__(self, idx: slice) -> nn.ModuleList: ...
        @overload
        def __getitem__(self, idx: int) -> Layer: ...
        def __getitem__(self, idx: int | slice) -> Layer | nn.ModuleList: ...
else:
    ModuleList = nn.ModuleList


class Sequential(Block, nn.Sequential):
    """Layers one after another, under the numbers that they have in checkpoints.

    There a convolution, the activation after it and a residual block have a number each; here one block is the first
    two, so that numbers are missing and a layer's position is not its number.

    Args:
        layers: by their numbers.
    """

    def __init__(self, layers: Mapping[int, nn.Module]) -> None:
        super().__init__(OrderedDict((str(number), layer) for number, layer in layers.items()))


class Conv(Block, nn.Conv2d):
    """A convolution with bias that keeps the size at stride 1: (N, in, H, W) -> (N, out, H/stride, W/stride).

    Args:
        in_channels: of the input.
        out_channels: of the result.
        kernel_size: odd.
        stride: step between outputs.
        output_fp32: leave the kernel's result in fp32 where the products are of a 16-bit type.
    """

    slope = 1.0  # of the leaky ReLU after it; 1 is none

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, output_fp32: bool = False
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, kernel_size // 2)
        self.output_fp32 = output_fp32

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] (PyTorch's has `input` alone)
        self, x: Tensor, residual: Tensor | None = None
    ) -> Tensor:
        """Return LReLU(convolution of x + residual), of which the activation and the addition are optional."""
        if winograd_possible(self.deform_op, x, self):
            return winograd_conv(x, self, residual, self.slope)
        dtype = kernel_dtype(self.deform_op, x, self)
        if dtype is None:
            y = super().forward(x)
            y = y if residual is None else residual + y
            return y if self.slope == 1.0 else F.leaky_relu(y, self.slope, inplace=True)
        weights = kernel_weights(self, dtype, lambda: conv_weights([self], dtype))
        return fused_conv(x, weights, self, self.slope, residual, torch.float32 if self.output_fp32 else None)


class ConvLReLU(Conv):
    """LReLU(conv(x))."""

    slope = LRELU_SLOPE


class UpsampleLReLU(Block, nn.ConvTranspose2d):
    """LReLU of a transposed convolution that doubles the size: (N, in, H, W) -> (N, out, 2H, 2W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride] (as `Conv.forward`)
        """Return the result."""
        dtype = kernel_dtype(self.deform_op, x, self)
        if dtype is None:
            return F.leaky_relu(super().forward(x), LRELU_SLOPE, inplace=True)
        weights = kernel_weights(self, dtype, lambda: conv_weights([self], dtype))
        return fused_conv(x, weights, self, LRELU_SLOPE)


class ChunkedConv(ConvLReLU):
    """LReLU(conv(x)), where x are the channels of several tensors, (N, C, H, W) each."""

    def forward(self, x: Sequence[Tensor]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride] (of one)
        """Return the result, (N, out, H, W)."""
        dtype = kernel_dtype(self.deform_op, x[0], self)
        if dtype is None or torch.is_grad_enabled():
            return super().forward(torch.cat(list(x), dim=1))
        weights = kernel_weights(self, ("chunks", dtype), lambda: chunk_weights(self, len(x), dtype))
        return fused_chunked_conv(x, weights, self, self.slope)


class ResBlock(Block):
    """x + conv3(LReLU(conv3(x))) without normalisation; (N, C, H, W) -> (N, C, H, W).

    Args:
        channels: C.
        activate: take the result through one more LReLU.
    """

    def __init__(self, channels: int, activate: bool = False) -> None:
        super().__init__()
        self.conv1 = ConvLReLU(channels, channels)
        self.conv2 = (ConvLReLU if activate else Conv)(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus its residual."""
        return self.conv2(self.conv1(x), residual=x)


def init_weights(network: nn.Module) -> None:
    """Initialise as published: Xavier normal for every convolution's weight, deformable ones included.

    Transposed convolutions and all biases keep PyTorch's default.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):  # ModulatedDeformConv2d is one
            nn.init.xavier_normal_(module.weight)


def check_images(images: Sequence[Tensor], names: Sequence[str]) -> None:
    """Raise `ValueError` unless every image is a non-empty N×3×H×W float batch, all of one shape, 8 px or larger."""
    for image, name in zip(images, names, strict=True):
        if image.dim() != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise ValueError(
                f"{name} should be a floating-point N×3×H×W batch in [-1, 1], got {tuple(image.shape)} {image.dtype}"
            )
        if image.shape[0] == 0:
            raise ValueError(f"{name} holds no images: the batch is empty")
        if image.shape != images[0].shape:
            raise ValueError(
                f"{names[0]} and {name} differ in shape: {tuple(images[0].shape)} and {tuple(image.shape)}"
            )
        if min(image.shape[-2:]) < MIN_SIZE:
            raise ValueError(f"{name} is {image.shape[-2]}×{image.shape[-1]} px (H×W), the smallest is {MIN_SIZE}")


def pad_to_stride(image: Tensor, stride: int, smallest: int) -> Tensor:
    """Reflect-pad the bottom and right of (N, C, H, W) until both sizes are multiples of `stride` and >= `smallest`.

    Returns the image itself where nothing is missing, so that the published function stays exact there.
    """
    height, width = image.shape[-2:]
    bottom, right = (max(-size % stride, smallest - size) for size in (height, width))
    if bottom <= 0 and right <= 0:
        return image
    # One reflection adds at most one pixel less than there are; the smallest images need two.
    padded = F.pad(image, (0, min(right, width - 1), 0, min(bottom, height - 1)), mode="reflect")
    return pad_to_stride(padded, stride, smallest)


def crop_like(image: Tensor, reference: Tensor) -> Tensor:
    """Undo `pad_to_stride`: the top left part of `image` (N, C, ...) with the height and width of `reference`."""
    return image[..., : reference.shape[-2], : reference.shape[-1]]

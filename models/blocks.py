"""Building blocks that both networks share: convolutions, residual blocks, initialisation, padding."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.ops import fused_conv, fused_conv_type, fused_part, on_side_stream, wait_side_stream, weight_and_bias

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


def conv(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Conv2d:
    """Return a convolution with bias that keeps the size at stride 1: (N, in, H, W) -> (N, out, H, W)."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)


def upsample(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """Return a transposed convolution that doubles the size: (N, in, H, W) -> (N, out, 2H, 2W)."""
    return nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)


def leaky_relu() -> nn.LeakyReLU:
    """Return the activation of both networks: leaky ReLU of slope 0.1."""
    return nn.LeakyReLU(LRELU_SLOPE, inplace=True)


def convolve(
    x: Tensor,
    layer: nn.Conv2d | nn.ConvTranspose2d,
    activate: bool = False,
    residual: Tensor | None = None,
    output_fp32: bool = False,
) -> Tensor:
    """Return LReLU(layer(x) + residual), of which the activation and the addition are optional.

    On CUDA that is one operation, see `models.ops.fused_conv`, and `output_fp32` leaves its result in fp32.
    """
    if fused_conv_type(x, layer) is not None:
        slope, dtype = LRELU_SLOPE if activate else 1.0, torch.float32 if output_fp32 else None
        return fused_conv(x, weight_and_bias(layer), layer, slope, residual, dtype)
    y = layer(x)
    if residual is not None:
        y = residual + y
    return F.leaky_relu(y, LRELU_SLOPE, inplace=True) if activate else y


class ChunkedConv:
    """LReLU(layer(x)), where x are the channels of several tensors, (N, C, H, W) each, that arrive one after another.

    On CUDA and without gradients each part is convolved as it comes, beside the work on the next one.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        self._layer = layer
        self._parts: list[Tensor] = []
        self._total: Tensor | None = None

    def add(self, part: Tensor) -> None:
        """Take the next part."""
        index = len(self._parts)
        self._parts.append(part)
        if not torch.is_grad_enabled() and fused_conv_type(part, self._layer) is not None:
            self._total = on_side_stream(lambda: fused_part(part, self._layer, index, self._total, LRELU_SLOPE), part)

    def result(self) -> Tensor:
        """Return the result, once all parts are there."""
        if self._total is None:
            return convolve(torch.cat(self._parts, dim=1), self._layer, activate=True)
        wait_side_stream(self._total)
        return self._total


class Chain(nn.Sequential):
    """A sequence of layers that computes a convolution or residual block and the activation after it in one call."""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride] (PyTorch's has `input`)
        """Return the last layer's output."""
        layers = list(self)
        for layer, following in zip(layers, [*layers[1:], None], strict=True):
            activate = isinstance(following, nn.LeakyReLU)
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                x = convolve(x, layer, activate, output_fp32=isinstance(following, nn.Softmax))
            elif isinstance(layer, ResBlock):
                x = layer(x, activate)
            elif not isinstance(layer, nn.LeakyReLU):
                x = layer(x)
        return x


class ResBlock(nn.Module):
    """x + conv3(LReLU(conv3(x))) without normalisation; (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels)
        self.conv2 = conv(channels, channels)

    def forward(self, x: Tensor, activate: bool = False) -> Tensor:
        """Return x plus its residual, both (N, C, H, W), through one more LReLU where asked for."""
        return convolve(convolve(x, self.conv1, activate=True), self.conv2, activate, residual=x)


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


def count_parameters(network: nn.Module) -> int:
    """Return the number of values in all of a network's parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def crop_like(image: Tensor, reference: Tensor) -> Tensor:
    """Undo `pad_to_stride`: the top left part of `image` (N, C, ...) with the height and width of `reference`."""
    return image[..., : reference.shape[-2], : reference.shape[-1]]

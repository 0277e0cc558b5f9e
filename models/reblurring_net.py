"""The reblurring network (paper, figure 4): 998,802 parameters; maps a sharp image back to its blurry partner."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .blocks import (
    Conv,
    ConvLReLU,
    ModuleList,
    ResBlock,
    Sequential,
    UpsampleLReLU,
    check_images,
    crop_like,
    init_weights,
    pad_to_stride,
)
from .ops.back_ends import uses_kernels
from .ops.common.block import Block
from .ops.dynamic_filter.op import fused_filter
from .ops.dynamic_filter.reference import KERNEL_SIZE, dynamic_filter

STRIDE = 8
MIN_FILTERED_SIDE = 16  # px; the filters at an eighth of the size reflect their border, which takes two pixels
LEVELS = 3


class DynamicFilter(Block):
    """Filter every pixel of x, (N, C, H, W), with its own 3×3 kernel, the softmax of logits, (N, 9, H, W)."""

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        """Return x filtered, (N, C, H, W), with reflected borders."""
        if uses_kernels(self.deform_op, x) and x.dtype != torch.float64:  # the kernels compute in fp32
            return fused_filter(x, logits)
        return dynamic_filter(x, logits)


class ReblurringNet(Block):
    """(blurry, sharp) to reblurred: one encoder-decoder with shared weights that runs twice.

    The upper pass reads both images and predicts a kernel per stage and pixel. The lower pass reads the sharp image
    alone and filters each stage's output with the upper pass's kernel.

    Args:
        width: channels at full size, doubled at each of the three levels. 16 is the paper's.
        deform_op: back end, one of `models.ops.back_ends.DEFORM_OPS`; here it selects the implementation of the
            convolutions and filters, since this network has no deformable convolutions.

    Raises:
        ValueError: an argument that is none of these.
    """

    def __init__(self, width: int = 16, deform_op: str = "auto") -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width should be at least 1, got {width}")
        self.arguments = {"width": width}  # what a checkpoint needs to rebuild the network
        channels = [width << level for level in range(LEVELS + 1)]
        steps_down = list(pairwise(channels))
        steps_up = [(deep, shallow) for shallow, deep in reversed(steps_down)]
        self.head = Sequential({0: ConvLReLU(6, width)})
        self.encoders = ModuleList(
            Sequential({0: Conv(shallow, deep, stride=2), 1: ResBlock(deep, activate=True)})
            for shallow, deep in steps_down
        )
        self.decoders = ModuleList(
            Sequential({0: ResBlock(deep), 1: UpsampleLReLU(deep, shallow)}) for deep, shallow in steps_up
        )
        stages = [width, *(deep for _, deep in steps_down), *(shallow for _, shallow in steps_up)]
        self.kernel_convs = ModuleList(Conv(stage, KERNEL_SIZE**2, output_fp32=True) for stage in stages)
        self.tail = Conv(width, 3)
        self.filter = DynamicFilter()
        init_weights(self)
        self.deform_op = deform_op

    def forward(self, blurry: Tensor, sharp: Tensor) -> Tensor:
        """Return the sharp image blurred as the blurry one is.

        Args:
            blurry: (N, 3, H, W) RGB in [-1, 1], H and W from 8 px; reflect-padded inside to multiples of 8.
            sharp: the same scene sharp, or the deblurring network's output; shape of `blurry`.

        Returns:
            (N, 3, H, W), not clamped.

        Raises:
            ValueError: another shape or type, or shapes that differ.
        """
        check_images([blurry, sharp], ["blurry", "sharp"])
        padded_blurry, padded_sharp = (pad_to_stride(image, STRIDE, MIN_FILTERED_SIDE) for image in (blurry, sharp))
        upper = self._stages(padded_blurry, padded_sharp)
        kernels = [conv(x) for conv, x in zip(self.kernel_convs, upper, strict=True)]  # before their softmax
        (last,) = deque(self._stages(padded_sharp, padded_sharp, kernels), maxlen=1)  # lower pass: (N, width, H, W)
        return crop_like(self.tail(last), blurry)

    def _stages(self, first: Tensor, second: Tensor, kernels: Sequence[Tensor] | None = None) -> Iterator[Tensor]:
        """Yield the outputs of the seven stages of one pass.

        Args:
            first: (N, 3, H, W), blurry in the upper pass, sharp in the lower one.
            second: sharp; shape of `first`.
            kernels: of the lower pass, before their softmax: (N, 9, ...) for each stage, whose output is filtered
                before the next one reads it.
        """

        def output(stage: int, x: Tensor) -> Tensor:
            return x if kernels is None else self.filter(x, kernels[stage])

        x = output(0, self.head(torch.cat([first, second], dim=1)))  # (N, width, H, W)
        yield x
        encoded = []
        for level, encoder in enumerate(self.encoders):
            x = output(1 + level, encoder(x))  # (N, 2·width, H/2, W/2) down to (N, 8·width, H/8, W/8)
            yield x
            encoded.append(x)
        skips = [*reversed(encoded[:-1]), None]  # enc2's output is added to dec3's, enc1's to dec2's
        for level, (decoder, skip) in enumerate(zip(self.decoders, skips, strict=True)):
            x = decoder(x)  # (N, 4·width, H/4, W/4) up to (N, width, H, W)
            x = output(1 + LEVELS + level, x if skip is None else x + skip)
            yield x

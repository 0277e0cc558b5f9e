"""The reblurring network (paper, figure 4): 998,802 parameters; maps a sharp image back to its blurry partner."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks import (
    Chain,
    ModuleList,
    ResBlock,
    check_images,
    conv,
    convolve,
    crop_like,
    init_weights,
    leaky_relu,
    pad_to_stride,
    upsample,
)
from models.ops import fused_filter, fused_filter_possible

STRIDE = 8
MIN_FILTERED_SIDE = 16  # px; the filters at an eighth of the size reflect their border, which takes two pixels
LEVELS = 3
KERNEL_SIZE = 3


def dynamic_filter(x: Tensor, kernel: Tensor) -> Tensor:
    """Filter every pixel with a 3×3 kernel of its own, the same for all channels; reflected borders.

    Args:
        x: (N, C, H, W).
        kernel: (N, 9, H, W), row-major taps.

    Returns:
        (N, C, H, W).
    """
    if fused_filter_possible(x):
        return fused_filter(x, kernel)
    height, width = x.shape[-2:]
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    windows = (padded[..., i : i + height, j : j + width] for i in range(KERNEL_SIZE) for j in range(KERNEL_SIZE))
    total = sum(kernel[:, k : k + 1] * window for k, window in enumerate(windows))
    assert isinstance(total, Tensor)  # not the 0 of an empty sum
    return total


class ReblurringNet(nn.Module):
    """(blurry, sharp) to reblurred: one encoder-decoder with shared weights that runs twice.

    The upper pass reads both images and predicts a kernel per stage and pixel. The lower pass reads the sharp image
    alone and filters each stage's output with the upper pass's kernel.

    Args:
        width: channels at full size, doubled at each of the three levels. 16 is the paper's.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width should be at least 1, got {width}")
        self.arguments = {"width": width}  # what a checkpoint needs to rebuild the network
        channels = [width << level for level in range(LEVELS + 1)]
        steps_down = list(pairwise(channels))
        steps_up = [(deep, shallow) for shallow, deep in reversed(steps_down)]
        self.head = Chain(conv(6, width), leaky_relu())
        self.encoders = ModuleList(
            Chain(conv(shallow, deep, stride=2), ResBlock(deep), leaky_relu()) for shallow, deep in steps_down
        )
        self.decoders = ModuleList(
            Chain(ResBlock(deep), upsample(deep, shallow), leaky_relu()) for deep, shallow in steps_up
        )
        stages = [width, *(deep for _, deep in steps_down), *(shallow for _, shallow in steps_up)]
        self.kernel_convs = ModuleList(conv(stage, KERNEL_SIZE**2) for stage in stages)
        self.tail = conv(width, 3)
        init_weights(self)

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
        kernels: list[Tensor] = []

        def predict_kernel(stage: int, x: Tensor) -> Tensor:
            kernels.append(torch.softmax(convolve(x, self.kernel_convs[stage]), dim=1))
            return x

        self._run(padded_blurry, padded_sharp, predict_kernel)
        features = self._run(padded_sharp, padded_sharp, lambda stage, x: dynamic_filter(x, kernels[stage]))
        return crop_like(convolve(features, self.tail), blurry)

    def _run(self, first: Tensor, second: Tensor, at_stage: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Run the encoder-decoder; `at_stage(stage, output)` may replace each of the seven stages' outputs."""
        x = at_stage(0, self.head(torch.cat([first, second], dim=1)))  # (N, width, H, W)
        encoded = []
        for level, encoder in enumerate(self.encoders):
            x = at_stage(1 + level, encoder(x))  # (N, 2·width, H/2, W/2) down to (N, 8·width, H/8, W/8)
            encoded.append(x)
        skips = [*reversed(encoded[:-1]), None]  # enc2's output joins dec3's, enc1's joins dec2's
        for level, (decoder, skip) in enumerate(zip(self.decoders, skips, strict=True)):
            x = decoder(x)  # (N, 4·width, H/4, W/4) up to (N, width, H, W)
            x = at_stage(1 + LEVELS + level, x if skip is None else x + skip)
        return x

"""The deblurring network (paper, figure 2): 15,016,503 parameters, 64.3 GMACs at 256×256."""

from collections.abc import Iterable
from functools import partial

from torch import Tensor

from .aspdc import ASPDC, MODULATIONS, ASPDCMaps
from .blocks import (
    ChunkedConv,
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
from .ops.back_ends import check_deform_op
from .ops.common.block import Block

STRIDE = 4
BLOCKS = 6


class Tail(Sequential):
    """Upsampling layers and a convolution, whose result is added to an image."""

    def forward(self, x: Tensor, image: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride] (adds)
        """Return the sum, (N, 3, H, W), of features x, (N, 4·width, H/4, W/4), and the image."""
        *upsample, conv = self
        for layer in upsample:
            x = layer(x)
        return conv(x, residual=image)


class DeblurringNet(Block):
    """Blurry image to sharp image: convolutional head, six ASPDC blocks at a quarter of the size, fusion, tail.

    Args:
        width: channels at full size; 2·width at half and 4·width at a quarter. 32 is the paper's.
        modulation: how module 0 of each ASPDC reads its modulation map: "aligned" as the paper means it and as we
            train, "released" for the authors' checkpoints.
        deform_op: back end of the deformable convolutions, one of `models.ops.back_ends.DEFORM_OPS`.

    Raises:
        ValueError: an argument that is none of these.
    """

    def __init__(self, width: int = 32, modulation: str = "aligned", deform_op: str = "auto") -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width should be at least 1, got {width}")
        if modulation not in MODULATIONS:
            raise ValueError(f"modulation should be one of {', '.join(MODULATIONS)}, got {modulation!r}")
        check_deform_op(deform_op)
        self.arguments = {"width": width, "modulation": modulation}  # what a checkpoint needs to rebuild the network
        channels = 4 * width
        head = {
            0: ConvLReLU(3, width),
            2: ResBlock(width),
            3: ResBlock(width),
            4: ConvLReLU(width, 2 * width, stride=2),
            6: ConvLReLU(2 * width, channels, stride=2),
        }
        self.head = Sequential(head)
        self.res_blocks = ModuleList(Sequential({0: ResBlock(channels), 1: ResBlock(channels)}) for _ in range(BLOCKS))
        self.aspdcs = ModuleList(ASPDC(channels, modulation) for _ in range(BLOCKS))
        self.fusion = Sequential({0: ChunkedConv(BLOCKS * channels, channels)})
        tail = {
            0: UpsampleLReLU(channels, 2 * width),
            2: UpsampleLReLU(2 * width, width),
            4: Conv(width, 3, output_fp32=True),
        }
        self.tail = Tail(tail)
        # In the released reading the unpadded modulation map of module 0 needs a feature map larger than 2×2.
        self.smallest = 3 * STRIDE if modulation == "released" else STRIDE
        init_weights(self)
        self.deform_op = deform_op

    def forward(self, blurry: Tensor) -> Tensor:
        """Return the deblurred image.

        Args:
            blurry: (N, 3, H, W) RGB in [-1, 1], H and W from 8 px; reflect-padded inside to multiples of 4.

        Returns:
            (N, 3, H, W), not clamped.

        Raises:
            ValueError: another shape or type.
        """
        check_images([blurry], ["blurry"])
        padded = pad_to_stride(blurry, STRIDE, self.smallest)
        x = self.head(padded)  # (N, 4·width, H/4, W/4)
        refined = []
        for res_blocks, aspdc in zip(self.res_blocks, self.aspdcs, strict=True):
            x = aspdc(res_blocks(x))  # (N, 4·width, H/4, W/4)
            refined.append(x)
        x = self.fusion(refined)  # (N, 4·width, H/4, W/4)
        return crop_like(self.tail(x, padded), blurry)

    def forward_with_maps(self, blurry: Tensor, blocks: Iterable[int]) -> tuple[Tensor, dict[int, ASPDCMaps]]:
        """Return `forward`'s result and what the chosen ASPDCs (0 to 5, in order of use) attended to.

        Hooks inside these run twice.

        Raises:
            ValueError: another shape or type of image, or no such block.
        """
        blocks = set(blocks)
        if not blocks <= set(range(BLOCKS)):
            raise ValueError(f"blocks should be from 0 to {BLOCKS - 1}, got {sorted(blocks)}")
        maps: dict[int, ASPDCMaps] = {}

        def keep_maps(aspdc: ASPDC, inputs: tuple[Tensor], block: int) -> None:
            maps[block] = aspdc.maps(*inputs)

        hooks = [self.aspdcs[i].register_forward_pre_hook(partial(keep_maps, block=i)) for i in blocks]
        try:
            return self(blurry), maps
        finally:
            for hook in hooks:
                hook.remove()

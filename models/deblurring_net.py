"""The deblurring network (paper, figure 2): 15,016,503 parameters, 64.3 GMACs at 256×256."""

from collections.abc import Iterable

from torch import Tensor, nn

from models.aspdc import ASPDC, ASPDC_OPS, MODULATIONS, ASPDCMaps
from models.blocks import (
    Chain,
    ChunkedConv,
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

STRIDE = 4
BLOCKS = 6


class DeblurringNet(nn.Module):
    """Blurry image to sharp image: convolutional head, six ASPDC blocks at a quarter of the size, fusion, tail.

    Args:
        width: channels at full size; 2·width at half and 4·width at a quarter. 32 is the paper's.
        modulation: how module 0 of each ASPDC reads its modulation map: "aligned" as the paper means it and as we
            train, "released" for the authors' checkpoints.
        deform_op: back end of the deformable convolutions, one of `models.aspdc.ASPDC_OPS`.

    Raises:
        ValueError: an argument that is none of these.
    """

    def __init__(self, width: int = 32, modulation: str = "aligned", deform_op: str = "auto") -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width should be at least 1, got {width}")
        if modulation not in MODULATIONS:
            raise ValueError(f"modulation should be one of {', '.join(MODULATIONS)}, got {modulation!r}")
        if deform_op not in ASPDC_OPS:
            raise ValueError(f"deform_op should be one of {', '.join(ASPDC_OPS)}, got {deform_op!r}")
        self.arguments = {"width": width, "modulation": modulation}  # what a checkpoint needs to rebuild the network
        channels = 4 * width
        self.head = Chain(
            conv(3, width),
            leaky_relu(),
            ResBlock(width),
            ResBlock(width),
            conv(width, 2 * width, stride=2),
            leaky_relu(),
            conv(2 * width, channels, stride=2),
            leaky_relu(),
        )
        self.res_blocks = ModuleList(Chain(ResBlock(channels), ResBlock(channels)) for _ in range(BLOCKS))
        self.aspdcs = ModuleList(ASPDC(channels, modulation, deform_op) for _ in range(BLOCKS))
        self.fusion = Chain(conv(BLOCKS * channels, channels), leaky_relu())
        self.tail = Chain(
            upsample(channels, 2 * width),
            leaky_relu(),
            upsample(2 * width, width),
            leaky_relu(),
            conv(width, 3),
        )
        # In the released reading the unpadded modulation map of module 0 needs a feature map larger than 2×2.
        self.smallest = 3 * STRIDE if modulation == "released" else STRIDE
        init_weights(self)

    def forward(self, blurry: Tensor) -> Tensor:
        """Return the deblurred image.

        Args:
            blurry: (N, 3, H, W) RGB in [-1, 1], H and W from 8 px; reflect-padded inside to multiples of 4.

        Returns:
            (N, 3, H, W), not clamped.

        Raises:
            ValueError: another shape or type.
        """
        return self.forward_with_maps(blurry, ())[0]

    def forward_with_maps(self, blurry: Tensor, blocks: Iterable[int]) -> tuple[Tensor, dict[int, ASPDCMaps]]:
        """Return `forward`'s result and what the chosen ASPDCs (0 to 5, in order of use) attended to.

        Raises:
            ValueError: another shape or type of image, or no such block.
        """
        blocks = set(blocks)
        if not blocks <= set(range(BLOCKS)):
            raise ValueError(f"blocks should be from 0 to {BLOCKS - 1}, got {sorted(blocks)}")
        check_images([blurry], ["blurry"])
        padded = pad_to_stride(blurry, STRIDE, self.smallest)
        x = self.head(padded)  # (N, 4·width, H/4, W/4)
        joining, last = self.fusion[0], self.tail[-1]
        assert isinstance(joining, nn.Conv2d)
        assert isinstance(last, nn.Conv2d)
        fusion, maps = ChunkedConv(joining), {}
        for i, (res_blocks, aspdc) in enumerate(zip(self.res_blocks, self.aspdcs, strict=True)):
            if i in blocks:
                x, maps[i] = aspdc.forward_with_maps(res_blocks(x))
            else:
                x = aspdc(res_blocks(x))
            fusion.add(x)
        x = fusion.result()  # (N, 4·width, H/4, W/4)
        return crop_like(convolve(self.tail[:-1](x), last, residual=padded, output_fp32=True), blurry), maps

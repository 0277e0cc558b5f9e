"""Atrous spatial pyramid deformable convolution (paper, section 3.1): four deformable modules fused by attention."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import Conv, ConvLReLU, ModuleList, ResBlock, Sequential
from .ops.aspdc_sum.op import aspdc_sum, stack_weights
from .ops.aspdc_sum.reference import TAPS
from .ops.back_ends import resolve_deform_op
from .ops.common.block import Block, has_hooks
from .ops.common.kernel_weights import kernel_weights
from .ops.common.streams import run_concurrently
from .ops.conv.cpu import winograd_possible
from .ops.conv.op import fused_conv, fused_predictions, fused_predictions_possible, kernel_dtype
from .ops.conv.weights import conv_weights, predictor_layout, weight_and_bias
from .ops.deform_conv import ModulatedDeformConv2d

# Of the predictors of modules 1, 2 and 3; the deformable convolutions themselves have 1. Network files do not record
# them; others are an ablation, see docs/contributing.md.
DILATIONS = (1, 2, 4)
MODULATIONS = ("aligned", "released")


@dataclass(frozen=True)
class ASPDCMaps:
    """What one ASPDC decided, at a quarter of the padded image's height and width, detached from the graph.

    Attributes:
        attention: (N, 4, H', W'), the weights a0..a3 of the four modules; they sum to 1.
        offsets: (N, 4, 18, H', W') in px of the feature map: y, x of the nine row-major taps; module 0's are zero.
        modulation: (N, 4, 9, H', W') in [0, 1], one per tap.
    """

    attention: Tensor
    offsets: Tensor
    modulation: Tensor


def read_as_released(modulation: Tensor, height: int, width: int) -> Tensor:
    """Read an unpadded modulation map the way the released checkpoints were trained to.

    mmcv's op takes the smaller map for one of full size and walks its flat buffer with the wrong strides. Reads past
    its end, which are undefined there, wrap around to values of the same kind.

    Args:
        modulation: (N, 9, height - 2, width - 2).
        height: of the feature map.
        width: of the feature map.

    Returns:
        (N, 9, height, width), where tap k at row-major pixel p is the flat value (k · height · width + p) mod n of the
        same image's n values.
    """
    values = modulation.flatten(1)
    index = torch.arange(TAPS * height * width, device=values.device) % values.shape[1]
    return values[:, index].view(-1, TAPS, height, width)


class DeformableModule(Block):
    """A modulated deformable convolution whose predictors have the given dilation; (N, C, H, W) -> (N, C, H, W).

    Args:
        channels: C.
        dilation: of the 3×3 predictors of offsets and modulation; None is module 0, which has no offsets.
        modulation: how module 0 reads its modulation map, one of `MODULATIONS`; the others have one reading.
    """

    def __init__(self, channels: int, dilation: int | None, modulation: str) -> None:
        super().__init__()
        self.reads_as_released = dilation is None and modulation == "released"
        reach = dilation or 1
        padding = 0 if self.reads_as_released else reach
        self.offset_conv = None
        if dilation is not None:
            self.offset_conv = nn.Conv2d(channels, 2 * TAPS, 3, padding=padding, dilation=reach)
        self.modulation_conv = nn.Conv2d(channels, TAPS, 3, padding=padding, dilation=reach)
        self.deform_conv = ModulatedDeformConv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x (N, C, H, W) convolved at the predicted positions."""
        offset, modulation = self.predict(x)
        if offset is None:
            offset = modulation.new_zeros(x.shape[0], 2 * TAPS, *x.shape[-2:])
        return self.deform_conv(x, offset, modulation)

    def predict(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the offsets, (N, 18, H, W) in px or None for none, and the modulation, (N, 9, H, W) in [0, 1]."""
        modulation = torch.sigmoid(self._read(self.modulation_conv(x)))
        return None if self.offset_conv is None else self.offset_conv(x), modulation

    @property
    def predictors(self) -> list[nn.Conv2d]:
        """The convolutions behind the offsets, where there are any, and the modulation."""
        return [layer for layer in (self.offset_conv, self.modulation_conv) if layer is not None]

    @property
    def fits_fused_sum(self) -> bool:
        """Whether its deformable convolution is the one that `aspdc_sum` computes."""
        layer = self.deform_conv
        return layer.stride == layer.padding == layer.dilation == (1, 1)

    def predict_merged(self, x: Tensor) -> Tensor:
        """Return what `predict` does from one convolution: offsets in px, then the modulation before its sigmoid.

        (N, 27, H, W), or (N, 9, H, W) where the module has no offsets. In fp32 where 16-bit operands have fp32 sums: a
        pixel's coordinate needs more digits than they have.
        """
        layers = self.predictors
        dtype = kernel_dtype(self.deform_op, x, layers[0])
        if dtype is None:
            weights, biases = zip(*map(weight_and_bias, layers), strict=True)
            padding, dilation = layers[0].padding, layers[0].dilation
            return self._read(F.conv2d(x, torch.cat(weights), torch.cat(biases), padding=padding, dilation=dilation))
        weights = kernel_weights(self, dtype, lambda: conv_weights(layers, dtype))
        return self._read(fused_conv(x, weights, layers[0], out_dtype=torch.float32))

    def _read(self, modulation: Tensor) -> Tensor:
        """Bring the modulation's map, (N, 9, ...), to the size of the features: nothing to do but for `released`."""
        if not self.reads_as_released:
            return modulation
        return read_as_released(modulation, modulation.shape[-2] + 2, modulation.shape[-1] + 2)


class ChannelSoftmax(nn.Softmax):
    """Softmax over the channels of (N, C, H, W); on CUDA PyTorch copies channels_last memory unless they come last."""

    def __init__(self) -> None:
        super().__init__(dim=1)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride] (`input` there)
        """Return the result; on CUDA it is in channels_last memory."""
        return torch.softmax(x.movedim(1, -1), dim=-1).movedim(-1, 1) if x.is_cuda else super().forward(x)


class AFIM(Sequential):
    """Attention that fuses the deformable modules: (N, C, H, W) -> (N, 4, H, W), softmax over the four."""

    def __init__(self, channels: int, modules: int) -> None:
        layers = {
            0: ConvLReLU(channels, channels),
            2: ResBlock(channels),
            3: ResBlock(channels),
            4: Conv(channels, modules, 1, output_fp32=True),
            5: ChannelSoftmax(),
        }
        super().__init__(layers)


class ASPDC(Block):
    """x + conv3(Σ a_i · module_i(f)) with f = LReLU(conv3(x)) and a = AFIM(x); (N, C, H, W) -> (N, C, H, W).

    Args:
        channels: C.
        modulation: how module 0 reads its modulation map, one of `MODULATIONS`.
        deform_op: back end, one of `models.ops.back_ends.DEFORM_OPS`.
    """

    def __init__(self, channels: int, modulation: str = "aligned", deform_op: str = "auto") -> None:
        super().__init__()
        self.feature = Sequential({0: ConvLReLU(channels, channels)})
        self.deformable = ModuleList(
            DeformableModule(channels, dilation, modulation) for dilation in (None, *DILATIONS)
        )
        self.afim = AFIM(channels, len(self.deformable))
        self.fusion = Conv(channels, channels)
        self.deform_op = deform_op

    def forward(self, x: Tensor) -> Tensor:
        """Return the refined features, (N, C, H, W) as x."""
        fused = resolve_deform_op(self.deform_op, x.device, x.shape[1]) == "fused"
        if not fused or has_hooks(self.deformable) or not all(each.fits_fused_sum for each in self.deformable):
            f = self.feature(x)
            attention = self.afim(x)  # (N, 4, H, W)
            total = sum(attention[:, i : i + 1] * module(f) for i, module in enumerate(self.deformable))
            assert isinstance(total, Tensor)  # not the 0 of an empty sum
        else:
            attention, (f, predicted) = run_concurrently(lambda: self.afim(x), lambda: self._predict(x), x)
            total = self._fused_sum(f, predicted, attention)
        return self.fusion(total, residual=x)

    def _predict(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the features that the modules sample, and what each of them predicts from these, see `aspdc_sum`."""
        f = self.feature(x)
        if winograd_possible(self.deform_op, f, self.fusion):  # it made f, too; all that reads f is faster so
            f = f.contiguous(memory_format=torch.channels_last)
        layers = [layer for module in self.deformable for layer in module.predictors]
        dtype = kernel_dtype(self.deform_op, f, layers[0])
        if dtype is None or not fused_predictions_possible(f, layers):
            return f, [module.predict_merged(f) for module in self.deformable]
        weights = kernel_weights(self, ("predictors", dtype), lambda: self._predictor_weights(dtype))
        return f, list(fused_predictions(f.to(dtype), *weights))

    def _predictor_weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        parameters = [[weight_and_bias(layer) for layer in module.predictors] for module in self.deformable]
        weights, biases = (
            predictor_layout([[each[i].to(dtype) for each in module] for module in parameters]) for i in range(2)
        )
        return weights, biases

    def _fused_sum(self, f: Tensor, predicted: list[Tensor], attention: Tensor) -> Tensor:
        """Return Σ a_i · module_i(f), (N, C, H, W), for the modules' predictions and the attention."""
        weights, biases = zip(*(weight_and_bias(module.deform_conv) for module in self.deformable), strict=True)
        stacked = None
        if f.is_cuda:
            stacked = kernel_weights(self, ("sum", f.dtype), lambda: stack_weights(weights, biases, f.dtype))
        return aspdc_sum(f, predicted, attention, weights, biases, stacked)

    def maps(self, x: Tensor) -> ASPDCMaps:
        """Return what `forward` attends to in x."""
        f = self.feature(x)
        found = [module.predict(f) for module in self.deformable]
        like = found[1][0]
        assert like is not None  # only module 0 has no offsets
        no_offsets = torch.zeros_like(like)
        offsets = torch.stack([no_offsets if offset is None else offset for offset, _ in found], dim=1)
        modulation = torch.stack([modulation for _, modulation in found], dim=1)
        return ASPDCMaps(self.afim(x).detach(), offsets.detach(), modulation.detach())

"""Atrous spatial pyramid deformable convolution (paper, section 3.1): four deformable modules fused by attention."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks import Chain, ModuleList, ResBlock, conv, convolve, leaky_relu
from models.ops import (
    fused_conv,
    fused_conv_type,
    fused_predictions,
    fused_problem,
    fused_sum,
    run_concurrently,
    weight_and_bias,
)
from models.ops.deform_conv import ModulatedDeformConv2d, resolve_deform_op

TAPS = 9  # of a 3×3 kernel
DILATIONS = (1, 2, 4)  # of the predictors of modules 1, 2 and 3; the deformable convolutions themselves have 1
MODULATIONS = ("aligned", "released")
ASPDC_OPS = ("auto", "fused", "mmcv", "torchvision")


def resolve_aspdc_op(deform_op: str, device: torch.device | str, channels: int | None = None) -> str:
    """Return the back end that `deform_op` means for an ASPDC on `device`: "fused", "mmcv" or "torchvision".

    Args:
        deform_op: one of `ASPDC_OPS`; "auto" is fused where that can run, else mmcv where usable, else torchvision.
        device: where the tensors lie.
        channels: of the ASPDC, where known.

    Raises:
        ValueError: unknown name.
        RuntimeError: the back end asked for by name cannot run here; the message says why.
    """
    if deform_op not in ASPDC_OPS:
        raise ValueError(f"deform_op should be one of {', '.join(ASPDC_OPS)}, got {deform_op!r}")
    if deform_op in ("auto", "fused"):
        problem = fused_problem(torch.device(device).type, channels)
        if problem is None:
            return "fused"
        if deform_op == "fused":
            raise RuntimeError(f"deform_op fused is not usable: {problem}")
    return resolve_deform_op(deform_op, device)


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
    its end, which are undefined there, wrap around: they meet values of the same kind.

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


class DeformableModule(nn.Module):
    """A modulated deformable convolution whose predictors have the given dilation; (N, C, H, W) -> (N, C, H, W).

    Args:
        channels: C.
        dilation: of the 3×3 predictors of offsets and modulation; None is module 0, which has no offsets.
        modulation: how module 0 reads its modulation map, one of `MODULATIONS`; the others have one reading.
        deform_op: back end of the one convolution, see `models.ops.deform_conv`.
    """

    def __init__(self, channels: int, dilation: int | None, modulation: str, deform_op: str = "auto") -> None:
        super().__init__()
        self.reads_as_released = dilation is None and modulation == "released"
        reach = dilation or 1
        padding = 0 if self.reads_as_released else reach
        self.offset_conv = None
        if dilation is not None:
            self.offset_conv = nn.Conv2d(channels, 2 * TAPS, 3, padding=padding, dilation=reach)
        self.modulation_conv = nn.Conv2d(channels, TAPS, 3, padding=padding, dilation=reach)
        self.deform_conv = ModulatedDeformConv2d(channels, channels, 3, padding=1, deform_op=deform_op)

    @property
    def predictors(self) -> list[nn.Conv2d]:
        """The convolutions behind the offsets, where there are any, and the modulation."""
        return [layer for layer in (self.offset_conv, self.modulation_conv) if layer is not None]

    def predict(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the offsets, (N, 18, H, W) in px or None for none, and the modulation, (N, 9, H, W) in [0, 1]."""
        modulation = torch.sigmoid(self._read(self.modulation_conv(x)))
        return None if self.offset_conv is None else self.offset_conv(x), modulation

    def predict_merged(self, x: Tensor) -> Tensor:
        """Return what `predict` does from one convolution: offsets in px, then the modulation before its sigmoid.

        (N, 27, H, W), or (N, 9, H, W) where the module has no offsets. In fp32 where 16-bit operands have fp32 sums: a
        pixel's coordinate needs more digits than they have.
        """
        layers = self.predictors
        parameters = [weight_and_bias(layer) for layer in layers]
        weights, biases = [weight for weight, _ in parameters], [bias for _, bias in parameters]
        if fused_conv_type(x, layers[0]) is not None:
            return self._read(fused_conv(x, weights + biases, layers[0], out_dtype=torch.float32))
        padding, dilation = layers[0].padding, layers[0].dilation
        return self._read(F.conv2d(x, torch.cat(weights), torch.cat(biases), padding=padding, dilation=dilation))

    def _read(self, modulation: Tensor) -> Tensor:
        """Bring the modulation's map, (N, 9, ...), to the size of the features: nothing to do but for `released`."""
        if not self.reads_as_released:
            return modulation
        return read_as_released(modulation, modulation.shape[-2] + 2, modulation.shape[-1] + 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return x (N, C, H, W) convolved at the predicted positions."""
        offset, modulation = self.predict(x)
        if offset is None:
            offset = modulation.new_zeros(x.shape[0], 2 * TAPS, *x.shape[-2:])
        return self.deform_conv(x, offset, modulation)


class AFIM(Chain):
    """Attention that fuses the deformable modules: (N, C, H, W) -> (N, 4, H, W), softmax over the four."""

    def __init__(self, channels: int, modules: int) -> None:
        super().__init__(
            conv(channels, channels),
            leaky_relu(),
            ResBlock(channels),
            ResBlock(channels),
            conv(channels, modules, 1),
            nn.Softmax(dim=1),
        )


class ASPDC(nn.Module):
    """x + conv3(Σ a_i · module_i(f)) with f = LReLU(conv3(x)) and a = AFIM(x); (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, modulation: str = "aligned", deform_op: str = "auto") -> None:
        super().__init__()
        self.deform_op = deform_op
        each = "auto" if deform_op == "fused" else deform_op
        self.feature = Chain(conv(channels, channels), leaky_relu())
        self.deformable = ModuleList(
            DeformableModule(channels, dilation, modulation, each) for dilation in (None, *DILATIONS)
        )
        self.afim = AFIM(channels, len(self.deformable))
        self.fusion = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the refined features, (N, C, H, W) as x."""
        if resolve_aspdc_op(self.deform_op, x.device, x.shape[1]) == "fused":
            attention, (f, maps) = run_concurrently(lambda: self.afim(x), lambda: self._features_and_maps(x), x)
            parameters = [weight_and_bias(module.deform_conv) for module in self.deformable]
            weights, biases = [weight for weight, _ in parameters], [bias for _, bias in parameters]
            total = fused_sum(f, maps, attention, weights, biases)
        else:
            f, attention = self.feature(x), self.afim(x)
            total = sum(attention[:, i : i + 1] * module(f) for i, module in enumerate(self.deformable))
            assert isinstance(total, Tensor)  # not the 0 of an empty sum
        return convolve(total, self.fusion, residual=x)

    def _features_and_maps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return what the modules sample, and what each of them predicts from it."""
        f = self.feature(x)
        maps = fused_predictions(f, [module.predictors for module in self.deformable])
        return f, maps or [module.predict_merged(f) for module in self.deformable]

    def forward_with_maps(self, x: Tensor) -> tuple[Tensor, ASPDCMaps]:
        """Return `forward`'s result and the maps behind it."""
        f = self.feature(x)
        predictions = [module.predict(f) for module in self.deformable]
        like = predictions[1][0]
        assert like is not None  # only module 0 has no offsets
        no_offsets = torch.zeros_like(like)
        offsets = torch.stack([no_offsets if offset is None else offset for offset, _ in predictions], dim=1)
        modulation = torch.stack([modulation for _, modulation in predictions], dim=1)
        return self(x), ASPDCMaps(self.afim(x).detach(), offsets.detach(), modulation.detach())

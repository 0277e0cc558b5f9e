"""The four deformable convolutions of an ASPDC and their attention-weighted sum as one operation."""

from collections.abc import Sequence

from torch import Tensor

from models.fused.cpu import TAPS, fused_sum_cpu

__all__ = ["fused_sum"]


def fused_sum(
    f: Tensor,
    predictions: Sequence[tuple[Tensor | None, Tensor]],
    attention: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
) -> Tensor:
    """Return Σ_i a_i · (modulated deformable convolution i of f), differentiable in every argument.

    Each convolution is 3×3 with padding 1 and one offset group, see `models.deform_conv`.

    Args:
        f: (N, C, H, W), best in channels_last memory; its type is that of the products.
        predictions: for each of M modules its offsets, (N, 18, H, W) in px or None for none, and its modulation,
            (N, 9, H, W).
        attention: (N, M, H, W).
        weights: M times (out, C, 3, 3).
        biases: M times (out,).

    Returns:
        (N, out, H, W) in f's type and channels_last memory.

    Raises:
        ValueError: an empty batch, or shapes that do not fit.
        RuntimeError: not on the CPU.
    """
    if f.device.type != "cpu":
        raise RuntimeError(f"the fused operation runs on the CPU so far, f is on {f.device}")
    if f.dim() != 4 or f.numel() == 0:
        raise ValueError(f"f should be a non-empty N×C×H×W tensor, got {tuple(f.shape)}")
    modules = len(predictions)
    if len(weights) != modules or len(biases) != modules:
        raise ValueError(f"{modules} predictions with {len(weights)} weights and {len(biases)} biases")
    batch, channels, height, width = f.shape
    out = weights[0].shape[0]
    expected = [("attention", attention, (batch, modules, height, width))]
    for i, ((offset, modulation), weight, bias) in enumerate(zip(predictions, weights, biases, strict=True)):
        expected += [
            (f"modulation {i}", modulation, (batch, TAPS, height, width)),
            (f"weight {i}", weight, (out, channels, 3, 3)),
            (f"bias {i}", bias, (out,)),
        ]
        if offset is not None:
            expected.append((f"offsets {i}", offset, (batch, 2 * TAPS, height, width)))
    for name, tensor, shape in expected:
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} should have shape {shape}, got {tuple(tensor.shape)}")
    return fused_sum_cpu(f, predictions, attention, weights, biases)

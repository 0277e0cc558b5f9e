"""The four deformable convolutions of an ASPDC and their attention-weighted sum as one operation."""

from collections.abc import Sequence

from torch import Tensor

from models.fused.cpu import TAPS, fused_sum_cpu

__all__ = ["fused_sum"]


def fused_sum(
    f: Tensor,
    maps: Sequence[Tensor],
    attention: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
) -> Tensor:
    """Return Σ_i a_i · (modulated deformable convolution i of f), differentiable in every argument.

    Each convolution is 3×3 with padding 1 and one offset group, see `models.deform_conv`.

    Args:
        f: (N, C, H, W), best in channels_last memory; its type is that of the products.
        maps: for each of M modules its predictions: (N, 27, H, W), 18 offsets in px (y, x per row-major tap), then 9
            modulations before their sigmoid; or (N, 9, H, W), the modulations of a module without offsets.
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
    modules = len(maps)
    if len(weights) != modules or len(biases) != modules:
        raise ValueError(f"{modules} maps with {len(weights)} weights and {len(biases)} biases")
    batch, channels, height, width = f.shape
    out = weights[0].shape[0]
    expected = [("attention", attention, (batch, modules, height, width))]
    for i, (each, weight, bias) in enumerate(zip(maps, weights, biases, strict=True)):
        predicted = TAPS if each.shape[1] == TAPS else 3 * TAPS
        expected += [
            (f"map {i}", each, (batch, predicted, height, width)),
            (f"weight {i}", weight, (out, channels, 3, 3)),
            (f"bias {i}", bias, (out,)),
        ]
    for name, tensor, shape in expected:
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} should have shape {shape}, got {tuple(tensor.shape)}")
    return fused_sum_cpu(f, maps, attention, weights, biases)

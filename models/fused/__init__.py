"""The four deformable convolutions of an ASPDC and their attention-weighted sum as one operation."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from models.fused.cpu import TAPS, fused_sum_cpu

OLDEST_TRITON = (3, 6)
OLDEST_GPU = (9, 0)

__all__ = ["fused_problem", "fused_sum"]


@cache
def fused_problem(device_type: str) -> str | None:
    """Return why the fused operation cannot run on this kind of device, or None where it can."""
    if device_type == "cpu":
        return None
    if device_type != "cuda":
        return f"the fused operation runs on the CPU and on CUDA, not on {device_type}"
    try:
        import triton
    except ImportError as error:
        return f"the fused operation needs Triton on CUDA, which cannot be imported ({error})"
    if tuple(map(int, triton.__version__.split(".")[:2])) < OLDEST_TRITON:
        return (
            f"the fused operation needs Triton {'.'.join(map(str, OLDEST_TRITON))} or newer, not {triton.__version__}"
        )
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < OLDEST_GPU:
        return "the fused kernels use instructions of compute capability 9.0 (Hopper) and newer"
    return None


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
        RuntimeError: neither on the CPU nor, with Triton, on CUDA.
    """
    if problem := fused_problem(f.device.type):
        raise RuntimeError(problem)
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
    if f.device.type == "cpu":
        return fused_sum_cpu(f, maps, attention, weights, biases)
    from models.fused.triton_op import fused_sum_triton

    return fused_sum_triton(f, maps, attention, weights, biases)

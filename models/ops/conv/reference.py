"""The definition of `op.fused_conv` in plain PyTorch."""

from torch import Tensor
from torch.nn import functional as F


def conv_lrelu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    transposed: bool = False,
    slope: float = 1.0,
) -> Tensor:
    """Return LReLU(convolution of x + residual).

    Args:
        x: (N, C, H, W).
        weight: (out, C, k, k), or (C, out, 3, 3) of a transposed convolution, which has output padding 1.
        bias: (out,).
        residual: (N, out, H', W').
        stride: step between outputs, of a transposed convolution between inputs.
        padding: zeros around the input.
        dilation: distance between taps.
        transposed: whether it is a transposed convolution.
        slope: of the leaky ReLU; 1 is none.

    Returns:
        (N, out, H', W').
    """
    if transposed:
        y = F.conv_transpose2d(x, weight, bias, stride, padding, output_padding=1)
    else:
        y = F.conv2d(x, weight, bias, stride, padding, dilation)
    return F.leaky_relu(y if residual is None else residual + y, slope)

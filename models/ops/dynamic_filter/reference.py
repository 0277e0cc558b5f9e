"""The definition of dynamic filtering in plain PyTorch (paper, figure 4)."""

import torch
from torch import Tensor
from torch.nn import functional as F

KERNEL_SIZE = 3


def dynamic_filter(x: Tensor, logits: Tensor) -> Tensor:
    """Filter every pixel with its own 3×3 kernel, the same for all channels; reflected borders.

    Args:
        x: (N, C, H, W).
        logits: (N, 9, H, W), row-major taps; their softmax is the kernel.

    Returns:
        (N, C, H, W).
    """
    height, width = x.shape[-2:]
    kernel = torch.softmax(logits, dim=1)
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    windows = (padded[..., i : i + height, j : j + width] for i in range(KERNEL_SIZE) for j in range(KERNEL_SIZE))
    total = sum(kernel[:, k : k + 1] * window for k, window in enumerate(windows))
    assert isinstance(total, Tensor)  # not the 0 of an empty sum
    return total

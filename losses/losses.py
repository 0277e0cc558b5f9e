"""The published loss L and the reblurring consistency term built on it (paper, section 3.3)."""

import torch
from torch import Tensor, nn

from models import ReblurringNet

IMAGENET_STD = (0.229, 0.224, 0.225)  # of R, G and B in [0, 1]


class NormalizedMSELoss(nn.Module):
    """L(a, b) = mean of ((a - b) / (2 · std_c))²: the MSE of ImageNet-normalised [0, 1] images.

    The images are in [-1, 1], hence the 2. About 19.6 times a plain MSE of [0, 1] images.

    Args:
        reduction: "mean" gives a scalar, "none" the mean of each image, (N,).
    """

    scale: Tensor

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "none"):
            raise ValueError(f"reduction should be mean or none, got {reduction!r}")
        self.reduction = reduction
        self.register_buffer("scale", 2.0 * torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Return the loss of (N, 3, H, W) images in [-1, 1] against targets of the same shape.

        Raises:
            ValueError: the shapes differ or are not N×3×H×W.
        """
        if image.shape != target.shape or image.dim() != 4 or image.shape[1] != 3:
            raise ValueError(
                f"expected two N×3×H×W batches of one shape, got {tuple(image.shape)} and {tuple(target.shape)}"
            )
        per_image = ((image - target) / self.scale).square().mean(dim=(1, 2, 3))
        return per_image.mean() if self.reduction == "mean" else per_image


class ReblurringConsistencyLoss(nn.Module):
    """L(R(blurry, D(blurry)), blurry): a deblurred image, blurred again, should be the blurry one.

    Needs no ground truth. The reblurring network is frozen: it passes gradients on to the deblurred image and
    collects none itself.
    """

    def __init__(self, reblurring_net: ReblurringNet) -> None:
        super().__init__()
        self.reblurring_net = reblurring_net.eval().requires_grad_(False)
        self.criterion = NormalizedMSELoss()

    def forward(self, blurry: Tensor, deblurred: Tensor) -> Tensor:
        """Return the loss for two (N, 3, H, W) batches in [-1, 1]."""
        return self.criterion(self.reblurring_net(blurry, deblurred), blurry)

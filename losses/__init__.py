"""The losses of the three training stages."""

from losses.losses import NormalizedMSELoss, ReblurringConsistencyLoss

__all__ = ["NormalizedMSELoss", "ReblurringConsistencyLoss"]

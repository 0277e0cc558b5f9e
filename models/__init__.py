"""The two networks of ASPDC, the parts that make them, and what reads them from files."""

from .aspdc import AFIM, ASPDC, ASPDCMaps, DeformableModule
from .blocks import MIN_SIZE
from .checkpoint import load_deblurring_net, load_reblurring_net
from .deblurring_net import DeblurringNet
from .ops.back_ends import DEFORM_OPS
from .ops.common.kernel_weights import cached_kernel_weights
from .ops.deform_conv import ModulatedDeformConv2d, modulated_deform_conv2d
from .reblurring_net import ReblurringNet

__all__ = [
    "AFIM",
    "ASPDC",
    "DEFORM_OPS",
    "MIN_SIZE",
    "ASPDCMaps",
    "DeblurringNet",
    "DeformableModule",
    "ModulatedDeformConv2d",
    "ReblurringNet",
    "cached_kernel_weights",
    "load_deblurring_net",
    "load_reblurring_net",
    "modulated_deform_conv2d",
]

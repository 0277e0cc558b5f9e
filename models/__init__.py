"""The two networks of ASPDC, the parts that make them, and what reads them from files."""

from models.aspdc import AFIM, ASPDC, ASPDCMaps, DeformableModule
from models.checkpoint import load_deblurring_net, load_reblurring_net
from models.deblurring_net import DeblurringNet
from models.ops.deform_conv import ModulatedDeformConv2d, modulated_deform_conv2d
from models.reblurring_net import ReblurringNet

__all__ = [
    "AFIM",
    "ASPDC",
    "ASPDCMaps",
    "DeblurringNet",
    "DeformableModule",
    "ModulatedDeformConv2d",
    "ReblurringNet",
    "load_deblurring_net",
    "load_reblurring_net",
    "modulated_deform_conv2d",
]

"""The two networks of ASPDC and the parts that make them."""

from models.aspdc import AFIM, ASPDC, ASPDCMaps, DeformableModule
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
    "modulated_deform_conv2d",
]

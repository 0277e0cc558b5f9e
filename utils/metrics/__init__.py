"""PSNR and SSIM by the five definitions in use for deblurring, LPIPS and NIQE, and published results for comparison.

`utils.metrics.numpy_metrics` documents the definitions, and the tables that each is comparable with.
"""

from utils.metrics.numpy_metrics import psnr, psnr_float, ssim, ssim_matlab, ssim_released

__all__ = ["psnr", "psnr_float", "ssim", "ssim_matlab", "ssim_released"]

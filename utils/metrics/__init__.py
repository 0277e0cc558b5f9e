"""PSNR and SSIM by the five definitions in use for deblurring, LPIPS and NIQE, and published results to stand beside.

`utils.metrics.numpy_metrics` says what each definition is, and whose tables it can stand beside.
"""

from utils.metrics.numpy_metrics import psnr, psnr_float, ssim, ssim_matlab, ssim_released

__all__ = ["psnr", "psnr_float", "ssim", "ssim_matlab", "ssim_released"]

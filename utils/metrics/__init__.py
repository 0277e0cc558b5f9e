"""PSNR and SSIM by the definitions in use for deblurring, LPIPS and NIQE, and published results for comparison.

`utils.metrics.numpy_metrics` documents the definitions, and the tables that each is comparable with, and
`utils.metrics.aligned_metrics` RealBlur's.
"""

from utils.metrics.aligned_metrics import score_aligned
from utils.metrics.numpy_metrics import psnr, psnr_float, psnr_y, ssim, ssim_matlab, ssim_released, ssim_y

__all__ = ["psnr", "psnr_float", "psnr_y", "score_aligned", "ssim", "ssim_matlab", "ssim_released", "ssim_y"]

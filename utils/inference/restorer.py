"""Restoring images with a deblurring network: whole or in tiles, once or eight times, singly or in batches."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from models import cached_kernel_weights
from utils.common.errors import UserError
from utils.common.memory import out_of_memory
from utils.inference.evaluation import restore, start_restoring
from utils.inference.tiling import MIN_TILE, Tiling, largest_tile
from utils.runtime.cuda_graph import CudaGraph
from utils.runtime.distributed import DistributedContext
from utils.runtime.kernels import compile_kernels

# Px. A kernel's tiles, or the kernel itself, are others where the GPU has few of them to do; these sizes have all.
COMPILED_SIDES = (64, 768)
_BATCH_PIXELS = 1280 * 720  # larger batches were not faster on an H200


class Restorer:
    """Restores images of any size; if memory is short, in smaller tiles from then on.

    It is faster as a context manager, inside which the network's weights must not change: weights for kernels are
    computed once, and CUDA graphs are replayed.

    Args:
        network: takes (N, 3, H, W) in [-1, 1], in eval mode.
        width: of the network, by which the memory it needs is estimated.
        device: of the network.
        precision: one of `utils.runtime.precision.PRECISIONS`.
        tile: side of the tiles in px, None for whole images, or "auto" for the largest that should fit.
        overlap: px that neighbouring tiles share.
        self_ensemble: return the mean over the image's eight flips and rotations.
        may_shrink: whether tiles, or whole images, become smaller tiles where memory is short; so they do with "auto".
        recorded: inside the context, use a CUDA graph for consecutive images of one size.
        log: gets a line when tiles become smaller.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        width: int,
        device: torch.device,
        precision: str = "fp32",
        tile: int | Literal["auto"] | None = None,
        overlap: int = 320,
        self_ensemble: bool = False,
        may_shrink: bool = False,
        recorded: bool = False,
        log: Callable[[str], None] = print,
    ) -> None:
        self.network, self.device, self.precision = network, device, precision
        self.self_ensemble, self.recorded, self.log = self_ensemble, recorded, log
        self._forward = network
        self._weights: ExitStack | None = None  # the scope of the kernel weights that a recording reads
        self.batch_pixels = _BATCH_PIXELS if device.type == "cuda" else 0  # of small images that are worth a batch
        self.may_shrink = may_shrink or tile == "auto"
        size = largest_tile(device, width) if tile == "auto" else tile
        self.tiling = Tiling(size, overlap if size is None else min(overlap, size // 2))

    def __enter__(self) -> "Restorer":
        if self._weights is not None:
            raise RuntimeError("this restorer is a context already; leave it first, or make another one")
        self._open()
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def _open(self) -> None:
        self._weights = ExitStack()
        if isinstance(self.network, nn.Module):
            self._weights.enter_context(cached_kernel_weights(self.network))
        self._forward = CudaGraph(self.network, warmup=1) if self.recorded else self.network

    def _close(self) -> None:
        if isinstance(self._forward, CudaGraph):
            self._forward.release()  # a graph keeps its memory, and must not outlive the weights that it reads
        self._forward = self.network
        weights, self._weights = self._weights, None
        if weights is not None:
            weights.close()

    def compile_kernels(self, distributed: DistributedContext, channels: int = 3) -> None:
        """Compile the network's kernels where they are recorded, see `utils.runtime.kernels.compile_kernels`.

        Args:
            distributed: the processes, which all have to call this.
            channels: of the images.
        """
        if self.recorded:

            def run() -> None:
                for side in COMPILED_SIDES:
                    try:
                        restore(self.network, np.zeros((side, side, channels), np.uint8), self.device, self.precision)
                    except (RuntimeError, MemoryError) as error:
                        if not out_of_memory(error):  # then no image will be as large, and tiles will be smaller
                            raise

            compile_kernels(run, distributed, self.log)
            run()  # loads them

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return images restored, see `start`."""
        return self.start(images)()

    def start(self, images: np.ndarray) -> Callable[[], np.ndarray]:
        """Start restoring one image, H×W×3, or several of one size, N×H×W×3.

        Several are restored at once if they fit into memory, without tiles and self-ensemble.

        Args:
            images: uint8 or uint16.

        Returns:
            a function that waits for the GPU, and returns them restored, as float32 in [0, 1].

        Raises:
            UserError: not enough memory, with --tile off or a size, or for the smallest tiles.
        """
        while True:
            try:
                return self._restore(images)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                reason = str(error).partition("\n")[0]
            # After the error is released, which keeps memory alive.
            if images.ndim == 4:
                return self._one_by_one(images)
            height, width = images.shape[:2]
            self._shrink(height, width, reason)

    def _one_by_one(self, images: np.ndarray) -> Callable[[], np.ndarray]:
        restored = [self(image) for image in images]
        return lambda: np.stack(restored)

    def _restore(self, images: np.ndarray) -> Callable[[], np.ndarray]:
        if not self.self_ensemble and self.tiling.is_whole(*images.shape[-3:-1]):
            return start_restoring(self._forward, images, self.device, self.precision)
        if images.ndim == 4:
            return self._one_by_one(images)
        total: np.ndarray | None = None
        views = list(_flips_and_rotations()) if self.self_ensemble else [(np.asarray, np.asarray)]
        for there, back in views:
            view = np.ascontiguousarray(there(images))
            restored = np.zeros((*view.shape[:2], 3), np.float32)
            for part, weights in self.tiling.tiles(*view.shape[:2]):
                restored[part] += restore(self._forward, view[part], self.device, self.precision) * weights
            restored = back(np.clip(restored, 0.0, 1.0, out=restored))
            total = restored if total is None else np.add(total, restored, out=total)
        assert total is not None  # there is a view
        mean = np.divide(total, len(views), out=total)
        return lambda: mean

    def _shrink(self, height: int, width: int, reason: str) -> None:
        whole = Tiling(-(-max(height, width) // 4) * 4, self.tiling.overlap)
        used = self.tiling if self.tiling.size is not None and self.tiling.size < max(height, width) else whole
        smaller = used.smaller() if self.may_shrink else None
        if smaller is None:
            how = "even in the smallest tiles" if self.may_shrink else f"with --tile {self.tiling.size or 'off'}"
            advice = "free memory" if self.may_shrink else f"give --tile auto, or a size from {MIN_TILE} up"
            text = f"not enough memory for {width}×{height} px {how} ({reason}); {advice}"
            raise UserError(text) from MemoryError(reason)
        in_context = self._weights is not None
        self._close()  # weights that were built meanwhile lie among the image's tensors, whose memory they would keep
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if in_context:
            self._open()
        self.tiling = smaller
        self.log(f"not enough memory for {width}×{height} px: continuing with tiles of {smaller.size} px")


def _flips_and_rotations() -> Iterator[tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]]:
    """Yield the eight maps of H×W×3 images onto themselves and their inverses, those that keep H and W first."""
    for turns in (0, 2, 1, 3):
        yield (lambda x, k=turns: np.rot90(x, k)), (lambda x, k=turns: np.rot90(x, -k))
        yield (lambda x, k=turns: np.rot90(x[:, ::-1], k)), (lambda x, k=turns: np.rot90(x, -k)[:, ::-1])

"""The two networks for torch.hub, also beside a project that has packages `models` and `utils` of its own.

network = torch.hub.load("/path/to/this/repository", "deblurring_net", source="local")

Our package `models` is imported under a name that no other package has: neither hides the other. torch.hub lists what
can be called here and has no underscore, hence no `from ... import`.
"""

import importlib.util
import pathlib
import sys
import types
import zlib

import torch

dependencies = ["torch"]

_FOLDER = pathlib.Path(__file__).resolve().parent
_NAME = f"aspdc_models_{zlib.crc32(bytes(_FOLDER)):08x}"  # another clone, of another version, is another package


def deblurring_net(
    weights: pathlib.Path | str | None = None,
    device: torch.device | str = "cpu",
    modulation: str = "auto",
    deform_op: str = "auto",
) -> torch.nn.Module:
    """Return the deblurring network in eval mode: (N, 3, H, W) RGB in [-1, 1] to the same, H and W from 8 px.

    Args:
        weights: a checkpoint, ours or the authors'; None for the bundled `final_model/DeblurringNet_NF.pth`.
        device: where to put the network.
        modulation: reading of module 0: "auto", "aligned" or "released".
        deform_op: back end: "auto", "fused", "mmcv" or "torchvision".

    Raises:
        RuntimeError: the device is not available.
    """
    models = _models()
    _check(device)
    return models.load_deblurring_net(weights or models.checkpoint.BUNDLED, device, modulation, deform_op)


def reblurring_net(
    weights: pathlib.Path | str | None = None, device: torch.device | str = "cpu", deform_op: str = "auto"
) -> torch.nn.Module:
    """Return the reblurring network in eval mode: a blurry and a deblurred image, (N, 3, H, W) each, to a blurry one.

    Args:
        weights: a checkpoint, ours or the authors'; None for the bundled `final_model/ReBlurringNet.pth`.
        device: where to put the network.
        deform_op: back end, see `deblurring_net`.

    Raises:
        RuntimeError: the device is not available.
    """
    models = _models()
    _check(device)
    bundled = models.checkpoint.BUNDLED.with_name(models.checkpoint.STAGE_FILES["reblur"])
    return models.load_reblurring_net(weights or bundled, device, deform_op)


def _check(device: torch.device | str) -> None:
    """Raise a RuntimeError with what to do for a device that is not available."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise RuntimeError(f'device="{device}" is not available ({reason}); try device="cpu"') from error


def _models() -> types.ModuleType:
    """Return our package, imported once."""
    if _NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(_NAME, _FOLDER / "models" / "__init__.py")
        assert spec is not None  # it lies beside this file
        assert spec.loader is not None
        sys.modules[_NAME] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[_NAME])
        except BaseException:
            del sys.modules[_NAME]  # or the next call would return a part
            raise
    return sys.modules[_NAME]

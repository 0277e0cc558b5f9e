"""Where to run, and on which back end."""

import torch

from models.aspdc import resolve_aspdc_op
from utils.errors import UserError


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is the first CUDA device, or the CPU where there is none.

    Raises:
        UserError: no such device here.
    """
    if name != "auto" and name.partition(":")[0] not in ("cpu", "cuda"):
        raise UserError(f"--device {name} is not known; expected auto, cpu, cuda or cuda:N")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"--device {name} cannot be used here ({reason}); try --device cpu") from error
    return device


def pick_deform_op(name: str, device: torch.device) -> str:
    """Return the back end of the deformable convolutions that `name` means on `device`.

    Raises:
        UserError: it cannot run here.
    """
    try:
        return resolve_aspdc_op(name, device)
    except RuntimeError as error:
        raise UserError(f"--deform_op {name}: {error}; or use --deform_op torchvision") from error

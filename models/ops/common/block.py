"""The base of all modules that a back end computes."""

from typing import ClassVar

from torch import nn
from torch.nn.modules import module as torch_module

from ..back_ends import check_deform_op


class Block(nn.Module):
    """A module whose forward is PyTorch's operations or our kernels, depending on its `deform_op`.

    Two networks in one process may differ. The attribute is no part of a checkpoint; it survives `deepcopy` and `.to`.
    """

    __jit_unused_properties__: ClassVar = ["deform_op"]  # torch.jit.trace would compile it
    _deform_op = "auto"

    @property
    def deform_op(self) -> str:
        """Back end, one of `models.ops.back_ends.DEFORM_OPS`; setting it sets that of all blocks inside.

        Raises:
            ValueError: unknown name.
        """
        return self._deform_op

    @deform_op.setter
    def deform_op(self, deform_op: str) -> None:
        check_deform_op(deform_op)
        if deform_op == "torchvision":
            import torchvision.ops  # noqa: F401 slow, so not always; torch.jit.trace cannot trace its import
        for module in self.modules():
            if isinstance(module, Block):
                module._deform_op = deform_op


def has_hooks(module: nn.Module) -> bool:
    """Return whether a call of the module or of one inside it would run a hook."""
    if (
        torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
    ):
        return True
    return any(
        each._forward_hooks or each._forward_pre_hooks or each._backward_hooks or each._backward_pre_hooks
        for each in module.modules()
    )

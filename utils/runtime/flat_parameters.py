"""A network's parameters in one tensor, so that what is done to all of them takes few launches on a GPU."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

# Opens a scope for a step's last backward pass, see `FlatParameters.gathered` and `GradientMean`; takes numbers of it.
Gathering = Callable[[Tensor], AbstractContextManager]
_ALIGNMENT = 64  # numbers: parameters begin at multiples of 256 bytes, as tensors of PyTorch's own do


class FlatParameters:
    """Puts a network's parameters that are trained behind each other in one tensor, of which they become views.

    Afterwards the network must not be moved to another device, type or memory format.

    Attributes:
        parameters: those of the network.
        whole: the tensor. It has a gradient once those of the parameters were gathered.
    """

    def __init__(self, network: nn.Module) -> None:
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._sizes = [each.numel() + -each.numel() % _ALIGNMENT for each in self.parameters]
        first = self.parameters[0]
        self.whole = nn.Parameter(first.new_zeros(sum(self._sizes), requires_grad=False))
        self._zeros = first.new_zeros(_ALIGNMENT, requires_grad=False)
        self.whole.data = self.joined([parameter.detach() for parameter in self.parameters])
        for parameter, view in zip(self.parameters, self.views(self.whole.detach()), strict=True):
            parameter.data = view

    def views(self, whole: Tensor) -> list[Tensor]:
        """Return the parts of a tensor like `whole`, each with the shape and the strides of its parameter."""
        parts = zip(whole.split(self._sizes), self.parameters, strict=True)
        return [part.as_strided(each.shape, each.stride(), part.storage_offset()) for part, each in parts]

    def joined(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return a tensor like `whole` with these parts, one for each parameter; zeros lie between them."""
        whole = torch.zeros_like(self.whole, requires_grad=False)
        for view, tensor in zip(self.views(whole), tensors, strict=True):
            view.copy_(tensor)
        return whole

    def norm(self, whole: Tensor) -> Tensor:
        """Return the Euclidean norm of a tensor like `whole`.

        In two steps: the CPU adds values one after another, and in fp32 a sum of 15 million is wrong by 1e-3.
        """
        return torch.linalg.vector_norm(torch.linalg.vector_norm(whole.unflatten(0, (-1, _ALIGNMENT)), dim=1))

    def gather(self, part: slice = slice(None)) -> Tensor:
        """Put the gradients of some parameters into that of `whole`, and return their part of it.

        Raises:
            RuntimeError: a parameter has no gradient.
        """
        if self.whole.grad is None:
            self.whole.grad = torch.empty_like(self.whole, requires_grad=False)
        pieces: list[Tensor] = []
        for parameter, size in zip(self.parameters[part], self._sizes[part], strict=True):
            if parameter.grad is None:
                raise RuntimeError(f"a parameter of shape {tuple(parameter.shape)} has no gradient")
            pieces.append(parameter.grad.as_strided((parameter.numel(),), (1,)))  # as it lies in memory
            pieces.append(self._zeros[: size - parameter.numel()])
        start, stop = (sum(self._sizes[:index]) for index in part.indices(len(self._sizes))[:2])
        return torch.cat(pieces, out=self.whole.grad[start:stop])

    @contextmanager
    def gathered(self, _numbers: Tensor) -> Iterator[None]:
        """Gather all gradients after a backward pass inside this scope, as `GradientMean` does; here of one process."""
        yield
        self.gather()

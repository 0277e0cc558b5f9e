"""Weights in the form the kernels take, kept between calls as long as the weights stand still."""

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

Packed = TypeVar("Packed")
# By parameter and form: what it was built from, and what `build` returned, which is of a type of its own for each form.
_KEPT: MutableMapping[Tensor, dict[str, tuple[object, Any]]] = WeakTensorKeyDictionary()


def kernel_weights(form: str, sources: Sequence[Tensor], dtype: torch.dtype, build: Callable[[], Packed]) -> Packed:
    """Return `build()`, or what it returned last time where nothing has changed and no gradient is wanted.

    Args:
        form: which form of the weights it is.
        sources: the parameters it is built from; what is kept lives as long as the first of them.
        dtype: the type it is built in.
        build: makes it.
    """
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and any(each.requires_grad for each in sources)):
        return build()
    key = (dtype, *((each.data_ptr(), each._version) for each in sources))
    forms = _KEPT.setdefault(sources[0], {})
    if form not in forms or forms[form][0] != key:
        with torch.inference_mode(False), torch.no_grad():  # training may use it, too
            forms[form] = (key, build())
    return forms[form][1]


def forget_kernel_weights(parameters: Iterable[Tensor]) -> None:
    """Drop what is kept for these parameters: a replayed recording changes them where PyTorch does not see it."""
    for parameter in parameters:
        _KEPT.pop(parameter, None)

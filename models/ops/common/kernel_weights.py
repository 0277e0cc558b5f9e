"""Weights in the layout that kernels read: built at each forward, or once within a scope."""

from collections.abc import Callable, Hashable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

Built = TypeVar("Built")
# For each module inside a scope: what was built from its parameters, of a type of its own for each key.
_caches: MutableMapping[nn.Module, dict[Hashable, Any]] = WeakKeyDictionary()


@contextmanager
def cached_kernel_weights(network: nn.Module) -> Iterator[None]:
    """Build a network's kernel weights once inside this scope, not at each forward.

    Inside, its weights must not change in any way. A CUDA graph that is recorded inside reads what was built here: it
    must not be replayed after the scope has ended. A copy of the network (`deepcopy`) has no part in the scope.
    """
    entered = [module for module in network.modules() if module not in _caches]  # those of an outer scope stay there
    for module in entered:
        _caches[module] = {}
    try:
        yield
    finally:
        for module in entered:
            del _caches[module]


def kernel_weights(module: nn.Module, key: Hashable, build: Callable[[], Built]) -> Built:
    """Return `build()`, or what it returned before in this scope where no gradient is wanted.

    Args:
        module: whose parameters it is built from.
        key: which layout and type it is, of several for one module.
        build: makes it.
    """
    if torch.compiler.is_compiling() or (cache := _caches.get(module)) is None:
        return build()
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in module.parameters()):
        return build()
    if key not in cache:
        with torch.inference_mode(False), torch.no_grad():  # training may use it, too
            cache[key] = build()
    return cache[key]

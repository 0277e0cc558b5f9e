"""Weights in the layout that kernels read: built at each forward, or once within a scope."""

from collections.abc import Callable, Hashable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

Built = TypeVar("Built")


@dataclass
class _Cache:
    """The weights built from a module's parameters, by key, and the number of open scopes."""

    built: dict[Hashable, Any] = field(default_factory=dict)
    scopes: int = 0


_caches: MutableMapping[nn.Module, _Cache] = WeakKeyDictionary()
_lock = Lock()  # of counting; two threads that build the same weights at once do no harm


@contextmanager
def cached_kernel_weights(network: nn.Module) -> Iterator[None]:
    """Build a network's kernel weights once inside this scope, not at each forward.

    Inside, its weights must not change in any way, `torch.func.functional_call` with others included. A CUDA graph that
    is recorded inside reads what was built here: it must not be replayed after the scope has ended. Scopes of one
    network may overlap; what was built goes with the last of them. A copy of the network (`deepcopy`) has no part in
    the scope.
    """
    modules = list(network.modules())
    with _lock:
        for module in modules:
            _caches.setdefault(module, _Cache()).scopes += 1
    try:
        yield
    finally:
        with _lock:
            for module in modules:
                _caches[module].scopes -= 1
                if not _caches[module].scopes:
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
    if key not in cache.built:
        with torch.inference_mode(False), torch.no_grad():  # training may use it, too
            cache.built[key] = build()
    return cache.built[key]

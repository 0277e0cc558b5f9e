"""State dicts in files of other programs: where they lie, and the prefixes that wrappers put before the names."""

from typing import Any

from torch import Tensor

# The first of these is taken where there are several; the averaged weights are for testing.
_PREFERRED = ("params_ema", "params", "ema", "state_dict", "model_state_dict", "model")
# DataParallel's and DistributedDataParallel's, torch.compile's, and attributes that hold a network.
_PREFIXES = ("module.", "_orig_mod.", "network.", "model.", "net.")


def find_state_dict(content: Any) -> tuple[dict[str, Tensor], str] | None:
    """Return the state dict in a file's content and the keys that lead to it, as text; None where there is none.

    Under names that are not known it has to be the only one.
    """
    if not isinstance(content, dict):
        return None
    if content and all(isinstance(each, Tensor) for each in content.values()):
        return content, ""
    inside = {str(key): found for key, each in content.items() if (found := find_state_dict(each))}
    place = next((each for each in _PREFERRED if each in inside), next(iter(inside)) if len(inside) == 1 else None)
    return None if place is None else (inside[place][0], f"{place}.{inside[place][1]}".rstrip("."))


def without_prefixes(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return a state dict without the prefixes that all its names have, and these prefixes."""
    removed = ""
    while prefix := next((each for each in _PREFIXES if state and all(name.startswith(each) for name in state)), ""):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        removed += prefix
    return state, removed

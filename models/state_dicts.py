"""State dicts in files of other programs: where they lie, and the prefixes that wrappers put before the names."""

from typing import Any

from torch import Tensor

# BasicSR's, of which the averaged weights are for testing; those of training scripts; Lightning's.
_PLACES = ("params_ema", "params", "state_dict", "model_state_dict", "model")
# DataParallel's and DistributedDataParallel's, torch.compile's, and attributes that hold a network.
_PREFIXES = ("module.", "_orig_mod.", "network.", "model.", "net.")


def find_state_dict(content: Any) -> tuple[dict[str, Tensor], str] | None:
    """Return the state dict in a file's content and the keys that lead to it, as text; None where there is none."""
    if not isinstance(content, dict):
        return None
    if content and all(isinstance(each, Tensor) for each in content.values()):
        return content, ""
    for place in _PLACES:
        if found := find_state_dict(content.get(place)):
            return found[0], f"{place}.{found[1]}".rstrip(".")
    return None


def without_prefixes(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return a state dict without the prefixes that all its names have, and these prefixes."""
    removed = ""
    while prefix := next((each for each in _PREFIXES if state and all(name.startswith(each) for name in state)), ""):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        removed += prefix
    return state, removed

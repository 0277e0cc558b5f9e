"""State dicts in files of other programs: where they lie, and what stands before the names."""

from typing import Any

from torch import Tensor

# The first of these is taken where there are several; the averaged weights are for testing.
_PREFERRED = ("params_ema", "params", "ema", "state_dict", "model_state_dict", "model")


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
    """Return a state dict without the part that all its names begin with, and that part.

    It is what wrappers put there (module. of DataParallel, _orig_mod. of torch.compile), or the name of an attribute
    that holds the network; names in the networks' own state dicts begin differently.
    """
    removed = ""
    while len(firsts := {name.partition(".")[0] for name in state}) == 1 and all("." in name for name in state):
        prefix = f"{firsts.pop()}."
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        removed += prefix
    return state, removed

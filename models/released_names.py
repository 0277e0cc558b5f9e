"""Names of the tensors in the authors' released checkpoints; nothing else in this repository knows them.

Each row maps the beginning of a released name to the beginning of ours. The longest that fits wins, and what follows
it is kept after `_WITHIN` is applied. The names themselves are facts of the file format.
"""

from torch import Tensor

DEBLURRING_KEY = "deblurring_state_dict"
REBLURRING_KEY = "blurring_state_dict"

_STAGES = ("en_res_group1", "en_res_group2", "en_res_group3", "de_res_group3", "de_res_group2", "de_res_group1")

_DEFORMABLE = {"hallucination_d0.": "deformable.0."} | {
    f"hallucination_d{i}.hallucination_conv.": f"deformable.{i}." for i in (1, 2, 3)
}
_ASPDC = {"res_conv.": "feature.", "mask_conv.": "afim.", "fusion_conv.": "fusion."} | _DEFORMABLE

_DEBLURRING = {"head.": "head.", "dense_conv.": "fusion.", "tail.": "tail."}
for _block, _stage in enumerate(_STAGES):
    _DEBLURRING[f"{_stage}_1."] = f"res_blocks.{_block}."
    _DEBLURRING |= {f"{_stage}_2.{old}": f"aspdcs.{_block}.{new}" for old, new in _ASPDC.items()}

_REBLURRING = {"head_conv.": "head.", "kernel_head_conv.": "kernel_convs.0.", "tail.": "tail."}
for _level in (1, 2, 3):
    _REBLURRING[f"body_conv_{_level}."] = f"encoders.{_level - 1}."
    _REBLURRING[f"kernel_conv_{_level}."] = f"kernel_convs.{_level}."
    _REBLURRING[f"body_dconv_{_level}."] = f"decoders.{3 - _level}."
    _REBLURRING[f"kernel_dconv_{_level}."] = f"kernel_convs.{7 - _level}."

# Parts of a residual block and of a deformable module.
_WITHIN = {
    "model.0.": "conv1.",
    "model.2.": "conv2.",
    "p_conv.": "offset_conv.",
    "m_conv.": "modulation_conv.",
    "dconv.": "deform_conv.",
}


def _our_name(released: str, table: dict[str, str]) -> str:
    beginnings = [beginning for beginning in table if released.startswith(beginning)]
    if not beginnings:
        return released  # loading reports it as a tensor that does not belong
    beginning = max(beginnings, key=len)
    rest = released.removeprefix(beginning)
    for old, new in _WITHIN.items():
        rest = rest.replace(old, new)
    return table[beginning] + rest


def from_released(state: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    """Return a released state dict under our names; names that are not in the format stay as they are.

    Args:
        state: as stored in a released checkpoint.
        key: the checkpoint's key it was stored under, `DEBLURRING_KEY` or `REBLURRING_KEY`.
    """
    table = {DEBLURRING_KEY: _DEBLURRING, REBLURRING_KEY: _REBLURRING}[key]
    return {_our_name(name, table): tensor for name, tensor in state.items()}

"""Halve a network's file: weights in fp16, which every loader turns back into fp32.

python -m tools.halve trained/DeblurringNet_FT.pth final_model/DeblurringNet_FT.pth
"""

from pathlib import Path

import torch

from models.checkpoint import check_finite, load_file
from models.released_names import DEBLURRING_KEY, REBLURRING_KEY
from utils.common.arguments import ArgumentParser
from utils.common.errors import UserError
from utils.common.files import atomic_write, file_digest, save_tensors
from utils.runtime.program_end import user_errors_end_the_program


def halve(source: Path, target: Path) -> float:
    """Write a checkpoint with its network's tensors in fp16.

    Args:
        source: a checkpoint of ours or in the released format.
        target: the file to write.

    Returns:
        the largest change of a tensor, as the norm of the difference over its norm.

    Raises:
        UserError: the source cannot be read, the target exists, or a weight is too large for fp16.
    """
    content = load_file(source)
    key = next((key for key in (DEBLURRING_KEY, REBLURRING_KEY) if isinstance(content, dict) and key in content), None)
    if key is None:
        raise UserError(f"{source} is not a checkpoint of ASPDC")
    if target.exists():
        raise UserError(f"{target} exists already; remove it, or name another file")
    state = {name: tensor.half() for name, tensor in content[key].items()}
    check_finite(target, state)
    with atomic_write(target) as temporary:
        save_tensors({**content, key: state}, temporary)
    norms = [
        (state[name].double() - tensor.double()).norm() / tensor.double().norm()
        for name, tensor in content[key].items()
        if tensor.any()
    ]
    return torch.stack(norms).max().item()


def main(argv: list[str] | None = None) -> None:
    """Halve the file that the command line names."""
    parser = ArgumentParser(__doc__, prog="python -m tools.halve")
    parser.add_argument("source", type=Path, help="checkpoint of a network")
    parser.add_argument("target", type=Path, help="file to write")
    args = parser.parse_args(argv)
    change = halve(args.source, args.target)
    size = args.target.stat().st_size / 1e6
    print(
        f"{args.target}: {size:.1f} MB, no tensor changed by more than {change:.1e}, SHA-256 {file_digest(args.target)}"
    )


if __name__ == "__main__":
    with user_errors_end_the_program():
        main()

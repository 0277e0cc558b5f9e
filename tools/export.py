"""The deblurring network in a file that runs without this repository: ONNX, TorchScript or an exported program.

Or its weights alone as safetensors, which this repository and others read without running code.

python -m tools.export --format onnx                                     # final_model/DeblurringNet_NF.onnx
python -m tools.export --format torchscript --weights trained/DeblurringNet_FT.pth --output deblur.pt

Its input `blurry` is (N, 3, H, W) float32, RGB in [-1, 1]; its output `deblurred` has that shape and is not clamped.
N, H and W are free. A file gets its name once it does to a picture, at two sizes, what PyTorch does.
"""

import argparse
import importlib
import warnings
from pathlib import Path

import numpy as np
import torch

from models import DeblurringNet
from models.aspdc import MODULATIONS
from models.checkpoint import BUNDLED, EXPORTED, load_deblurring_net
from models.deblurring_net import STRIDE
from tools.export_formats import (
    FIRST_RUNTIME,
    FORMATS,
    MIN_EXPORTED_SIDE,
    AnySize,
    Function,
    Metadata,
    OperatorMissingError,
)
from utils.common.arguments import ArgumentParser
from utils.common.errors import UserError
from utils.common.files import atomic_write, check_writable, file_digest
from utils.common.version import __version__
from utils.images.codecs import read_image
from utils.images.conversion import to_tensor
from utils.runtime.program_end import user_errors_end_the_program

RECORDED = ("onnx", "exported_program")  # by torch.export
LAST_WITHOUT_THEM = (2, 4)  # of torch
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MIN_CHECKED_SIDE = 64  # px; then the part that is checked has other sizes than what was recorded
LARGEST_CHECKED = (720, 1280)  # px
_PICTURE = Path(__file__).resolve().parents[1] / "samples/GOPRO/test/GOPR0881_11_01/blur/000203.png"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = ArgumentParser(__doc__, prog="python -m tools.export")
    add = parser.add_argument
    # fmt: off
    add("--format", choices=tuple(FORMATS), required=True, help="file format")
    add("--weights", type=Path, default=BUNDLED,
        help="checkpoint of the deblurring network, ours or the authors' (default: final_model/DeblurringNet_NF.pth)")
    add("--modulation", choices=("auto", *MODULATIONS), default="auto",
        help="variant of module 0 (default: auto, the one that the weights were trained with)")
    add("--output", type=Path, help="file to write (default: next to the weights, with the suffix of the format)")
    add("--overwrite", action="store_true", help="replace an existing file")
    add("--check_image", type=Path, default=_PICTURE,
        help="image on which the exported network is compared with PyTorch: its top left 720×1280 px, and a part of "
             "them (default: an image in samples/)")
    # fmt: on
    return parser.parse_args(argv)


def _check_packages(kind: str) -> None:
    if kind in RECORDED and tuple(map(int, torch.__version__.split(".")[:2])) <= LAST_WITHOUT_THEM:
        raise UserError(f"--format {kind} needs a newer torch than {torch.__version__}; --format torchscript does not")
    for package in ONNX_PACKAGES if kind == "onnx" else ():
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(
                f"--format onnx: {package} cannot be imported ({error}); run `pip install {' '.join(ONNX_PACKAGES)}` "
                "(docs/install.md has the versions)"
            ) from error


def _choose_output(args: argparse.Namespace) -> Path:
    if not args.weights.name:
        raise UserError(f"--weights {args.weights} is a folder; expected a checkpoint of the deblurring network")
    output = args.output or args.weights.with_suffix(FORMATS[args.format].suffix)
    if output.resolve() == args.weights.resolve():
        raise UserError(f"{output} is the file to export; give another --output")
    if output.exists() and not args.overwrite:
        raise UserError(f"{output} exists already; give --overwrite to replace it, or another --output")
    return output


def _read_check_image(path: Path) -> np.ndarray:
    picture = read_image(path)[: LARGEST_CHECKED[0], : LARGEST_CHECKED[1]]
    height, width = picture.shape[:2]
    if min(height, width) < MIN_CHECKED_SIDE:
        smallest = f"{MIN_CHECKED_SIDE}×{MIN_CHECKED_SIDE}"
        raise UserError(f"--check_image {path} is {height}×{width} px (H×W); expected at least {smallest}")
    return picture


def differences(exported: Function, network: DeblurringNet, picture: np.ndarray) -> dict[str, float]:
    """Return the largest difference between an exported network's output and PyTorch's, by the input's shape as text.

    Args:
        exported: (N, 3, H, W) in [-1, 1] -> the same shape.
        network: on the CPU.
        picture: H×W×3 uint8, from 64 px. It is taken whole, and a part of it that needs padding, with its mirror image.
    """
    whole = to_tensor(picture)[None]
    height, width = (size // (2 * STRIDE) * STRIDE for size in picture.shape[:2])
    part = whole[..., : height - 1, : width - 2]
    found = {}
    for images in (whole, torch.cat([part, part.flip(-1)])):
        shape = "×".join(map(str, images.shape))
        found[shape] = (exported(images.contiguous()) - network(images)).abs().max().item()
    return found


@torch.no_grad()
def main(args: argparse.Namespace) -> None:
    """Write the file, and give it its name once it does what PyTorch does."""
    _check_packages(args.format)
    output, picture, kind = _choose_output(args), _read_check_image(args.check_image), FORMATS[args.format]
    # Of the back ends only torchvision's operator is known to other programs.
    network = load_deblurring_net(args.weights, "cpu", args.modulation, "torchvision").requires_grad_(False)
    check_writable(output.parent, "--output")
    modulation = network.arguments["modulation"]
    print(f"{args.weights}: module 0 {modulation}; as {args.format}")
    metadata: Metadata = {
        "network": EXPORTED,
        "version": __version__,
        "weights": args.weights.name,
        "weights_sha256": file_digest(args.weights),
        **network.arguments,
        "smallest_side": MIN_EXPORTED_SIDE[modulation],
    }
    missing = None
    with atomic_write(output) as temporary:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # branches on sizes; what they cost, the comparison shows
            temporary.write_bytes(kind.write(AnySize(network).eval(), metadata))
            try:
                found = differences(kind.load(temporary), network, picture)
            except OperatorMissingError as error:
                found, missing = {}, error
        for shape, difference in found.items():
            print(f"{shape}: at most {difference:.1e} from PyTorch")
            if not difference <= kind.tolerance:
                raise UserError(
                    f"{output} was not written: on {args.check_image} ({shape}) it would differ from PyTorch by "
                    f"{difference:.1e}, {kind.tolerance:g} is allowed; install the versions that docs/install.md names"
                )
    print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB, for H and W from {MIN_EXPORTED_SIDE[modulation]} px")
    if missing:
        raise UserError(
            f"{output} is valid, but could not be compared with PyTorch ({missing}); onnxruntime runs DeformConv on "
            f"the CPU from {FIRST_RUNTIME} on, which needs Python 3.11 or newer"
        )


if __name__ == "__main__":
    with user_errors_end_the_program():
        main(parse_args())

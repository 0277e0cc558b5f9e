"""Print what the reblurring term L(R(b, x), b) says of images x: sharp, restored, blurry, shifted or blurred ones.

python -m tools.reblurring_term /data/GOPRO_Large                      # the bundled networks
python -m tools.reblurring_term samples/GOPRO --reblurring_weights trained/ReBlurringNet.pth --crops 6

Stage finetune makes the term small, so a row below that of the sharp image is what the term prefers to it. The last two
lines compare its gradient at D's weights with that of the loss L(D(b), sharp), on crops and before λA and λB.
"""

import argparse
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from datasets import find_images
from losses import NormalizedMSELoss, ReblurringConsistencyLoss
from models import DeblurringNet, load_deblurring_net, load_reblurring_net
from models.blocks import MIN_SIZE
from models.checkpoint import BUNDLED, STAGE_FILES
from utils.common.arguments import MAX_SIDE, ArgumentParser, whole
from utils.common.errors import counted
from utils.images.conversion import to_tensor
from utils.inference.evaluation import decode
from utils.runtime.device import pick_device
from utils.runtime.program_end import user_errors_end_the_program

SHIFTS = (1, 2, 4)  # px
SIGMAS = (1, 2, 3)  # px


class Gradients(NamedTuple):
    """How the term's gradient lies to that of the other loss: the ratio of their norms, and their cosine."""

    ratio: float
    cosine: float


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = ArgumentParser(__doc__, prog="python -m tools.reblurring_term")
    add = parser.add_argument
    # fmt: off
    add("testset_dir", type=Path, nargs="+", metavar="FOLDER", help="folders of pairs; of GoPro's, its test images")
    add("--deblurring_weights", type=Path, default=BUNDLED, metavar="FILE", help="D")
    add("--reblurring_weights", type=Path, default=BUNDLED.with_name(STAGE_FILES["reblur"]), metavar="FILE", help="R")
    add("--crops", type=whole(0, 10_000), default=1, help="crops of each pair on which gradients are compared")
    add("--size", type=whole(MIN_SIZE, MAX_SIDE), default=256, help="largest side of a crop in px")
    add("--seed", type=whole(0), default=0, help="of the crops' places")
    add("--device", default="auto",
        help="auto, cpu, cuda, cuda:1, ... (default: auto, which is CUDA if available, else the CPU)")
    # fmt: on
    return parser.parse_args(argv)


def shifted(image: Tensor, distance: int) -> Tensor:
    """Return (N, C, H, W) images moved to the right, their first column repeated."""
    return F.pad(image, (distance, 0, 0, 0), mode="replicate")[..., :-distance]


def blurred(image: Tensor, sigma: int) -> Tensor:
    """Return (N, C, H, W) images after a Gaussian filter."""
    length = min(8 * sigma + 1, 2 * min(image.shape[-2:]) - 1)  # more than that reflection cannot fill
    return gaussian_blur(image, [length] * 2, [float(sigma)] * 2)


@torch.no_grad()
def term_of_images(
    term: ReblurringConsistencyLoss, network: DeblurringNet, blurry: Tensor, sharp: Tensor
) -> dict[str, float]:
    """Return the term of what could be x, by its description.

    Args:
        term: with R.
        network: D.
        blurry: b, (1, 3, H, W) in [-1, 1].
        sharp: its partner.
    """
    images = {"sharp image": sharp, "restored image D(b)": network(blurry), "blurry image b": blurry}
    images |= {f"sharp image, shifted by {distance} px": shifted(sharp, distance) for distance in SHIFTS}
    images |= {f"sharp image, blurred with σ = {sigma} px": blurred(sharp, sigma) for sigma in SIGMAS}
    return {name: term(blurry, image).item() for name, image in images.items()}


def compare_gradients(
    term: ReblurringConsistencyLoss, network: DeblurringNet, blurry: Tensor, sharp: Tensor
) -> Gradients:
    """Return how the gradients of L(R(b, D(b)), b) and of L(D(b), sharp) lie to each other at D's weights."""
    restored, parameters = network(blurry), list(network.parameters())
    loss = NormalizedMSELoss().to(blurry.device)(restored, sharp)
    both = (torch.autograd.grad(each, parameters, retain_graph=True) for each in (term(blurry, restored), loss))
    ours, other = (torch.cat([part.flatten() for part in each]).double() for each in both)
    norms = ours.norm() * other.norm()
    return Gradients((ours.norm() / other.norm()).item(), (ours @ other / norms).item())


def random_crop(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return a crop of (N, C, H, W) images, of `size` px a side where they are that large."""
    for axis in (2, 3):
        length = min(size, images.shape[axis])
        first = int(torch.randint(images.shape[axis] - length + 1, (), generator=generator))
        images = images.narrow(axis, first, length)
    return images


def main(args: argparse.Namespace) -> None:
    """Print the table and the comparison.

    Raises:
        UserError: a network or a set cannot be read.
    """
    device = pick_device(args.device)
    network = load_deblurring_net(args.deblurring_weights, device).requires_grad_(True)
    term = ReblurringConsistencyLoss(load_reblurring_net(args.reblurring_weights, device)).to(device)
    generator = torch.Generator().manual_seed(args.seed)
    terms: list[dict[str, float]] = []
    gradients: list[Gradients] = []
    for folder in args.testset_dir:
        image_set = find_images(folder, "test", "paired")
        for index in range(len(image_set.blurry)):
            pair = decode(image_set, index)
            pixels = to_tensor(pair.both, device)[None]
            terms.append(term_of_images(term, network, *pixels.split(3, dim=1)))
            crops = [random_crop(pixels, args.size, generator) for _ in range(args.crops)]
            gradients += [compare_gradients(term, network, *crop.split(3, dim=1)) for crop in crops]
    print(f"L(R(b, x), b), mean and median of {counted(len(terms), 'pair')}, by x:")
    for name in terms[0]:
        values = [each[name] for each in terms]
        print(f"  {name:36}{fmean(values):9.5f}{median(values):9.5f}")
    if gradients:
        ratios, cosines = zip(*gradients, strict=True)
        print(f"gradient at D's weights, {counted(len(gradients), 'crop')} of up to {args.size}×{args.size} px:")
        print(f"  norm, of that of L(D(b), sharp): median {median(ratios):.1%}, {min(ratios):.1%} to {max(ratios):.1%}")
        spread = f"{min(cosines):.2f} to {max(cosines):.2f}"
        print(f"  cosine to it: mean {fmean(cosines):.2f}, median {median(cosines):.2f}, {spread}")


if __name__ == "__main__":
    with user_errors_end_the_program():
        main(parse_args())

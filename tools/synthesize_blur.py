"""Pairs of blurry and sharp images, synthesised from sharp photographs by moving the camera and objects.

    python -m tools.synthesize_blur SHARP_DIR OUT_DIR --count 4
    python -m tools.synthesize_blur OUT_DIR --from_video clip_240fps.mp4 --from_video folder_of_frames

writes OUT_DIR/train/SEQUENCE/{blur,blur_gamma,sharp}/NNNNNN.png, which is GOPRO_Large's layout: a sequence for each
photograph, with its name, or for each clip, whose pairs have the number of their middle frame. The outermost 32 px of a
photograph are lost: they come into view while the camera moves. Pairs in files have noise, but neither the JPEG
artefacts nor the brightened highlights of pairs made in training.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from datasets.discovery.layout_table import SPLITS
from datasets.synthesis.blur import BlurSettings, BlurSynthesis
from datasets.synthesis.sensor import SensorSettings
from datasets.synthesis.writer import PairFolder, Pictures, from_photographs, from_video
from models.blocks import MIN_SIZE
from utils.common.arguments import ArgumentParser, whole
from utils.common.errors import UserError, counted
from utils.common.files import check_writable
from utils.images.conversion import to_float_image, to_tensor, to_uint8
from utils.runtime.device import pick_device
from utils.runtime.program_end import user_errors_end_the_program

__all__ = ["BlurSettings", "BlurSynthesis", "main", "parse_args"]

# What the two variants are, so that their partner is one and the same.
_FIXED = (
    *("share_linear", "share_gamma", "gamma", "contrast", "brightness"),
    *("share_highlights", "highlights", "share_jpeg", "quality"),
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = ArgumentParser(__doc__, prog="python -m tools.synthesize_blur")
    add = parser.add_argument
    # fmt: off
    add("sharp_dir", type=Path, nargs="?", metavar="SHARP_DIR",
        help="folder of sharp photographs, at any depth (default: none, with --from_video)")
    add("out_dir", type=Path, metavar="OUT_DIR", help="folder in which the split's folder is written")
    add("--from_video", type=Path, action="append", default=[], metavar="PATH",
        help="instead of SHARP_DIR: a video of high frame rate (GoPro: 240 per second), or a folder of its frames "
             "(default: none)")
    add("--frames", type=whole(1), nargs=2, default=(7, 13), metavar=("LOW", "HIGH"),
        help="range of the odd number of frames of a video that are averaged (default: GoPro's 7 13)")
    add("--blur", nargs="+", default=[], metavar="NAME=VALUE",
        help="changes to the settings of the synthetic blur of photographs, see datasets/synthesis/ (default: no "
             "changes)")
    add("--count", type=whole(1, limit=1_000_000), default=1, help="pairs per photograph")
    add("--long_side", type=whole(1), default=1280,
        help="longer side in px to which larger photographs are scaled down")
    add("--seed", type=int, default=0, help="random seed")
    add("--split", choices=SPLITS, default="train", help="folder in OUT_DIR to write")
    add("--device", default="auto",
        help="auto, cpu, cuda, cuda:1, ... (default: auto, which is CUDA if available, else the CPU)")
    add("--resume", action="store_true", help="write only pairs that are missing")
    add("--overwrite", action="store_true", help="replace existing pairs in OUT_DIR")
    # fmt: on
    args = parser.parse_args(argv)
    if (args.sharp_dir is None) == (not args.from_video):
        parser.error("expected SHARP_DIR OUT_DIR, or OUT_DIR --from_video PATH")
    if args.frames[0] < 3 or args.frames[0] | 1 > args.frames[1]:
        parser.error(f"--frames {args.frames[0]} {args.frames[1]} holds no odd number of 3 or more")
    if args.resume and args.overwrite:
        parser.error("--resume keeps existing pairs, --overwrite replaces them: give one of the two")
    if args.blur and args.from_video:
        parser.error("--blur applies to photographs; the blur of a video is the mean of its frames")
    if fixed := [change for change in args.blur if change.partition("=")[0] in _FIXED]:
        parser.error(f"--blur {fixed[0]}: both of GoPro's variants are written, without highlights and JPEG")
    return args


def file_synthesis(device: torch.device, changes: Sequence[str] = ()) -> Callable[[np.ndarray, int], Pictures]:
    """Return a function that makes a pair in both of GoPro's variants of an H×W×3 uint8 photograph and a seed.

    Args:
        device: where it is made.
        changes: of the blur, see `BlurSettings.changed`.
    """
    settings = BlurSettings(sensor=SensorSettings(share_highlights=0.0, share_jpeg=0.0)).changed(changes)
    sensors = [replace(settings.sensor, share_linear=linear, share_gamma=1.0 - linear) for linear in (1.0, 0.0)]
    variants = [BlurSynthesis(replace(settings, sensor=sensor)) for sensor in sensors]

    def synthesise(photograph: np.ndarray, seed: int) -> Pictures:
        sharp, seeds = to_tensor(photograph)[None].to(device), torch.tensor([seed])
        (blur, partner), (gamma, _) = (variant(sharp, seeds) for variant in variants)
        first, second, third = (to_uint8(to_float_image(image[0])) for image in (blur, gamma, partner))
        return first, second, third

    return synthesise


def main(args: argparse.Namespace) -> None:
    """Write the pairs.

    Raises:
        UserError: bad input, or a list of skipped files.
    """
    folder = PairFolder(args.out_dir / args.split, args.resume, args.overwrite)
    problems: list[str] = []
    if args.sharp_dir:
        if args.out_dir.resolve().is_relative_to(args.sharp_dir.resolve()):
            raise UserError(f"{args.out_dir} is inside {args.sharp_dir}; its pairs would be taken for photographs")
        synthesise = file_synthesis(pick_device(args.device), args.blur)
        check_writable(args.out_dir, "OUT_DIR")
        smallest = 2 * BlurSettings().margin + MIN_SIZE
        problems += from_photographs(
            args.sharp_dir, folder, synthesise, smallest, args.count, args.seed, args.long_side, args.blur
        )
    for source in args.from_video:
        check_writable(args.out_dir, "OUT_DIR")
        problems += from_video(source, folder, tuple(args.frames), args.seed)
    print(f"{counted(folder.written, 'pair')} written to {folder.root}")
    if problems:
        listed = "\n  ".join(problems)
        raise UserError(f"{len(problems)} of the files were skipped:\n  {listed}")


if __name__ == "__main__":
    with user_errors_end_the_program():
        main(parse_args())

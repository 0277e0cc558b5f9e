"""Restore the images of benchmark folders, or any others, and score those that have ground truth.

python D_testing.py --testset_dir /data/GOPRO_Large                 # GoPro's test images with the paper's metrics
python D_testing.py --testset_dir /data/GOPRO_Large --testset_dir /data/HIDE
python D_testing.py --testset_dir my_photos --save_dir sharp        # no ground truth: restored and saved
"""

import argparse
import csv
import itertools
import json
import math
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from tqdm import tqdm

from datasets import SPLITS, ImageSet, find_images, parse_source
from models.aspdc import ASPDC_OPS, MODULATIONS
from utils.capture import Captured
from utils.checkpoint import load_deblurring_net
from utils.device import pick_deform_op, pick_device
from utils.errors import UserError, user_errors_end_the_program
from utils.evaluation import restore_and_score
from utils.files import atomic_write, check_writable
from utils.images import side_by_side, to_uint8, write_png
from utils.metrics import COMPARABLE_WITH, METRICS
from utils.precision import PRECISIONS, set_precision
from utils.restoration import Restorer
from utils.tiling import GRID, parse_tile
from utils.version import __version__

GOPRO_INPUT = " (GoPro's whole test set has about 25.6: another value means a wrong or swapped folder)"

Row = dict[str, str | int | float]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments; edit the defaults here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    # fmt: off
    add("--testset_dir", action="append", required=True, metavar="[KIND=]PATH",
        help="a folder of images in any layout of the README; may be given several times")
    add("--blur_dir", default="blur",
        help="name of the blurry folders beside sharp/; the published numbers are for GoPro's blur, not its blur_gamma")
    add("--weights", type=Path, default=Path("final_model/DeblurringNet_FT.pth"),
        help="the deblurring network: a file of ours or the authors'")
    add("--modulation", choices=("auto", *MODULATIONS), default="auto",
        help="reading of module 0; auto is what the weights were trained for")
    add("--device", default="auto", help="auto (CUDA where there is one, else the CPU), cpu, cuda, cuda:1, ...")
    add("--deform_op", choices=ASPDC_OPS, default="auto",
        help="back end of the deformable convolutions; auto is fused on the CPU and on GPUs from Hopper on, elsewhere "
             "mmcv if installed, else torchvision")
    add("--precision", choices=PRECISIONS, default="fp32",
        help="number format of convolutions and products; report results in fp32, bf16 is faster")
    add("--tile", type=parse_tile, default="auto", metavar="auto|off|N",
        help="restore in overlapping tiles of N×N px; auto takes the largest that fit into memory, off the whole image")
    add("--tile_overlap", type=int, default=320,
        help="px that neighbouring tiles share: less is faster, too little shows as seams")
    add("--self_ensemble", action="store_true",
        help="restore the eight flips and rotations of each image and save their mean: eight times the work")
    add("--save_dir", type=Path, default=Path("results"), help="where restored images and the scores go")
    add("--limit", type=int, help="restore only the first so many images of each set")
    add("--figure", action="store_true", help="also save blurry | restored | sharp of each set's first image")
    # fmt: on
    args = parser.parse_args(argv)
    if args.limit is not None and args.limit < 1:
        parser.error("--limit should be at least 1")
    if args.tile_overlap not in range(0, 4097, GRID):
        parser.error(f"--tile_overlap should be a multiple of {GRID} from 0 to 4096")
    if isinstance(args.tile, int) and args.tile_overlap > args.tile // 2:
        parser.error(f"--tile_overlap should be at most half of --tile {args.tile}, not {args.tile_overlap}")
    return args


def test_set(
    restorer: Restorer,
    image_set: ImageSet,
    folder: Path,
    args: argparse.Namespace,
    rows: list[Row],
) -> None:
    """Restore, save and score the images of a set, one at a time at full size; append a row an image to `rows`."""
    saved_as = output_names(image_set.names)
    count = min(len(image_set), args.limit or len(image_set))
    for i in tqdm(range(count), desc=folder.name, unit="image", dynamic_ncols=True):
        result = restore_and_score(restorer, image_set, i)
        height, width = result.blurry.shape[:2]
        row: Row = {"set": folder.name, "image": image_set.names[i], "height": height, "width": width}
        row["seconds"] = round(result.seconds, 4)
        row |= {f"input_{name}": value for name, value in result.before.items()} | result.after
        restored = to_uint8(result.output)
        write_png(folder / saved_as[i], restored)
        if args.figure and i == 0:
            panels = [result.blurry, restored] + ([] if result.sharp is None else [result.sharp])
            write_png(folder.with_name(f"{folder.name}_side_by_side.png"), side_by_side(panels))
        rows.append(row)


def output_names(names: tuple[str, ...]) -> list[str]:
    """Return PNG names for a set: a.jpg becomes a.png, or, where two images would share a name, each a.jpg.png."""
    names_as_png = [f"{Path(name).with_suffix('')}.png" for name in names]
    return names_as_png if len(set(names_as_png)) == len(names) else [f"{name}.png" for name in names]


def summarise(image_set: ImageSet, rows: list[Row], complete: bool) -> dict[str, Any]:
    """Return a set's counts and means for summary.json; `complete` tells whether all images asked for were restored."""
    summary: dict[str, Any] = {
        "kind": image_set.kind,
        "root": str(image_set.root),
        "images": len(rows),
        "images_in_set": len(image_set),
        "complete": complete,
        "notes": list(image_set.notes),
        "seconds_per_image": median(row["seconds"] for row in rows),
    }
    if image_set.paired:
        summary["input"] = {name: fmean(row[f"input_{name}"] for row in rows) for name in METRICS}
        summary["output"] = {name: fmean(row[name] for row in rows) for name in METRICS}
    return summary


def print_summary(name: str, summary: dict[str, Any]) -> None:
    """Print a set's table: each metric of the input and the output, and what it may be compared with."""
    print(f"\n{name}: {summary['images']:,} images, {summary['seconds_per_image']:.3g} s an image")
    if "output" not in summary:
        print("no ground truth: restored and saved, not scored")
        return
    print(f"input PSNR {summary['input']['psnr']:.2f} dB" + GOPRO_INPUT * (summary["kind"] == "gopro"))
    print(f"{'':14}{'input':>9}{'output':>9}   comparable with")
    for metric in METRICS:
        values = "".join(f"{summary[side][metric]:9.4f}" for side in ("input", "output"))
        print(f"{metric:14}{values}   {COMPARABLE_WITH[metric]}")


def write_results(save_dir: Path, rows: list[Row], summary: dict[str, Any]) -> None:
    """Write results.csv, one row an image, and summary.json."""
    with atomic_write(save_dir / "results.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        columns = dict.fromkeys(column for row in rows for column in row)
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    with atomic_write(save_dir / "summary.json") as path:
        path.write_text(json.dumps(_finite(summary), indent=2, allow_nan=False), encoding="utf-8")


def _finite(value: Any) -> Any:
    """Replace the infinite PSNR of equal images by null: JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def result_folders(image_sets: list[ImageSet], save_dir: Path) -> list[Path]:
    """Return a folder of its own for each set's restored images, none of them where a set is read from."""
    folders: list[Path] = []
    for image_set in image_sets:
        root = image_set.root.resolve()
        name = f"{root.parent.name}_{root.name}" if root.name in SPLITS else root.name
        numbered = (name if i == 1 else f"{name}-{i}" for i in itertools.count(1))
        folders.append(next(save_dir / each for each in numbered if save_dir / each not in folders))
    for image_set in image_sets:
        for folder in folders:
            if folder.resolve().is_relative_to(image_set.root.resolve()):
                raise UserError(
                    f"{folder} would lie inside {image_set.root}, which is read from; give a --save_dir elsewhere"
                )
    return folders


def main(args: argparse.Namespace) -> None:
    """Find the images and check everything that can be wrong, then restore and score."""
    device = pick_device(args.device)
    set_precision(args.precision, device)
    network = load_deblurring_net(args.weights, device, args.modulation, args.deform_op)
    network.to(memory_format=torch.channels_last)
    deform_op = pick_deform_op(args.deform_op, device, network.arguments["width"])
    # images of one size in a row, such as a video's or a benchmark's, replay one recording
    forward = Captured(network, warmup=1) if deform_op == "fused" and device.type == "cuda" else network
    width = network.arguments["width"]
    restorer = Restorer(
        forward, width, device, args.precision, args.tile, args.tile_overlap, args.self_ensemble, tqdm.write
    )
    image_sets = [find_images(path, "test", kind, args.blur_dir) for kind, path in map(parse_source, args.testset_dir)]
    folders = result_folders(image_sets, args.save_dir)
    check_writable(args.save_dir, "--save_dir")
    modulation = network.arguments["modulation"]
    print(f"{args.weights}: module 0 {modulation}; deformable convolutions {deform_op}; {args.precision} on {device}")
    for image_set in image_sets:
        print(image_set.describe())
    all_rows: list[Row] = []
    summary = {
        "version": __version__,
        "weights": str(args.weights),
        "modulation": modulation,
        "deform_op": deform_op,
        "precision": args.precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "torch": torch.__version__,
        "comparable_with": COMPARABLE_WITH,
        "sets": {},
    }
    for image_set, folder in zip(image_sets, folders, strict=True):
        rows: list[Row] = []
        try:
            test_set(restorer, image_set, folder, args, rows)
        finally:  # an unreadable image or Ctrl-C does not lose the scores before it
            all_rows += rows
            complete = len(rows) == min(len(image_set), args.limit or len(image_set))
            if rows:
                summary["sets"][folder.name] = summarise(image_set, rows, complete)
                write_results(args.save_dir, all_rows, summary)
        print_summary(folder.name, summary["sets"][folder.name])
    print(f"\nrestored images, results.csv and summary.json are in {args.save_dir}")


if __name__ == "__main__":
    with user_errors_end_the_program():
        main(parse_args())

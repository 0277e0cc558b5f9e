"""Restore the images of benchmark folders, or any others, and score those that have ground truth.

python D_testing.py --testset_dir /data/GOPRO_Large                 # GoPro's test images with the paper's metrics
python D_testing.py --testset_dir /data/GOPRO_Large --testset_dir /data/HIDE
python D_testing.py --testset_dir my_photos --save_dir sharp        # no ground truth: restored and saved
python D_testing.py --testset_dir shaky.jpg --save_dir sharp
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from datasets import ImageSet, parse_source, pictures, survey
from datasets.checks import told_together
from models.aspdc import ASPDC_OPS, MODULATIONS
from utils.capture import Captured
from utils.checkpoint import load_deblurring_net
from utils.device import pick_deform_op, pick_device
from utils.errors import UserError, user_errors_end_the_program
from utils.evaluation import restore_and_score
from utils.files import check_writable, file_digest
from utils.images import UnreadableError, side_by_side, to_uint8, write_png
from utils.pictures import read_picture, write_picture
from utils.precision import PRECISIONS, set_precision
from utils.restoration import Restorer
from utils.results import Results, output_names, print_summary, result_folders, summarise
from utils.saved_results import SavedResults, read_result
from utils.tiling import GRID, parse_tile
from utils.version import __version__
from utils.video import is_video, output_name, restore_video


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments; edit the defaults here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    # fmt: off
    add("--testset_dir", action="append", required=True, metavar="[KIND=]PATH",
        help="a folder of images in any layout of the README, an image or a video; may be given several times")
    add("--from_results", type=Path, metavar="DIR",
        help="score the pictures of this folder, which any method made of the test images, instead of restoring")
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
    add("--resume", action="store_true", help="go on with what an earlier run left in --save_dir")
    add("--overwrite", action="store_true", help="restore again what --save_dir already holds")
    add("--limit", type=int, help="restore only the first so many images of each set")
    add("--figure", action="store_true", help="also save blurry | restored | sharp of each set's first image")
    # fmt: on
    args = parser.parse_args(argv)
    if args.limit is not None and args.limit < 1:
        parser.error("--limit should be at least 1")
    if args.resume and args.overwrite:
        parser.error("--resume goes on with earlier results, --overwrite replaces them: give one of the two")
    if args.tile_overlap not in range(0, 4097, GRID):
        parser.error(f"--tile_overlap should be a multiple of {GRID} from 0 to 4096")
    if isinstance(args.tile, int) and args.tile_overlap > args.tile // 2:
        parser.error(f"--tile_overlap should be at most half of --tile {args.tile}, not {args.tile_overlap}")
    return args


def test_set(
    restorer: Restorer | SavedResults, image_set: ImageSet, folder: Path, args: argparse.Namespace, results: Results
) -> list[str]:
    """Restore, save and score the images of a set, one at a time; return what was wrong with those left out."""
    saved_as = output_names(image_set.names)
    count = min(len(image_set), args.limit or len(image_set))
    files = restorer.files(image_set, folder.name, count) if isinstance(restorer, SavedResults) else None
    done, problems = results.of(folder.name), []
    try:
        for i in tqdm(range(count), desc=folder.name, unit="image", dynamic_ncols=True):
            if image_set.names[i] in done:
                continue
            output = files[i] if files else folder / saved_as[i]
            try:
                row, panels = test_image(restorer, image_set, i, output)
            except UnreadableError as error:
                problems.append(str(error))
                tqdm.write(f"left out: {error}")
                continue
            where = output.as_posix() if files else output.relative_to(args.save_dir).as_posix()
            results.add({"set": folder.name, "image": image_set.names[i], "saved_as": where, **row})
            if args.figure and i == 0:
                write_png(folder.with_name(f"{folder.name}_side_by_side.png"), side_by_side(panels))
    finally:  # neither an error nor Ctrl-C loses the scores before it
        if rows := list(results.of(folder.name).values()):
            complete = len(rows) == count
            results.sets[folder.name] = summarise(image_set, rows, complete=complete, problems=problems)
            results.write()
    return problems


def test_image(
    restorer: Restorer | SavedResults, image_set: ImageSet, index: int, output: Path
) -> tuple[dict[str, int | float], list[np.ndarray]]:
    """Restore, save and score one image; return its row for results.csv and the panels of its figure."""
    if image_set.sharp is None:
        picture = read_picture(image_set.blurry[index])
        start = time.perf_counter()
        restored = restorer(picture.pixels)
        seconds, scores = time.perf_counter() - start, {}
        write_picture(output, restored, picture)
        panels = [to_uint8(picture.pixels / np.float32(np.iinfo(picture.pixels.dtype).max)), to_uint8(restored)]
    else:
        saved = isinstance(restorer, SavedResults)
        result = restore_and_score((lambda blurry: read_result(output)) if saved else restorer, image_set, index)
        seconds = 0.0 if saved else result.seconds
        scores = {f"input_{name}": value for name, value in result.before.items()} | result.after
        if not saved:
            write_png(output, to_uint8(result.output))
        panels = [result.blurry, to_uint8(result.output), result.sharp]
    height, width = panels[0].shape[:2]
    return {"height": height, "width": width, "seconds": round(seconds, 4)} | scores, panels


def find_sets(args: argparse.Namespace) -> list[ImageSet]:
    """Return the image sets and pictures that --testset_dir names; of photographs no file is looked at yet."""
    sources = [parse_source(text) for text in args.testset_dir]
    files = [path for _, path in sources if path.is_file() and not is_video(path)]
    image_sets = [pictures(list(dict.fromkeys(files)))] if files else []
    for kind, path in sources:
        if not path.is_file():
            image_set, problems = survey(path, "test", kind, args.blur_dir, look_at_unpaired=False)
            if problems:
                raise UserError(told_together(problems))
            image_sets.append(image_set)
    return image_sets


def refuse_existing(
    image_sets: list[ImageSet], folders: list[Path], videos: dict[Path, Path], args: argparse.Namespace
) -> None:
    """Do not write over what an earlier run made unless asked to, and never over what is read."""
    inputs = {path.resolve() for image_set in image_sets for path in (*image_set.blurry, *(image_set.sharp or ()))}
    inputs |= {path.resolve() for path in videos}
    outputs = [
        folder / name
        for image_set, folder in zip(image_sets, folders, strict=True)
        for name in output_names(image_set.names)[: args.limit]
    ]
    for output in (*outputs, *videos.values()):
        if output.resolve() in inputs:
            raise UserError(f"{output} is one of the files to restore; give a --save_dir elsewhere")
        if not (args.overwrite or args.resume) and output.exists():
            raise UserError(
                f"{output} exists already; give --resume to go on with what was begun, --overwrite to do it again, "
                "or another --save_dir"
            )


def find_videos(args: argparse.Namespace) -> dict[Path, Path]:
    """Return the videos that --testset_dir names, each with the place of its restored version."""
    paths = [path for _, path in map(parse_source, args.testset_dir) if path.is_file() and is_video(path)]
    videos = {path: args.save_dir / output_name(path) for path in dict.fromkeys(paths)}
    if len(set(videos.values())) < len(videos):
        raise UserError("two of the videos have one name; restore them in runs with a --save_dir each")
    if videos and args.from_results:
        raise UserError("--from_results scores images, not videos")
    return videos


def test_videos(restorer: Restorer, videos: dict[Path, Path], args: argparse.Namespace, results: Results) -> list[str]:
    """Restore videos; return what was wrong with those left out."""
    problems = []
    for path, output in videos.items():
        if args.resume and output.exists():
            continue
        try:
            results.sets[output.name] = {"kind": "video", **restore_video(restorer, path, output, print)}
        except UnreadableError as error:
            problems.append(str(error))
            continue
        results.write()
        print(f"{path}: restored as {output}")
    return problems


def network_and_settings(args: argparse.Namespace) -> tuple[Restorer, dict[str, Any]]:
    """Return what restores images, and what its results depend on."""
    device = pick_device(args.device)
    set_precision(args.precision, device)
    network = load_deblurring_net(args.weights, device, args.modulation, args.deform_op)
    network.to(memory_format=torch.channels_last)
    width, modulation = network.arguments["width"], network.arguments["modulation"]
    deform_op = pick_deform_op(args.deform_op, device, width)
    # images of one size in a row, such as a video's or a benchmark's, replay one recording
    forward = Captured(network, warmup=1) if deform_op == "fused" and device.type == "cuda" else network
    restorer = Restorer(
        forward, width, device, args.precision, args.tile, args.tile_overlap, args.self_ensemble, tqdm.write
    )
    print(f"{args.weights}: module 0 {modulation}; deformable convolutions {deform_op}; {args.precision} on {device}")
    return restorer, {
        "weights": str(args.weights),
        "weights_sha256": file_digest(args.weights),
        "modulation": modulation,
        "deform_op": deform_op,
        "precision": args.precision,
        "self_ensemble": args.self_ensemble,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "torch": torch.__version__,
    }


def main(args: argparse.Namespace) -> None:
    """Find the images and check everything that can be wrong, then restore and score."""
    if args.from_results:
        restorer, settings = SavedResults(args.from_results), {"from_results": str(args.from_results.resolve())}
    else:
        restorer, settings = network_and_settings(args)
    image_sets = find_sets(args)
    videos = find_videos(args)
    folders = result_folders(image_sets, args.save_dir)
    if args.from_results:
        if unpaired := [str(image_set.root) for image_set in image_sets if not image_set.paired]:
            raise UserError(f"--from_results scores against sharp images; {unpaired[0]} has none")
    else:
        refuse_existing(image_sets, folders, videos, args)
    check_writable(args.save_dir, "--save_dir")
    # Rows are told apart by the names of sets and images, which other folders may share.
    read = {
        "testset_dir": [str(parse_source(text)[1].resolve()) for text in args.testset_dir],
        "blur_dir": args.blur_dir,
    }
    results = Results(args.save_dir, {"version": __version__, **settings, **read}, args.resume)
    for image_set in image_sets:
        print(image_set.describe())
    problems: list[str] = []
    for image_set, folder in zip(image_sets, folders, strict=True):
        problems += test_set(restorer, image_set, folder, args, results)
        if folder.name in results.sets:
            print_summary(folder.name, results.sets[folder.name])
    problems += test_videos(restorer, videos, args, results)
    print(f"\n{'' if args.from_results else 'restored images, '}results.csv and summary.json are in {args.save_dir}")
    if problems:
        listed = "\n  ".join(problems)
        raise UserError(f"{len(problems)} of the files were left out:\n  {listed}")


if __name__ == "__main__":
    with user_errors_end_the_program():
        main(parse_args())

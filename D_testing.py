"""Restore the images of benchmark folders, or any others, and score those that have ground truth.

python D_testing.py --testset_dir /data/GOPRO_Large                 # GoPro's test images with the paper's metrics
python D_testing.py --testset_dir /data/GOPRO_Large --testset_dir /data/HIDE
python D_testing.py --testset_dir my_photos --save_dir sharp        # no ground truth: restored and saved
python D_testing.py --testset_dir shaky.jpg --save_dir sharp
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from datasets import ImageSet, parse_source
from models.aspdc import MODULATIONS
from models.checkpoint import BUNDLED
from models.ops.back_ends import DEFORM_OPS
from utils.common.arguments import settings_of, whole
from utils.common.errors import UserError
from utils.common.files import check_writable, lock_output_dir, remove_stale
from utils.common.signals import interruption, sigterm_as_exception
from utils.common.version import __version__
from utils.inference.restorer import Restorer
from utils.inference.tiling import GRID, parse_tile
from utils.metrics.scorer import Scorer, parse_metrics
from utils.report.figure_files import parse_blocks
from utils.report.page import FILES
from utils.report.rows import PAGE
from utils.runtime.distributed import init_distributed
from utils.runtime.precision import PRECISIONS
from utils.runtime.program_end import user_errors_end_the_program
from utils.testing.dataset_table import run_set
from utils.testing.inputs import check_no_overwrite, find_test_sets, find_videos, parse_folder, result_folders
from utils.testing.presentation import FIGURES, check_no_figure_overwrite, write_page, write_set_figures
from utils.testing.result_files import SUMMARY, TABLE, PreviousRun, find_previous_run
from utils.testing.results import Results
from utils.testing.settings import NetworkSettings, RunSettings
from utils.testing.sources import ResultSource, find_sources
from utils.testing.summaries import print_comparison, print_published, print_summary
from utils.testing.videos import run_videos

_FOR_NETWORKS = ("weights", "modulation", "deform_op", "precision", "tile", "tile_overlap", "self_ensemble")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments; edit the defaults here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    # fmt: off
    add("--testset_dir", action="append", required=True, metavar="[KIND=]PATH",
        help="a folder of images in any layout of the README or of videos, an image or a video; may be given several "
             "times")
    add("--from_results", type=parse_folder, metavar="DIR",
        help="score the pictures of this folder, which any method made of the test images, instead of restoring")
    add("--blur_dir", default="blur",
        help="name of the blurry folders beside sharp/; the published numbers are for GoPro's blur, not its blur_gamma")
    add("--weights", type=Path, nargs="+", default=[BUNDLED], metavar="FILE",
        help="the deblurring network, a file of ours or the authors'; several are compared, each in its own folder")
    add("--modulation", choices=("auto", *MODULATIONS), default="auto",
        help="reading of module 0; auto is what the weights were trained for")
    add("--device", default="auto",
        help="auto (CUDA where there is one, else the CPU), cpu, cuda, cuda:1, ...; with torchrun auto gives each "
             "process a GPU of its own")
    add("--deform_op", choices=DEFORM_OPS, default="auto",
        help="back end of the deformable convolutions; auto is fused on the CPU and on GPUs from Hopper on, elsewhere "
             "mmcv if installed, else torchvision")
    add("--metrics", type=parse_metrics, default="default", metavar="NAMES",
        help="what to score by, separated by commas: default (the five PSNR and SSIM of the README), each of them, and "
             "through pyiqa lpips and niqe; niqe also scores images without ground truth")
    add("--precision", choices=PRECISIONS, default="fp32",
        help="number format of convolutions and products; report results in fp32, bf16 is faster")
    add("--tile", type=parse_tile, default="auto", metavar="auto|off|N",
        help="restore in overlapping tiles of N×N px; auto takes the largest that fit into memory, off the whole image")
    add("--tile_overlap", type=int, default=320,
        help="px that neighbouring tiles share: less is faster, too little shows as seams")
    add("--self_ensemble", action="store_true",
        help="restore the eight flips and rotations of each image and save their mean: eight times the work")
    add("--save_dir", type=parse_folder, default="results", help="where restored images and the scores go")
    add("--resume", action="store_true", help="go on with what an earlier run left in --save_dir")
    add("--overwrite", action="store_true", help="restore again what --save_dir already holds")
    add("--limit", type=whole(1), help="restore only the first so many images of each set")
    add("--num_workers", type=whole(1), default=min(16, os.cpu_count() or 1),
        help="threads that decode images while the network restores others, and as many that score and encode")
    add("--figures", type=whole(0), nargs="?", const=1, default=0, metavar="N",
        help="also save figures for publications of the first N images of each set (1 without a number)")
    add("--figure_blocks", type=parse_blocks, default="0,2,5", metavar="LIST",
        help="ASPDCs, 0 to 5, whose attention maps and offsets the figures show")
    # fmt: on
    args = parser.parse_args(argv)
    if args.from_results and (unused := _given(parser, argv, _FOR_NETWORKS)):
        parser.error(f"--from_results scores what is there, without a network: leave --{', --'.join(unused)} out")
    if args.resume and args.overwrite:
        parser.error("--resume goes on with earlier results, --overwrite replaces them: give one of the two")
    if args.tile_overlap not in range(0, 4097, GRID):
        parser.error(f"--tile_overlap should be a multiple of {GRID} from 0 to 4096")
    if isinstance(args.tile, int) and args.tile_overlap > args.tile // 2:
        parser.error(f"--tile_overlap should be at most half of --tile {args.tile}, not {args.tile_overlap}")
    return args


def _given(parser: argparse.ArgumentParser, argv: list[str] | None, names: Sequence[str]) -> list[str]:
    """Return those of the arguments that the command line itself names."""
    absent = object()
    parser.set_defaults(**dict.fromkeys(names, absent))
    args = parser.parse_args(argv)
    return [name for name in names if getattr(args, name) is not absent]


def validate_output_paths(
    sources: Sequence[ResultSource],
    image_sets: Sequence[ImageSet],
    videos: Mapping[Path, Path],
    output_dirs: Sequence[Path],
    from_results: bool,
    run: RunSettings,
    previous: PreviousRun,
) -> list[Path]:
    """Check all that is read and written, and delete what killed processes left; return what may be written over."""
    existing: list[Path] = []
    if from_results:
        if unpaired := [str(image_set.root) for image_set in image_sets if not image_set.paired]:
            raise UserError(f"--from_results scores against sharp images; {unpaired[0]} has none")
        if videos:
            raise UserError("--from_results scores images, not videos")
        for image_set, output_dir in zip(image_sets, output_dirs, strict=True):  # none may be missing
            sources[0].outputs(image_set, output_dir, run.save_dir, min(len(image_set), run.limit or len(image_set)))
    check_no_figure_overwrite(sources, image_sets, output_dirs, run, previous)
    for source in sources if not from_results else ():
        folders = [source.folder / output_dir.relative_to(run.save_dir) for output_dir in output_dirs]
        existing += check_no_overwrite(image_sets, folders, videos, source.folder, run, previous)
        # Of --save_dir itself, which may be anyone's folder, nothing further down is looked at.
        remove_stale((source.folder,), (folder for folder in folders if folder != source.folder))
    remove_stale((run.save_dir, run.save_dir / FILES), (run.save_dir / FIGURES,))
    return existing


def main(args: argparse.Namespace) -> None:
    """Find the images and check everything that can be wrong, then restore and score; torchrun calls it once a GPU."""
    run = settings_of(RunSettings, vars(args))
    with init_distributed(args.device, "--resume") as distributed, ExitStack() as until_the_end:
        previous = PreviousRun(args.save_dir)
        if distributed.is_main:
            until_the_end.enter_context(lock_output_dir(args.save_dir, "--save_dir"))
            previous = find_previous_run(args.save_dir, args.resume, args.overwrite)
        scorer = Scorer(args.metrics, distributed.device)
        sources, settings = find_sources(settings_of(NetworkSettings, vars(args)), distributed.device)
        for source in sources:
            if isinstance(source.restorer, Restorer):
                until_the_end.enter_context(source.restorer)
        image_sets = find_test_sets(args.testset_dir, args.blur_dir)
        output_dirs = result_folders(image_sets, args.save_dir)
        videos = find_videos(
            args.testset_dir, image_sets, [output_dir.relative_to(args.save_dir) for output_dir in output_dirs]
        )
        # Rows are told apart by the names of sets and images, which other folders may share.
        read = {
            "testset_dir": [str(parse_source(text)[1].resolve()) for text in args.testset_dir],
            "blur_dir": args.blur_dir,
            "metrics": list(args.metrics),
        }
        settings = {"version": __version__, **settings, **read}
        previous.check_same_settings(settings)
        existing = (
            validate_output_paths(sources, image_sets, videos, output_dirs, bool(args.from_results), run, previous)
            if distributed.is_main
            else []
        )
        check_writable(args.save_dir, "--save_dir")
        results = Results(args.save_dir, settings, previous) if distributed.is_main else None
        distributed.barrier()
        results = results or Results(args.save_dir, settings, rank=distributed.rank)
        if args.overwrite and existing:
            results.begin(*existing)  # should the run be stopped, what it was to replace is replaced when it goes on
        for image_set in image_sets:
            print(image_set.describe())
        problems = [problem for image_set in image_sets for problem in image_set.unreadable_dirs]
        incomplete: list[str] = []
        with interruption(
            "stopping after the image in hand; a second signal ends at once" * distributed.is_main
        ) as stop:
            for source in sources:
                for image_set, output_dir in zip(image_sets, output_dirs, strict=True):
                    problems += run_set(source, image_set, output_dir, scorer, run, results, distributed, stop)
                    if (name := source.set_name(output_dir.name)) in results.sets:
                        print_summary(name, results.sets[name])
                if distributed.is_main:
                    skipped, not_whole = run_videos(source, videos, run, results, stop)
                    problems += skipped
                    incomplete += not_whole
        for image_set, output_dir in zip(image_sets, output_dirs, strict=True):
            by_source = {source.name: results.sets.get(source.set_name(output_dir.name), {}) for source in sources}
            print_comparison(output_dir.name, by_source)
            if image_set.paired:
                print_published(image_set.kind)
            if distributed.is_main and args.figures:
                problems += write_set_figures(sources, image_set, output_dir, run, distributed.device)
        results.problems = list(dict.fromkeys(problems))
        if distributed.is_main:
            write_page(sources, image_sets, output_dirs, results)
            results.end()
        written = [name for name in (PAGE, TABLE, SUMMARY) if (args.save_dir / name).exists()]
        what = [] if args.from_results else ["what was restored"]
        print(f"\n{', '.join([*what, *written])} are in {args.save_dir}")
    messages = []
    for what, found in (
        ("files were left out", problems),
        ("videos are not whole, what is there was restored", incomplete),
    ):
        each = list(dict.fromkeys(found))  # several networks meet the same ones
        messages += ["\n  ".join([f"{len(each)} of the {what}:", *each])] if each else []
    if messages and distributed.is_main:
        raise UserError("\n".join(messages))


if __name__ == "__main__":
    with user_errors_end_the_program(), sigterm_as_exception():
        main(parse_args())

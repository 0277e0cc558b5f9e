"""Restore the images of benchmark folders, or any others, and score those that have ground truth.

python D_testing.py --testset_dir /data/GOPRO_Large                 # GoPro's test images with the paper's metrics
python D_testing.py --testset_dir /data/GOPRO_Large --testset_dir /data/HIDE
python D_testing.py --testset_dir my_photos --save_dir sharp        # no ground truth: restored and saved
python D_testing.py --testset_dir shaky.jpg --save_dir sharp
python D_testing.py --save_dir sharp -- *.jpg                       # whatever the names begin with
python D_testing.py --testset_dir /data --sets GoPro HIDE RealBlur_J
"""

import argparse
import os
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from datasets import SIDES, find_named_sets, parse_source
from models.aspdc import MODULATIONS
from models.checkpoint import BUNDLED
from models.ops.back_ends import DEFORM_OPS
from utils.common.arguments import MOST_WORKERS, ArgumentParser, folder_name, settings_of, whole
from utils.common.files import check_writable, exists, lock_output_dir
from utils.common.memory import keep_freed_memory
from utils.common.signals import Interruption, end_signals_as_exceptions, interruption
from utils.common.version import __version__
from utils.images.codecs import UnreadableError
from utils.images.saving import FORMATS, SaveSettings
from utils.inference.restorer import Restorer
from utils.inference.tiling import GRID, parse_tile
from utils.metrics.scorer import Scorer, metrics_of, parse_metrics
from utils.report.figure_files import parse_blocks
from utils.report.rows import PAGE
from utils.runtime.distributed import DistributedContext, init_distributed
from utils.runtime.precision import PRECISIONS
from utils.runtime.program_end import user_errors_end_the_program
from utils.testing.inputs import InputSet, find_inputs, parse_folder, parse_suffix
from utils.testing.outputs import check_outputs, remove_temporary_files
from utils.testing.presentation import write_page, write_set_figures
from utils.testing.result_files import SUMMARY, TABLE, PreviousRun, find_previous_run
from utils.testing.results import Results
from utils.testing.set_images import SetImages
from utils.testing.settings import NetworkSettings, RunSettings
from utils.testing.sources import ResultSource, find_sources
from utils.testing.summaries import print_published, print_summary, print_table
from utils.testing.videos import restore_videos

_OF_SAVING = ("output_format", "quality", "suffix", "strip_metadata")
_FOR_NETWORKS = (
    *("weights", "modulation", "deform_op", "precision", "tile", "tile_overlap", "self_ensemble"),
    *_OF_SAVING,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments; edit the defaults here."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    # fmt: off
    add("--testset_dir", nargs="+", action="extend", required=True, metavar="[KIND=]PATH",
        help="folders of images (layouts: docs/data.md) or videos; images; videos (the flag may be repeated, and what "
             "stands after -- at the end are such paths, too)")
    add("--sets", nargs="+", type=folder_name, metavar="NAME",
        help="test sets that lie side by side in --testset_dir, by their names: GoPro, HIDE, RealBlur_J, ... (default: "
             "--testset_dir is a set itself)")
    add("--from_results", type=parse_folder, metavar="DIR",
        help="score the images in this folder, which any method restored from the test images (default: restore)")
    add("--blur_dir", type=folder_name, default="blur",
        help="name of the folders of blurry images; published results use GoPro's blur, not blur_gamma")
    add("--sharp_dir", type=folder_name, default="sharp",
        help="name of the folders of their sharp partners, beside those of --blur_dir")
    add("--weights", type=Path, nargs="+", default=[BUNDLED], metavar="FILE",
        help="checkpoints of the deblurring network, ours or the authors'; several are compared, each with its own "
             "folder of results (default: final_model/DeblurringNet_NF.pth)")
    add("--modulation", choices=("auto", *MODULATIONS), default="auto",
        help="variant of module 0 (default: auto, the one that the weights were trained with)")
    add("--device", default="auto",
        help="auto, cpu, cuda, cuda:1, ..., mps; with torchrun, auto assigns one GPU to each process (default: auto, "
             "which is CUDA if available, else the CPU)")
    add("--deform_op", choices=DEFORM_OPS, default="auto",
        help="implementation of the deformable convolutions; fused by name runs on GPUs from Ampere on, and is "
             "tested first on all but Hopper (default: auto, which is fused on the CPU and on Hopper and newer GPUs, "
             "else mmcv if installed, else torchvision)")
    add("--metrics", type=parse_metrics, default="default", metavar="NAMES",
        help="metrics, separated by commas: default (the five of docs/metrics.md, of RealBlur psnr_aligned and "
             "ssim_aligned), any of these, psnr_y, ssim_y, and, through pyiqa, lpips and niqe; niqe also scores images "
             "without ground truth (default: default)")
    add("--crop_border", type=whole(0), default=0, metavar="N",
        help="px at each border of an image that do not count in its scores; published results count all of them")
    add("--precision", choices=PRECISIONS, default="fp32",
        help="number format of convolutions and matrix products; report results in fp32, bf16 is faster")
    add("--tile", type=parse_tile, default="auto", metavar="auto|off|N",
        help="restore in overlapping tiles of N×N px; auto chooses the largest that fit into memory, off restores "
             "whole images")
    add("--tile_overlap", type=int, default=320,
        help="overlap of neighbouring tiles in px: less is faster, too little leaves visible seams")
    add("--self_ensemble", action="store_true",
        help="average the results of the eight flips and rotations of each image: takes eight times as long")
    add("--save_dir", type=parse_folder, default="results", help="folder for restored images and scores")
    add("--output_format", type=lambda text: "jpeg" if text == "jpg" else text, choices=tuple(FORMATS), default="png",
        help="format of restored images; scores are those of the restored pixels, before JPEG or WebP")
    add("--quality", type=whole(1, 100), default=SaveSettings.quality, help="of JPEG and WebP, 1 to 100")
    add("--suffix", type=parse_suffix, default="", metavar="TEXT",
        help="what names of restored files get before their ending: --suffix=-sharp makes a-sharp.png of a.jpg "
             "(default: nothing)")
    add("--strip_metadata", action="store_true",
        help="save no EXIF, XMP, IPTC, other texts or pixel density, and of videos no metadata; what says which "
             "colours are meant stays")
    add("--resume", action="store_true", help="continue the run whose results are in --save_dir")
    add("--overwrite", action="store_true", help="replace existing results in --save_dir")
    add("--limit", type=whole(1), help="maximum number of images of each set, the first ones (default: no limit)")
    add("--num_workers", type=whole(1, limit=MOST_WORKERS), default=min(16, os.cpu_count() or 1),
        help="threads that decode images, and as many that score and encode them (default: the number of CPU cores, at "
             "most 16)")
    add("--figures", type=whole(0), nargs="?", const=1, default=0, metavar="N",
        help="save figures for publications of the first N images of each set; without N of the first one (default: 0)")
    add("--figure_blocks", type=parse_blocks, default="0,2,5", metavar="LIST",
        help="ASPDC blocks, 0 to 5, whose attention maps and offsets the figures show")
    # fmt: on
    absent = object()
    words = list(sys.argv[1:] if argv is None else argv)
    if "--" in words:
        words, paths = words[: words.index("--")], words[words.index("--") + 1 :]
        if paths and words[-1:] == ["--testset_dir"]:
            words.pop()
        words += [f"--testset_dir={path}" for path in paths]
    elif files := [word for word in words if word[:1] == "-" and exists(Path(word))]:
        parser.error(f"{files[0]} is a file: paths that begin with a dash stand at the end, after --")
    args = parser.parse_args(words, argparse.Namespace(**dict.fromkeys(_FOR_NETWORKS, absent)))
    given = [name for name in _FOR_NETWORKS if getattr(args, name) is not absent]
    for name in set(_FOR_NETWORKS) - set(given):
        setattr(args, name, parser.get_default(name))
    if args.from_results and given:
        parser.error(f"--from_results scores existing images, without a network: omit --{', --'.join(given)}")
    if args.output_format == "png" and "quality" in given:
        parser.error("--quality is of JPEG and WebP, PNG loses nothing: omit it, or give --output_format jpeg or webp")
    if args.output_format != "png" and args.figures:
        parser.error(f"--figures shows the saved images: omit it, or --output_format {args.output_format}")
    if args.sets and len(args.testset_dir) > 1:
        parser.error(f"--sets are found in one --testset_dir, not in {len(args.testset_dir)}: give one folder")
    if args.resume and args.overwrite:
        parser.error("--resume continues an earlier run, --overwrite replaces its results: give one of the two")
    if args.tile_overlap not in range(0, 4097, GRID):
        parser.error(f"--tile_overlap should be a multiple of {GRID} from 0 to 4096")
    if isinstance(args.tile, int) and args.tile_overlap > args.tile // 2:
        parser.error(f"--tile_overlap should be at most half of --tile {args.tile}, not {args.tile_overlap}")
    return args


def restore_set(
    source: ResultSource,
    inputs: InputSet,
    scorer: Scorer,
    run: RunSettings,
    results: Results,
    distributed: DistributedContext,
    stop: Interruption,
) -> None:
    """Restore, score and save this process's share of a set's images; threads read and write files in parallel.

    Args:
        source: restores the images.
        inputs: the set.
        scorer: scores them.
        run: settings of the run.
        results: receive the scores.
        distributed: the processes that share the set.
        stop: checked after each image; a request writes the scores and ends the program.

    Raises:
        UserError: something cannot be written, or there is not enough memory for the network.
    """
    name, title = source.set_name(inputs), source.set_title(inputs)
    images = SetImages(inputs, source, scorer, results, run.saving)
    share = results.share(name, inputs.images.names[: inputs.count])
    bar = tqdm(total=len(share), desc=title, unit="image", dynamic_ncols=True, disable=not distributed.is_main)
    with results.set_written(name, inputs) as problems, images.pipeline(run.num_workers) as pipeline, bar:

        def add_written(everything: bool = False) -> None:
            for row in (row for _, rows in pipeline.written(everything) for row in rows):
                bar.update()
                if isinstance(row, UnreadableError):
                    problems.append(str(row))
                    tqdm.write(f"skipped: {row}")
                else:
                    results.add(row)

        for batch, loaded in pipeline.read(images.batches(share), images.load):
            if stop.requested:
                break
            restored = images.restore(loaded)
            pipeline.write(batch, partial(images.score_and_save, loaded, restored))
            del loaded, restored  # the writing thread releases them
            add_written()
        add_written(everything=True)
    if distributed.any(stop.requested is not None):
        print(f"{title}: {len(results.of(name)):,} of {inputs.count:,} images are done; continue with --resume")
        stop.end()
    if name in results.sets:
        print_summary(title, results.sets[name])


def main(args: argparse.Namespace) -> None:
    """Find the images and check all inputs, then restore and score; torchrun calls this once per GPU."""
    keep_freed_memory()
    saving = settings_of(SaveSettings, vars(args))
    run = settings_of(RunSettings, {**vars(args), "saving": saving})
    given = args.testset_dir
    if args.sets:
        given = [str(path) for path in find_named_sets(Path(given[0]).expanduser(), args.sets)]
    with init_distributed(args.device, "--resume") as distributed, ExitStack() as until_the_end:
        if distributed.device.type == "cuda":
            torch.set_num_threads(1)  # more would compete with the threads that read and write images
        previous = PreviousRun(args.save_dir)
        if distributed.is_main:
            until_the_end.enter_context(lock_output_dir(args.save_dir, "--save_dir"))
            previous = find_previous_run(args.save_dir, args.resume, args.overwrite)
        scorer = Scorer(args.metrics, distributed.device, args.crop_border)
        sources, settings = find_sources(settings_of(NetworkSettings, vars(args)), distributed.device)
        for source in sources:
            if isinstance(source.restorer, Restorer):
                until_the_end.enter_context(source.restorer).compile_kernels(distributed)
        sides = (args.blur_dir, args.sharp_dir)
        inputs, videos = find_inputs(given, sides, args.save_dir, args.limit, args.sets or (), saving)
        kinds = [each.images.kind for each in inputs] or [""]  # of videos none
        # Rows are identified by the names of sets and images, which other folders may share.
        read = {
            "testset_dir": [str(parse_source(text)[1].resolve()) for text in given],
            "blur_dir": args.blur_dir,
            "sharp_dir": None if args.sharp_dir == SIDES[1] else args.sharp_dir,  # None in earlier versions
            "metrics": list(dict.fromkeys(name for kind in kinds for name in metrics_of(args.metrics, kind))),
            "crop_border": args.crop_border or None,
            **({"set_names": args.sets} if args.sets else {}),
            **saving.record(),
        }
        results = Results(args.save_dir, {"version": __version__, **settings, **read}, distributed)
        previous.check_same_settings(results.settings)
        existing: list[Path] = []
        if distributed.is_main:
            existing = check_outputs(sources, inputs, videos, run, previous)
            remove_temporary_files(sources, inputs, args.save_dir)
        check_writable(args.save_dir, "--save_dir")
        if distributed.is_main:
            results.continue_from(previous, replaced=existing if args.overwrite else ())
        distributed.barrier()

        for each in inputs:
            print(each.images.describe())
            results.problems += each.images.unreadable_dirs
        message = "stopping after the current image; a second signal stops at once"
        with interruption(message if distributed.is_main else "") as stop:
            for source in sources:
                for each in (each for each in inputs if each.count):  # not folders with only videos
                    restore_set(source, each, scorer, run, results, distributed, stop)
                if distributed.is_main:
                    restore_videos(source, videos, run, results, stop)

        print_table({each.title: {s.label: results.sets.get(s.set_name(each), {}) for s in sources} for each in inputs})
        print_published(results.sets.values())
        for each in inputs:
            if distributed.is_main and args.figures:
                results.problems += write_set_figures(sources, each, run, distributed.device)
        results.problems = list(dict.fromkeys(results.problems))  # several networks report the same ones
        if distributed.is_main:
            write_page(sources, inputs, results)
            results.end()
        written = [name for name in (PAGE, TABLE, SUMMARY) if (args.save_dir / name).exists()]
        what = [] if args.from_results else ["restored images"]
        print(f"\n{', '.join([*what, *written])} are in {args.save_dir}")
    if distributed.is_main:
        results.check_complete()


if __name__ == "__main__":
    with user_errors_end_the_program(), end_signals_as_exceptions():
        main(parse_args())

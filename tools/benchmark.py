"""Measure one piece of work in a chosen configuration and the baseline, alternately, in one process.

    python -m tools.benchmark --work deblur --size 720 1280 --precision bf16
    python -m tools.benchmark --work finetune_step --device cuda --batch 6 --size 256 256 --precision bf16
    python -m tools.benchmark --work data --frames data/GOPRO_Large --size 256 256
    python -m tools.benchmark --work training_run --device cuda --batch 6 --size 256 256 --precision bf16

The baseline is a direct transcription of the published networks: torchvision's deformable convolution, NCHW,
eager, fp32 and PyTorch's default flags; for data, decode both frames, warp them whole with albumentations, then crop.
training_run has none: it runs DR_training.py, and prints the step of each stage in the run and the recorded step alone.
deblur on the CPU has a third row where OpenVINO is installed: what that makes of the baseline, in the named precision.
Work of the networks has a rate: what the convolutions of all passes need, over the time; on an H100 or H200 also
the share of what the matrix units can do in 16 bits.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import torch

from models.blocks import MIN_SIZE
from models.ops.back_ends import DEFORM_OPS
from tools.benchmark_training import print_runs, run_training
from tools.benchmark_work import OPENVINO_MULTIPLE, WORKS, Configuration, baseline_configuration, openvino_deblur
from tools.profile import INPUTS, build, count
from utils.common.arguments import MAX_SIDE, MOST_WORKERS, ArgumentParser, whole
from utils.common.memory import peak_bytes, reset_peak
from utils.runtime.device import pick_deform_op, pick_device
from utils.runtime.precision import PRECISIONS, set_precision
from utils.runtime.program_end import user_errors_end_the_program

TRAINING_RUN = "training_run"
WIDTH = 32  # of the deblurring network
# Forward passes that cost as much as a piece of work: gradients of inputs are another pass, so are those of weights.
PASSES = {
    "deblur": {"deblur": 1},
    "reblur": {"reblur": 1},
    "deblur_step": {"deblur": 3},
    "reblur_step": {"reblur": 3},
    "finetune_step": {"deblur": 3, "reblur": 2},
}
# Dense bf16 and fp16, by a part of the device's name (data sheets of the SXM cards).
PEAK_FLOPS = {"H100": 989.4e12, "H200": 989.4e12}
WARMUP_RUNS = 3  # of each configuration: compilation, choice of algorithms, recording


@dataclass(frozen=True)
class Measurement:
    """Times of one configuration in s, and its peak memory in GiB (None if unknown)."""

    name: str
    median: float
    fastest: float
    slowest: float
    repeats: int
    peak_gib: float | None


def operations(work: str, batch: int, size: tuple[int, int]) -> float:
    """Return the floating-point operations of the convolutions in a piece of work, two for each multiply-accumulate."""
    total = 0
    for network, passes in PASSES.get(work, {}).items():
        costs = count(build(network, None, "torchvision"), INPUTS[network], *size)
        total += passes * sum(cost.macs for cost in costs.values())
    return 2.0 * batch * total


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = ArgumentParser(__doc__, prog="python -m tools.benchmark")
    add = parser.add_argument
    # fmt: off
    add("--work", choices=(*WORKS, TRAINING_RUN), required=True, help="work to measure")
    add("--device", default="auto",
        help="auto, cpu, cuda, cuda:1, ..., mps (default: auto, which is CUDA if available, else the CPU)")
    add("--precision", choices=PRECISIONS, default="fp32", help="number format of the measured configuration")
    add("--deform_op", choices=DEFORM_OPS, default="auto",
        help="implementation of the deformable convolutions (default: auto, the fastest that the device supports)")
    add("--size", type=whole(MIN_SIZE, limit=MAX_SIDE), nargs=2, default=(720, 1280), metavar=("H", "W"),
        help="height and width of the images or patches in px (default: 720 1280)")
    add("--batch", type=whole(1, limit=4096), default=1, help="images per run; for data, samples")
    add("--frames", type=Path, default=Path("samples/GOPRO"), help="data set of --work data and training_run")
    add("--steps", type=whole(8), default=400, help="steps of each stage of --work training_run")
    add("--processes", type=whole(1, limit=MOST_WORKERS), default=1,
        help="processes of --work training_run, with --batch patches each")
    add("--threads", type=whole(1, limit=MOST_WORKERS),
        help="CPU threads (default: PyTorch's choice, for data always one)")
    add("--repeats", type=whole(1), default=5, help="number of measurements of each configuration")
    add("--json", action="store_true", help="print JSON instead of a table")
    # fmt: on
    args = parser.parse_args(argv)
    if args.work in ("data", TRAINING_RUN) and args.size[0] != args.size[1]:
        parser.error(f"--work {args.work} makes square patches: give --size P P")
    return args


def _clock(run: Callable[[], object], device: torch.device) -> float:
    """Return how long one run takes in s, by the device's own clock where it has one."""
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    stream = torch.cuda.current_stream(device)
    start.record(stream)
    run()
    end.record(stream)
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1000


def _peak_gib(device: torch.device) -> float | None:
    peak = peak_bytes(device)
    return None if peak is None else peak / 2**30


def measure(
    runs: dict[str, tuple[Configuration, Callable[[], object]]], device: torch.device, repeats: int
) -> list[Measurement]:
    """Warm each configuration up, then run them alternately `repeats` times.

    A configuration's peak memory is that of all its runs: a replayed recording allocates nothing.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    peaks: dict[str, float | None] = {}
    warmup = WARMUP_RUNS if device.type == "cuda" else 1
    for repeat in range(-warmup, repeats):
        for name, (configuration, run) in runs.items():
            configuration.set_flags(device)
            reset_peak(device)
            seconds = _clock(run, device)
            peaks[name] = max(filter(None, (peaks.get(name), _peak_gib(device))), default=None)
            if repeat >= 0:
                times[name].append(seconds)
    return [Measurement(name, median(each), min(each), max(each), repeats, peaks[name]) for name, each in times.items()]


def print_table(measurements: list[Measurement], work: str, where: str, flop: float = 0.0) -> None:
    """Print the configurations below each other, with the ratio of the first one's time to each one's.

    Args:
        measurements: of each configuration.
        work: what was done.
        where: the device's name.
        flop: floating-point operations of the work, if known.
    """
    print(f"{work} on {where}")
    rate = f"{'TFLOP/s':>15}" if flop else ""
    print(f"{'configuration':34}{'median':>12}{'fastest':>12}{'slowest':>12}{'peak memory':>13}{'ratio':>8}{rate}")
    possible = next((flops for name, flops in PEAK_FLOPS.items() if name in where), None)
    for each in measurements:
        peak = "unknown" if each.peak_gib is None else f"{each.peak_gib:.2f} GiB"
        times = "".join(f"{value * 1000:9.2f} ms" for value in (each.median, each.fastest, each.slowest))
        if flop:
            share = f" ({flop / each.median / possible:.0%})" if possible else ""
            rate = f"{f'{flop / each.median / 1e12:.3g}{share}':>15}"
        print(f"{each.name:34}{times}{peak:>13}{measurements[0].median / each.median:7.2f}x{rate}")


def _named(work: str, deform_op: str, precision: str, device: torch.device) -> str:
    if work == "data":
        return "cached"
    plain = work == "reblur" and (deform_op != "fused" or device.type == "cpu")
    return f"channels_last, {precision}" if plain else f"{deform_op}, {precision}"


def measure_training(args: argparse.Namespace, configuration: Configuration, device: torch.device, what: str) -> None:
    """Run the script, then each stage's step alone, and print both."""
    size = tuple(args.size)
    runs = run_training(args.frames, args.batch, size[0], args.precision, device, args.steps, args.processes)
    steps = {run.stage: WORKS[f"{run.stage}_step"] for run in runs}
    alone = {
        stage: measure(
            {stage: (configuration, work(configuration, args.batch, size, device, args.frames))}, device, args.repeats
        )[0].median
        for stage, work in steps.items()
    }
    print_runs(runs, alone, what)


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    device = pick_device("cpu" if args.work == "data" else args.device)
    training = args.work not in ("deblur", "reblur")
    deform_op = pick_deform_op(args.deform_op, device, WIDTH, args.precision, training)
    set_precision(args.precision, device)
    if args.threads or args.work == "data":
        torch.set_num_threads(1 if args.work == "data" else args.threads)
    named = Configuration(deform_op, args.precision, channels_last=True)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    work = f"{args.work} {args.batch}×3×{args.size[0]}×{args.size[1]}, torch {torch.__version__}"
    if args.work == TRAINING_RUN:
        measure_training(args, named, device, f"{work}, {args.precision}, {args.processes} of {where}")
        return
    configurations = {"baseline": baseline_configuration()}
    if device.type == "cuda" and args.precision == "fp32":  # the default flags allow TF32 in convolutions
        configurations["baseline, no TF32"] = baseline_configuration("fp32")
    configurations[_named(args.work, deform_op, args.precision, device)] = named
    runs = {
        name: (configuration, WORKS[args.work](configuration, args.batch, tuple(args.size), device, args.frames))
        for name, configuration in configurations.items()
    }
    peer = args.work == "deblur" and device.type == "cpu" and find_spec("openvino")
    if peer and any(side % OPENVINO_MULTIPLE for side in args.size):
        print(f"OpenVINO is left out: it takes sizes that are multiples of {OPENVINO_MULTIPLE}", file=sys.stderr)
    elif peer:
        run, difference = openvino_deblur(args.precision, args.batch, tuple(args.size))
        runs[f"OpenVINO, differs by {difference:.1e}"] = baseline_configuration(), run
    measurements, flop = measure(runs, device, args.repeats), operations(args.work, args.batch, tuple(args.size))
    if args.json:
        results = [asdict(each) for each in measurements]
        print(json.dumps({"work": work, "device": where, "flop": flop, "results": results}, indent=2))
    else:
        print_table(measurements, work, where, flop)


if __name__ == "__main__":
    with user_errors_end_the_program():
        main(parse_args())

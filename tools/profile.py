"""What a network costs: parameters, multiply-accumulates, memory and time of each of its parts.

python -m tools.profile                                    # the deblurring network at 256×256 and 720×1280
python -m tools.profile --network reblur --size 512 512 --device cuda --precision bf16
"""

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models import DeblurringNet, ReblurringNet
from models.blocks import MIN_SIZE
from models.ops.back_ends import DEFORM_OPS
from utils.common.arguments import ArgumentParser, whole
from utils.common.memory import peak_bytes, reset_peak
from utils.runtime.device import pick_deform_op, pick_device
from utils.runtime.precision import PRECISIONS, autocast, set_precision
from utils.runtime.program_end import user_errors_end_the_program

NETWORKS = ("deblur", "reblur")
INPUTS = {"deblur": 1, "reblur": 2}
STRIDES = {1: 4, 2: 8}  # sizes are padded to multiples of it, by the number of inputs
DEFAULT_WIDTH = 32
_SIZES = ((256, 256), (720, 1280))
_COUNTED = 32  # px


@dataclass
class Cost:
    """Of a part: parameters, multiply-accumulates of its convolutions, seconds, and bytes on top of what was taken."""

    parameters: int = 0
    macs: int = 0
    seconds: float = 0.0
    bytes: int = 0


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = ArgumentParser(__doc__, prog="python -m tools.profile")
    add = parser.add_argument
    # fmt: off
    add("--network", choices=NETWORKS, default="deblur", help="network to measure")
    add("--size", type=whole(MIN_SIZE, limit=1_000_000), nargs=2, metavar=("H", "W"),
        help="height and width of the input in px (default: 256 256, then 720 1280)")
    add("--width", type=whole(1, limit=512),
        help="channels at full resolution (default: the paper's, 32 to deblur and 16 to reblur)")
    add("--device", default="auto",
        help="auto, cpu, cuda, cuda:1, ... (default: auto, which is CUDA if available, else the CPU)")
    add("--deform_op", choices=DEFORM_OPS, default="auto",
        help="implementation of the deformable convolutions (default: auto, the fastest that the device supports)")
    add("--precision", choices=PRECISIONS, default="fp32", help="number format of convolutions and matrix products")
    add("--no_time", action="store_true",
        help="only count parameters and multiply-accumulates; measure no time or memory")
    # fmt: on
    return parser.parse_args(argv)


def build(network: str, width: int | None, deform_op: str = "auto") -> nn.Module:
    """Return a network with random weights in eval mode."""
    if network == "deblur":
        built = DeblurringNet(deform_op=deform_op) if width is None else DeblurringNet(width, deform_op=deform_op)
    else:
        built = ReblurringNet(deform_op=deform_op) if width is None else ReblurringNet(width, deform_op)
    return built.eval()


def count(network: nn.Module, inputs: int, height: int, width: int) -> dict[str, Cost]:
    """Return parameters and multiply-accumulates of a network's parts for one image, by the parts' names.

    Convolutions and deformable convolutions are counted (output values × weights that make each), as is usual for
    this family; sampling, activations, additions and the dynamic filter are not. All of it is proportional to the
    pixels, so a small image is computed and its counts are scaled.

    Args:
        network: on the CPU, with torchvision's operator.
        inputs: how many (1, 3, height, width) images it reads.
        height: in px.
        width: in px.
    """
    costs: dict[str, Cost] = defaultdict(Cost)
    for name, parameter in network.named_parameters():
        costs[name.partition(".")[0]].parameters += parameter.numel()

    def hook(name: str) -> Callable[..., None]:
        def add(layer: nn.Conv2d | nn.ConvTranspose2d, given: tuple[Tensor, ...], output: Tensor) -> None:
            positions = given[0] if isinstance(layer, nn.ConvTranspose2d) else output
            costs[name.partition(".")[0]].macs += positions.shape[-2] * positions.shape[-1] * layer.weight.numel()

        return add

    hooks = [
        layer.register_forward_hook(hook(name))
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    ]
    with torch.no_grad():
        network(*torch.zeros(inputs, 1, 3, _COUNTED, _COUNTED))
    for handle in hooks:
        handle.remove()
    stride = STRIDES[inputs]
    scale = math.ceil(height / stride) * math.ceil(width / stride) * stride**2 / _COUNTED**2
    for cost in costs.values():
        cost.macs = round(cost.macs * scale)
    return dict(costs)


def measure(
    network: nn.Module, inputs: int, height: int, width: int, device: torch.device, precision: str
) -> tuple[dict[str, Cost], Cost]:
    """Return seconds and peak memory of the parts that are called by themselves, and of the whole, after a warm-up.

    Memory is what a part took on top of what was taken before; on the CPU that is zero where freed memory is used
    again. Launched part by part: on a GPU, where the whole is else replayed from a recording, the sum is larger than
    `tools.benchmark` measures.
    """
    costs: dict[str, Cost] = defaultdict(Cost)
    begun: dict[str, tuple[float, int]] = {}

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def begin(name: str) -> None:
        before = now()
        reset_peak(device)
        begun[name] = before, peak_bytes(device) or 0

    def end(name: str) -> None:
        before, base = begun.pop(name)
        costs[name].seconds += now() - before
        costs[name].bytes = max(costs[name].bytes, (peak_bytes(device) or 0) - base)

    images = torch.rand(inputs, 1, 3, height, width, device=device) * 2 - 1
    images = [image.to(memory_format=torch.channels_last) for image in images]
    # PyTorch's types lack memory_format.
    network.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    with torch.inference_mode(), autocast(precision, device):
        network(*images)
        begin("whole")
        network(*images)
        end("whole")
        memory = costs.pop("whole").bytes
        hooks = []
        for part, module in network.named_children():
            for each in module if isinstance(module, nn.ModuleList) else [module]:
                hooks.append(each.register_forward_pre_hook(lambda *_, part=part: begin(part)))
                hooks.append(each.register_forward_hook(lambda *_, part=part: end(part)))
        start = now()
        network(*images)
        whole = Cost(seconds=now() - start, bytes=memory)
    for handle in hooks:
        handle.remove()
    return dict(costs), whole


def report(args: argparse.Namespace, device: torch.device, height: int, width: int) -> None:
    """Print a table of a network's parts at one size."""
    inputs = INPUTS[args.network]
    counted = count(build(args.network, args.width, "torchvision"), inputs, height, width)
    measured: dict[str, Cost] = {}
    whole: Cost | None = None
    if not args.no_time:
        deform_op = pick_deform_op(args.deform_op, device, args.width or DEFAULT_WIDTH, args.precision, training=False)
        network = build(args.network, args.width, deform_op)
        measured, whole = measure(network, inputs, height, width, device, args.precision)
    print(f"{args.network}, 1×3×{height}×{width}, {args.precision} on {device}")
    print(f"{'part':14}{'parameters':>12}{'GMACs':>10}" + (f"{'ms':>10}{'peak MiB':>10}" if measured else ""))

    def line(name: str, cost: Cost, time: Cost | None) -> None:
        numbers = f"{name:14}{cost.parameters:12,}{cost.macs / 1e9:10.2f}"
        print(numbers + (f"{1000 * time.seconds:10.1f}{time.bytes / 2**20:10.0f}" if time else ""))

    for name, cost in counted.items():
        line(name, cost, measured.get(name))
    total = Cost(sum(c.parameters for c in counted.values()), sum(c.macs for c in counted.values()))
    if whole is not None:
        rest = whole.seconds - sum(cost.seconds for cost in measured.values())
        print(f"{'between them':14}{'':22}{1000 * rest:10.1f}")
    line("all", total, whole)


def main(args: argparse.Namespace) -> None:
    """Print a table for each size."""
    device = pick_device(args.device)
    set_precision(args.precision, device)
    for height, width in [args.size] if args.size else _SIZES:
        report(args, device, height, width)


if __name__ == "__main__":
    with user_errors_end_the_program():
        main(parse_args())

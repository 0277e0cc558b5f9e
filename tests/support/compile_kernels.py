"""Compile the Triton kernels for a GPU that is not here, as the networks' own launches ask for them.

python -m tests.support.compile_kernels networks 86 bf16    # or aspdc, blocks, narrow; compute capability, precision

The networks run on tensors without values (device meta), inference and a training step, and Triton's own launcher finds
the types, alignments and constants of each kernel. Prints a line for each: what it needs of the GPU.
"""

import argparse
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from unittest import mock

import torch
import triton
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode
from triton import knobs
from triton.backends.compiler import GPUTarget

from models import ASPDC, DeblurringNet, ReblurringNet
from models.blocks import Conv, ConvLReLU, ResBlock, Sequential
from models.ops.common import launch
from utils.runtime.precision import PRECISIONS

# What is launched, and the shapes of its inputs: those of a training step of the paper's width.
WORKS = {
    "networks": [(DeblurringNet, [(6, 3, 256, 256)]), (ReblurringNet, [(6, 3, 256, 256)] * 2)],
    "aspdc": [(partial(ASPDC, 128), [(6, 128, 64, 64)])],
    "blocks": [(lambda: Sequential({0: ConvLReLU(128, 128), 1: ResBlock(128)}), [(6, 128, 64, 64)])],
    "narrow": [
        (lambda: Sequential({0: ConvLReLU(32, 32), 1: ResBlock(32)}), [(6, 32, 256, 256)]),
        (lambda: Conv(32, 3, output_fp32=True), [(6, 32, 256, 256)]),
    ],
}
CAPABILITIES = (80, 86, 89, 90, 100, 120)
SHORT = {"bf16": torch.bfloat16, "fp16": torch.float16}


class AbsentGPU:
    """What Triton asks its driver when it compiles."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


class Launches(TorchDispatchMode):
    """Runs what our operations do on CUDA, where PyTorch would only ask for the shapes of their results."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.namespace.startswith("aspdc_"):
            return func(*args, **kwargs or {})
        with self:
            return OPDEFS[func._schema.name]._init_fn(*args, **kwargs or {})


def launch_all(work: str, capability: int, precision: str) -> None:
    """Run inference and a training step, whose launches only compile."""
    torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
    torch.set_autocast_enabled("cuda", precision in SHORT)
    torch.set_autocast_dtype("cuda", SHORT.get(precision, torch.float16))
    softmax = torch.softmax
    major, minor = divmod(capability, 10)
    gpu = SimpleNamespace(major=major, minor=minor, multi_processor_count=132)
    with (
        mock.patch.object(launch, "_only_compiles", True),
        mock.patch("models.ops.back_ends._device_problem", return_value=None),
        mock.patch("torch.cuda.get_device_capability", return_value=(major, minor)),
        mock.patch("torch.cuda.get_device_properties", return_value=gpu),
        mock.patch("torch.softmax", lambda x, dim: softmax(x.float(), dim)),  # as autocast has it, for CUDA alone
        torch.device("meta"),
        Launches(),
    ):
        for make, shapes in WORKS[work]:
            network = make()
            network.deform_op = "fused"
            inputs = [torch.empty(shape) for shape in shapes]
            with torch.no_grad():
                network(*inputs)
            network(*inputs).sum().backward()


def usage(kernel: triton.compiler.CompiledKernel) -> tuple[int, int]:
    """Return the registers of a thread, and the bytes that it keeps in memory for lack of more, from the binary."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", text).groups()
    return int(registers), int(stack)


def main() -> None:
    """Compile and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.compile_kernels", description=__doc__)
    parser.add_argument("work", choices=WORKS, help="whose kernels")
    parser.add_argument("capability", type=int, choices=CAPABILITIES, help="of the GPU, 86 for 8.6")
    parser.add_argument("precision", choices=PRECISIONS, help="number format of the work")
    args = parser.parse_args()
    triton.runtime.driver.set_active(AbsentGPU(args.capability))
    with ThreadPoolExecutor(2) as pool, triton.AsyncCompileMode(pool) as mode:
        launch_all(args.work, args.capability, args.precision)
    for kernel in (future.result() for future in mode.future_kernels.values()):
        registers, stack = usage(kernel)
        needs = f"{kernel.metadata.shared} bytes shared, {registers} registers, {stack} bytes spilled"
        print(f"Triton {triton.__version__}, {args.capability}, {args.precision}: {kernel.name}, {needs}")


if __name__ == "__main__":
    main()

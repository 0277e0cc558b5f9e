"""Compile every Triton kernel, as the networks of the paper's width launch it, for GPUs that are not here.

python -m tests.support.compile_kernels 80 86     # compute capabilities; prints a line for each kernel
"""

import sys
from contextlib import ExitStack
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.tools.tensor_descriptor import TensorDescriptor

from models.ops.aspdc_sum import triton_launch as aspdc_sum
from models.ops.common.launch import product_precision
from models.ops.conv import triton_launch as conv
from models.ops.conv.weights import PREDICTOR_ROWS, kernel_layout
from models.ops.dynamic_filter import triton_launch as dynamic_filter

TYPES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int32: "i32",
    torch.int64: "i64",
}
SHARED_MEMORY = {80: 163, 86: 99, 89: 99, 100: 227, 120: 99}  # KiB a program; CUDA's programming guide
# Channels in and out, stride, transposed or not: those of the networks that launch differently.
CONVOLUTIONS = ((3, 32, 1, False), (32, 64, 2, False), (128, 128, 1, False), (64, 32, 2, True), (32, 3, 1, False))
Launch = tuple[triton.JITFunction, dict[str, object]]


def launches(dtype: torch.dtype) -> list[Launch]:
    """Return the launches of all operations on tensors of a type, none of which is run."""
    found: list[Launch] = []

    def record(kernel, grid):
        def launch(*arguments, **named):
            found.append((kernel, dict(zip(kernel.arg_names, arguments, strict=False)) | named))

        return launch

    with ExitStack() as stack:
        for module in (aspdc_sum, conv, dynamic_filter):
            stack.enter_context(mock.patch.object(module, "launcher", record))
        n, c, h, w = 1, 128, 16, 16

        def zeros(*shape):
            return torch.zeros(shape, dtype=dtype)

        f, maps, attention = (
            zeros(n, c, h, w),
            [torch.zeros(n, k, h, w) for k in (9, 27, 27, 27)],
            torch.zeros(n, 4, h, w),
        )
        weight, bias = zeros(c, 36 * c), zeros(4, c)
        aspdc_sum.forward_launch(f, *maps, attention, weight, bias, product_precision(dtype))
        aspdc_sum.backward_launch(f, f, *maps, attention, weight, bias, True, True, False)
        conv.predict_launch(f, zeros(3 * PREDICTOR_ROWS, 9 * c), torch.zeros(3 * PREDICTOR_ROWS))
        conv.activation_grad_launch(f, f, 0.2, c, dtype, True)
        for inputs, outputs, stride, transposed in CONVOLUTIONS:
            kernel_weight = kernel_layout(
                zeros(*((inputs, outputs) if transposed else (outputs, inputs)), 3, 3), transposed
            )
            x, bias = zeros(n, inputs, h, w), zeros(outputs)
            conv.conv_launch(x, kernel_weight, bias, None, stride, 1, 1, transposed, 0.2, dtype)
        x = zeros(n, 32, h, w)
        dynamic_filter.filter_launch(x, zeros(n, 9, h, w))
        dynamic_filter.filter_backward_launch(x, x, zeros(n, 9, h, w))
    return found


def compiled(launch: Launch, capability: int) -> object:
    """Compile a launch's kernel for a compute capability, such as 86."""
    kernel, arguments = launch
    constants = {p.name: arguments[p.name] for p in kernel.params if p.is_constexpr}
    signature = {n: "constexpr" if n in constants else _type_of(arguments[n]) for n in kernel.arg_names}
    options = {name: value for name, value in arguments.items() if name not in signature}
    return triton.compile(
        ASTSource(kernel, signature, constants), target=GPUTarget("cuda", capability, 32), options=options
    )


def _type_of(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"*{TYPES[value.dtype]}"
    if isinstance(value, TensorDescriptor):
        return f"tensordesc<{TYPES[value.base.dtype]}[{','.join(map(str, value.block_shape))}]>"
    assert isinstance(value, int)
    return "i32"


def main(capabilities: list[int]) -> None:
    """Compile all kernels for each capability; raise an error where one does not compile or needs too much memory."""
    for dtype in (torch.bfloat16, torch.float32):  # fp32 by three TF32 products, which need the most memory
        # What takes seconds a kernel: fp32 where there is least memory, and on the oldest.
        chosen = [each for each in capabilities if dtype == torch.bfloat16 or each in (80, 86, 120)]
        for launch in launches(dtype):
            for capability in chosen:
                shared = compiled(launch, capability).metadata.shared
                name = launch[0].__name__
                print(f"Triton {triton.__version__}, {capability}, {TYPES[dtype]}: {name}, {shared} bytes", flush=True)
                assert shared <= SHARED_MEMORY[capability] * 1024, name


if __name__ == "__main__":
    main([int(capability) for capability in sys.argv[1:]])

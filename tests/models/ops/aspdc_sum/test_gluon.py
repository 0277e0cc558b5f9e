"""Where the product by warps of two kinds is chosen, and that it has the bits of `product_kernel`."""

import sys
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from tests.support.triton_device import DEVICE, GPU  # skips this file where the kernels cannot run

# isort: split
from models.ops.aspdc_sum import triton_launch
from models.ops.aspdc_sum.op import aspdc_sum_cuda, stack_weights
from models.ops.aspdc_sum.triton_forward import product_kernel
from models.ops.aspdc_sum.triton_records import locate_kernel
from tests.support.aspdc_cases import arguments, make_case

HOPPER = GPU and triton_launch.gluon_runs(torch.device("cuda"))


def on_device(case, dtype):
    """Return a case in channels_last memory; maps and attention stay in fp32, as in autocast."""
    kept = ("map", "attention")
    return {
        name: tensor.to(
            DEVICE,
            tensor.dtype if name.startswith(kept) else dtype,
            memory_format=torch.channels_last if tensor.dim() == 4 else torch.preserve_format,
        )
        for name, tensor in case.items()
    }


def fused(case):
    *inputs, weights, biases = arguments(case)
    return aspdc_sum_cuda(*inputs, weights, biases, *stack_weights(weights, biases, case["f"].dtype))


@pytest.mark.parametrize(
    ("change", "dtype", "expected"),
    [
        ({}, torch.bfloat16, "gluon"),
        ({}, torch.float16, "gluon"),
        ({}, torch.float32, product_kernel),
        ({"channels": 64}, torch.float16, product_kernel),
        ({"out": 64}, torch.float16, product_kernel),
        ({"offset": 4}, torch.float16, product_kernel),
        ({"offset": 8}, torch.float16, "gluon"),
        ({"config": {"num_warps": 8}}, torch.float16, product_kernel),
    ],
)
def test_what_fits_takes_it(change, dtype, expected, monkeypatch):
    given = {"channels": 128, "out": 128, "offset": 0, "config": None} | change
    launched = []
    monkeypatch.setattr(triton_launch, "gluon_runs", lambda device: True)
    module = SimpleNamespace(launch_product=lambda *_: launched.append("gluon"))
    monkeypatch.setitem(sys.modules, "models.ops.aspdc_sum.gluon_product", module)
    monkeypatch.setattr(triton_launch, "launcher", lambda kernel, grid: lambda *_, **__: launched.append(kernel))
    monkeypatch.setattr(triton_launch, "has_copy_engine", lambda device: True)
    shape = (2, 9, 7, given["channels"])
    memory = torch.empty(torch.Size(shape).numel() + given["offset"], dtype=dtype)
    f = memory[given["offset"] :].view(shape).permute(0, 3, 1, 2)
    maps, attention = [torch.empty(2, 27 if i else 9, 9, 7) for i in range(4)], torch.empty(2, 4, 9, 7)
    weight = torch.empty(given["out"], 36 * given["channels"], dtype=dtype)
    bias = torch.empty(4, given["out"], dtype=dtype)
    triton_launch.forward_launch(f, *maps, attention, weight, bias, "tf32", given["config"])
    assert launched == [locate_kernel, expected]


def test_strides_of_a_single_pixel_do_not_matter(monkeypatch):
    gluon_product = pytest.importorskip("models.ops.aspdc_sum.gluon_product", exc_type=ImportError)  # experimental

    given = []
    monkeypatch.setattr(gluon_product, "launcher", lambda kernel, grid: lambda *each, **_: given.extend(each))
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: SimpleNamespace(multi_processor_count=2))
    f = torch.arange(256, dtype=torch.bfloat16).view(2, 128, 1, 1)  # also in channels_last memory, as PyTorch sees it
    records, weight = torch.empty(36, 128, dtype=torch.int32), torch.empty(128, 36 * 128, dtype=torch.bfloat16)
    gluon_product.launch_product(f, records, None, weight, None, (), None, None, 1, 1)
    assert given[0].dtype == torch.int32
    assert (given[0].data_ptr(), given[0].numel()) == (f.data_ptr(), 128)


def test_indices_in_the_batch_are_those_in_an_image_and_its_first_pixel():
    case = on_device(make_case(batch=2, height=5, width=9), torch.float32)
    f, maps, attention, *_ = arguments(case)
    in_image, _ = triton_launch.locate(maps, attention, f.shape, 8, 8)
    in_batch, _ = triton_launch.locate(maps, attention, f.shape, 8, 8, batch=True)
    # Two tiles an image, of which the right one has one column inside.
    y, x = (torch.arange(64, device=DEVICE) // 8).repeat(2), torch.arange(64, device=DEVICE) % 8
    inside = (y < 5) & (torch.cat([x, x + 8]) < 9)
    assert torch.equal(in_batch[:, :128], in_image[:, :128])
    assert torch.equal(in_batch[:, 128:], in_image[:, 128:] + inside * (4 * 5 * 9))


# Tiles of 8x8 px: one, an odd number, more than an H200 has multiprocessors, pairs of them of two images.
CASES = {
    "one pixel": {"batch": 1, "height": 1, "width": 1},
    "three images of three tiles": {"batch": 3, "height": 23, "width": 5},
    "odd size": {"batch": 1, "height": 37, "width": 53},
    "offsets beyond every border": {"batch": 2, "height": 45, "width": 31, "reach": 60.0},
    "exactly on the borders": {"batch": 2, "height": 16, "width": 24, "offsets": 2.0},
    "a training step's": {"batch": 6, "height": 64, "width": 64},
    "a frame's": {"batch": 1, "height": 180, "width": 320, "reach": 4.0},
    "two frames'": {"batch": 2, "height": 179, "width": 321, "reach": 4.0},
}


@pytest.mark.gpu
@pytest.mark.skipif(not HOPPER, reason="needs a GPU of compute capability 9 and Triton 3.6 or 3.7")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CASES)
def test_has_the_bits_of_the_other_kernel(name, dtype, monkeypatch):
    from models.ops.aspdc_sum import gluon_product

    case = on_device(make_case(channels=128, out=128, **CASES[name]), dtype)
    with mock.patch(
        "models.ops.aspdc_sum.gluon_product.launch_product", wraps=gluon_product.launch_product
    ) as launched:
        ours = [fused(case) for _ in range(3)]
    assert launched.call_count == 3
    monkeypatch.setattr(triton_launch, "gluon_runs", lambda device: False)
    expected = fused(case)
    for each in ours:
        assert torch.equal(each, expected)

"""Inputs of the ASPDC sum, and its result by its definition and by torchvision's deformable convolution."""

import torch
from torchvision.ops import deform_conv2d

from models.ops.aspdc_sum.reference import MODULES, weighted_sum


def make_case(batch=2, channels=16, out=16, height=7, width=9, reach=2.0, dtype=torch.float32, offsets=None):
    """Return named tensors; the first module has no offsets. `offsets` replaces the random ones by one value."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    case = {"f": randn(batch, channels, height, width), "attention": randn(batch, MODULES, height, width).softmax(1)}
    for i in range(MODULES):
        logits = randn(batch, 9, height, width)
        case[f"weight{i}"] = randn(out, channels, 3, 3) / (9 * channels) ** 0.5
        case[f"bias{i}"] = randn(out)
        random = reach * randn(batch, 18, height, width)
        offset = random if offsets is None else torch.full_like(random, offsets)
        case[f"map{i}"] = torch.cat([offset, logits], 1) if i else logits
    return case


def arguments(case):
    """Return (f, maps, attention, weights, biases)."""
    maps, weights, biases = ([case[f"{name}{i}"] for i in range(MODULES)] for name in ("map", "weight", "bias"))
    return case["f"], maps, case["attention"], weights, biases


def reference(case):
    return weighted_sum(*arguments(case))


def by_torchvision(case):
    total = 0
    for i in range(MODULES):
        offset, logits = case[f"map{i}"][:, :-9], case[f"map{i}"][:, -9:]
        offset = offset if i else torch.zeros_like(torch.cat([logits, logits], 1))
        each = deform_conv2d(
            case["f"], offset, case[f"weight{i}"], case[f"bias{i}"], padding=1, mask=torch.sigmoid(logits)
        )
        total = total + case["attention"][:, i : i + 1] * each
    return total


def relative_error(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm().clamp_min(1e-30)).item()

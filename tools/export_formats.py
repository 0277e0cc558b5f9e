"""The kinds of file that the deblurring network is exported to: how each is written and read."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torchvision.ops  # noqa: F401 registers torch.ops.torchvision; while a network is recorded it is too late
from torch import Tensor, nn

from models import DeblurringNet
from models.blocks import MIN_SIZE
from models.checkpoint import load_deblurring_net
from models.deblurring_net import STRIDE
from utils.common.errors import UserError

OPSET = 20  # DeformConv has been a standard operator since 19
FIRST_RUNTIME = "1.25"  # the first ONNX Runtime with DeformConv on the CPU
# px. torch.export takes a side of 1 for a case of its own, and the released module 0 has a map of H/4 - 2 rows.
MIN_EXPORTED_SIDE = {"aligned": MIN_SIZE, "released": 13}
_RECORDED_AT = (2, 3, 20, 28)  # torch.export would take 1 for a constant, and equal sides for one variable
_METADATA_FILE = "metadata.json"

Metadata = dict[str, str | int]
Function = Callable[[Tensor], Tensor]


class OperatorMissingError(UserError):
    """The installed ONNX Runtime lacks an operator of a model that is valid."""


class AnySize(nn.Module):
    """A deblurring network whose padding and cropping can be recorded as functions of the size, not as numbers.

    From `MIN_EXPORTED_SIDE` px on it computes what the network does. The network's own padding, whose branches a
    recording would freeze, finds nothing left to do.
    """

    def __init__(self, network: DeblurringNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, blurry: Tensor) -> Tensor:
        """Return the deblurred images; (N, 3, H, W) RGB in [-1, 1] -> the same shape, not clamped."""
        # All by indices: of slices torch.export wants a proof that a size is at most itself rounded up, which it
        # cannot find. TorchScript makes these indices on the CPU wherever it runs; that indexing takes, index_select
        # would not.
        height, width = blurry.shape[-2:]
        padded = blurry[:, :, _mirrored(height)][:, :, :, _mirrored(width)]
        return self.network(padded)[:, :, torch.arange(height)][:, :, :, torch.arange(width)]


def _mirrored(size: int) -> Tensor:
    """Return the indices that pad a side of `size` px at its end, by reflection, to a multiple of the stride."""
    last, padded = size - 1, (size + STRIDE - 1) // STRIDE * STRIDE
    return last - (last - torch.arange(padded)).abs()


def _free_sizes(network: AnySize) -> dict[str, dict[int, Any]]:
    """Return the sizes of the input that torch.export is to leave open, by their axes."""
    smallest = MIN_EXPORTED_SIDE[network.network.arguments["modulation"]]
    dim = torch.export.Dim
    return {"blurry": {0: dim("batch", min=1), 2: dim("height", min=smallest), 3: dim("width", min=smallest)}}


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return ONNX's counterparts of the operators that PyTorch's exporter does not know."""
    from onnxscript import FLOAT, INT64, opset20  # pyright: ignore[reportMissingImports] (optional)

    def deform_conv2d(  # torchvision's arguments
        x: FLOAT,
        weight: FLOAT,
        offset: FLOAT,
        mask: FLOAT,
        bias: FLOAT,
        stride_h: int,
        stride_w: int,
        pad_h: int,
        pad_w: int,
        dilation_h: int,
        dilation_w: int,
        groups: int,
        offset_groups: int,
        use_mask: bool,
    ) -> FLOAT:
        return opset20.DeformConv(  # pyright: ignore[reportReturnType] (by onnxscript's types it may be None)
            x,
            weight,
            offset,
            bias,
            mask,
            dilations=[dilation_h, dilation_w],
            group=groups,
            offset_group=offset_groups,
            pads=[pad_h, pad_w, pad_h, pad_w],
            strides=[stride_h, stride_w],
        )

    def remainder(x: INT64, divisor: INT64) -> INT64:  # the exporter's own takes constant divisors alone
        return opset20.Mod(x, divisor)  # pyright: ignore[reportReturnType] (by onnxscript's types it may be None)

    return {torch.ops.torchvision.deform_conv2d.default: deform_conv2d, torch.ops.aten.remainder.Scalar: remainder}


def to_onnx(network: AnySize, metadata: Metadata) -> bytes:
    """Return the network as an ONNX model with the standard's DeformConv; `metadata` are its metadata properties."""
    import onnx  # pyright: ignore[reportMissingImports] (optional)

    program = torch.onnx.export(
        network,
        (torch.zeros(_RECORDED_AT),),
        dynamo=True,
        dynamic_shapes=_free_sizes(network),
        input_names=["blurry"],
        output_names=["deblurred"],
        opset_version=OPSET,
        custom_translation_table=_translations(),
        external_data=False,
        verbose=False,
    )
    assert program is not None  # it is but where a file is named
    for node in program.model.graph:
        node.metadata_props.clear()  # traces with the paths of this machine's files
    program.model.metadata_props.update({name: str(value) for name, value in metadata.items()})
    model = program.model_proto
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def load_onnx(path: Path) -> Function:
    """Return an ONNX model as a function, which ONNX Runtime computes on the CPU.

    Raises:
        OperatorMissingError: it cannot.
    """
    import onnxruntime  # pyright: ignore[reportMissingImports] (optional)
    from onnxruntime.capi.onnxruntime_pybind11_state import (  # pyright: ignore[reportMissingImports] (optional)
        NotImplemented as NoKernel,
    )

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised as well
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except NoKernel as error:
        reason = str(error).rpartition(" : ")[2].strip()
        raise OperatorMissingError(f"ONNX Runtime {onnxruntime.__version__}: {reason}") from error
    return lambda images: torch.from_numpy(session.run(["deblurred"], {"blurry": images.numpy()})[0])


def to_torchscript(network: AnySize, metadata: Metadata) -> bytes:
    """Return the network as TorchScript, with `metadata` in its extra file metadata.json."""
    buffer = io.BytesIO()
    traced = torch.jit.trace(network, torch.zeros(_RECORDED_AT), check_trace=False)
    torch.jit.save(traced, buffer, _extra_files={_METADATA_FILE: json.dumps(metadata)})
    return buffer.getvalue()


def to_exported_program(network: AnySize, metadata: Metadata) -> bytes:
    """Return the network as `torch.export.save` writes it, with `metadata` in its extra file metadata.json."""
    buffer = io.BytesIO()
    program = torch.export.export(network, (torch.zeros(_RECORDED_AT),), dynamic_shapes=_free_sizes(network))
    torch.export.save(program, buffer, extra_files={_METADATA_FILE: json.dumps(metadata)})
    return buffer.getvalue()


def load_exported_program(path: Path) -> Function:
    """Return an exported program as a function on the CPU."""
    with path.open("rb") as file:
        return torch.export.load(file).module()


def to_safetensors(network: AnySize, metadata: Metadata) -> bytes:
    """Return the network's weights under their own names, with `metadata`."""
    return safetensors.torch.save(network.network.state_dict(), {name: str(each) for name, each in metadata.items()})


@dataclass(frozen=True)
class Format:
    """A kind of file: its suffix, by how much its output may differ from PyTorch's, its writer and its reader."""

    suffix: str
    tolerance: float
    write: Callable[[AnySize, Metadata], bytes]
    load: Callable[[Path], Function]


FORMATS = {
    "onnx": Format(".onnx", 1e-3, to_onnx, load_onnx),
    "torchscript": Format(".pt", 1e-5, to_torchscript, torch.jit.load),
    "exported_program": Format(".pt2", 1e-5, to_exported_program, load_exported_program),
    "safetensors": Format(".safetensors", 0.0, to_safetensors, partial(load_deblurring_net, deform_op="torchvision")),
}

"""Exported networks give PyTorch's output on real pixels at sizes they were not recorded at, or are refused."""

import importlib
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors import safe_open

from models import DeblurringNet, deblurring_net
from models.checkpoint import load_deblurring_net
from tests.support.samples import ROOT, SAMPLE, load
from tools import export, export_formats
from tools.export_formats import FIRST_RUNTIME, FORMATS, MIN_EXPORTED_SIDE
from utils.common.errors import UserError
from utils.common.files import file_digest
from utils.training.network_files import save_network

BLOCKS = 1  # of the six ASPDCs: torch.export takes seconds for each
CASES = [  # an aligned exported program is what the aligned ONNX model is made from
    ("torchscript", "aligned"),
    ("torchscript", "released"),
    ("onnx", "aligned"),
    ("onnx", "released"),
    ("exported_program", "released"),
]


def runtime():
    """Return ONNX Runtime where it can run DeformConv."""
    onnxruntime = pytest.importorskip("onnxruntime")
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < tuple(map(int, FIRST_RUNTIME.split("."))):
        pytest.skip(f"ONNX Runtime {onnxruntime.__version__} has no DeformConv; {FIRST_RUNTIME} needs Python 3.11")
    return onnxruntime


def run(*arguments):
    export.main(export.parse_args([str(argument) for argument in arguments]))


def skip_with_an_old_torch(kind):
    if kind in export.RECORDED and tuple(map(int, torch.__version__.split(".")[:2])) <= export.LAST_WITHOUT_THEM:
        pytest.skip(f"torch {torch.__version__} does not write {kind}")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return a folder with aligned.pth and released.pth, whose offsets lead outside the picture."""
    folder = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deblurring_net, "BLOCKS", BLOCKS)
        for modulation in ("aligned", "released"):
            torch.manual_seed(0)
            network = DeblurringNet(4, modulation)
            for name, parameter in network.named_parameters():
                if ".offset_conv." in name:
                    parameter.data.mul_(40)
            save_network(folder / f"{modulation}.pth", network, "deblur", 1)
        yield folder


@pytest.fixture(scope="module")
def small_picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "blurry.png"
    Image.fromarray(load(SAMPLE)[150:246, 200:328]).save(path)
    return path


@pytest.fixture(scope="module", params=CASES, ids=["-".join(case) for case in CASES])
def exported(request, weights, small_picture):
    """Return a format, PyTorch's network and the file exported from it."""
    kind, modulation = request.param
    skip_with_an_old_torch(kind)
    if kind == "onnx":
        runtime()
    source = weights / f"{modulation}.pth"
    run("--format", kind, "--weights", source, "--check_image", small_picture)
    return kind, load_deblurring_net(source, deform_op="torchvision"), source.with_suffix(FORMATS[kind].suffix)


def crops(height, width, count=1):
    picture = torch.from_numpy(load(SAMPLE)).permute(2, 0, 1) / 127.5 - 1
    return torch.stack([picture[:, 40 * i : 40 * i + height, 70 * i : 70 * i + width] for i in range(count)])


def test_the_weights_sample_outside_the_picture(weights):
    network = load_deblurring_net(weights / "aligned.pth", deform_op="torchvision")
    with torch.no_grad():
        offsets = network.forward_with_maps(crops(64, 96), [0])[1][0].offsets
    rows = torch.arange(16).view(-1, 1) + offsets[:, 1:, ::2]
    assert 0.01 < ((rows < -2) | (rows > 17)).float().mean() < 0.99


@pytest.mark.slow
@torch.no_grad()
def test_every_size_gives_what_pytorch_gives(exported):
    kind, network, path = exported
    if kind == "onnx":
        session = runtime().InferenceSession(path, providers=["CPUExecutionProvider"])

        def run_exported(images):
            return torch.from_numpy(session.run(None, {"blurry": images.numpy()})[0])
    else:
        run_exported = torch.jit.load(path) if kind == "torchscript" else torch.export.load(path).module()
    smallest = MIN_EXPORTED_SIDE[network.arguments["modulation"]]
    for *size, count in ((smallest, smallest + 1, 1), (31, 46, 1), (61, 100, 3), (76, 59, 1), (64, 80, 2)):
        images = crops(*size, count)
        torch.testing.assert_close(run_exported(images), network(images), atol=FORMATS[kind].tolerance, rtol=0)


@pytest.mark.parametrize("modulation", ["aligned", "released"])
def test_safetensors_hold_the_weights_and_how_to_read_them(weights, small_picture, modulation, capsys):
    source, path = weights / f"{modulation}.pth", weights / f"{modulation}.safetensors"
    run("--format", "safetensors", "--weights", source, "--check_image", small_picture)
    network, loaded = load_deblurring_net(source), load_deblurring_net(path)
    assert loaded.arguments == network.arguments
    assert all(torch.equal(loaded.state_dict()[name], each) for name, each in network.state_dict().items())
    assert "no record" not in capsys.readouterr().out
    with safe_open(path, "pt") as file:
        assert file.metadata()["weights_sha256"] == file_digest(source)


@pytest.mark.slow
def test_a_program_that_has_done_nothing_else_exports(weights, tmp_path):
    """Here torchvision was imported long before a network is recorded, there by the program alone."""
    path = tmp_path / "network.pt"
    shorter = f"from models import deblurring_net; deblurring_net.BLOCKS = {BLOCKS}"
    arguments = ["--weights", str(weights / "aligned.pth"), "--format", "torchscript", "--output", str(path)]
    script = f"{shorter}; from tools import export; export.main(export.parse_args({arguments!r}))"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, path.exists()) == (0, True), result.stderr


@pytest.mark.slow
def test_the_metadata_of_a_file(exported):
    kind, network, path = exported
    if kind == "onnx":
        import onnx

        model = onnx.load(path)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        assert [(opset.domain, opset.version >= 19) for opset in model.opset_import] == [("", True)]
        assert [node.op_type for node in model.graph.node].count("DeformConv") == 4 * BLOCKS
        for tensor, name in ((model.graph.input[0], "blurry"), (model.graph.output[0], "deblurred")):
            assert tensor.name == name
            sizes = [dim.dim_param or dim.dim_value for dim in tensor.type.tensor_type.shape.dim]
            assert sizes == ["batch", 3, "height", "width"]
        assert str(ROOT).encode() not in path.read_bytes()
    else:
        with zipfile.ZipFile(path) as archive:
            (file,) = [name for name in archive.namelist() if name.endswith("/extra/metadata.json")]
            metadata = {name: str(value) for name, value in json.loads(archive.read(file)).items()}
    modulation = network.arguments["modulation"]
    source = path.with_name(f"{modulation}.pth")
    assert metadata["weights_sha256"] == file_digest(source)
    assert (metadata["weights"], metadata["modulation"], metadata["width"]) == (source.name, modulation, "4")
    assert metadata["smallest_side"] == str(MIN_EXPORTED_SIDE[modulation])


def test_deform_conv_of_onnx_runtime_is_torchvisions_at_and_beyond_the_borders():
    onnxruntime, onnx = runtime(), importlib.import_module("onnx")
    generator = torch.Generator().manual_seed(0)
    image = torch.from_numpy(load(SAMPLE)[100:109, 100:113]).permute(2, 0, 1)[None].float() / 127.5 - 1
    weight, bias = torch.randn(4, 3, 3, 3, generator=generator), torch.randn(4, generator=generator)
    mask = torch.rand(1, 9, 9, 13, generator=generator)
    shifts = torch.tensor(
        [-1e6, -14.0, -9.0, -1.5, -1.0, -0.999, -0.5, 0.0, 0.25, 0.5, 0.999, 1.0, 8.0, 8.5, 9.0, 13.0, 1e6]
    )
    offset = shifts[torch.randint(len(shifts), (1, 18, 9, 13), generator=generator)]
    inputs = {"X": image, "W": weight, "offset": offset, "B": bias, "mask": mask}
    node = onnx.helper.make_node("DeformConv", list(inputs), ["Y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    infos = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(tensor.shape))
        for name, tensor in {**inputs, "Y": torch.zeros(1, 4, 9, 13)}.items()
    ]
    graph = onnx.helper.make_graph([node], "one", infos[:-1], infos[-1:])
    opset = onnx.helper.make_opsetid("", export_formats.OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    ours = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0]
    theirs = torchvision.ops.deform_conv2d(image, offset, weight, bias, padding=1, mask=mask)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-5, rtol=0)


@pytest.mark.slow
def test_a_file_that_would_differ_gets_no_name(weights, tmp_path, monkeypatch):
    def repeated(size):  # the last row again, where the network reflects
        return torch.arange(-(-size // 4) * 4).clamp(max=size - 1)

    monkeypatch.setattr(export_formats, "_mirrored", repeated)
    arguments = ("--format", "torchscript", "--weights", weights / "aligned.pth", "--output", tmp_path / "wrong.pt")
    with pytest.raises(UserError, match=r"wrong.pt was not written: .* \(2×3×191×318\) it would differ .* 1e-05"):
        run(*arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_nothing_is_written_over_unless_asked_for(weights, tmp_path, capsys):
    output = tmp_path / "network.pt"
    arguments = ("--format", "torchscript", "--weights", weights / "released.pth", "--output", output)
    output.write_text("mine")
    with pytest.raises(UserError, match=r"network.pt exists already; give --overwrite to replace it"):
        run(*arguments)
    assert output.read_text() == "mine"
    run(*arguments, "--overwrite")
    assert output.read_bytes()[:2] == b"PK"
    assert "1×3×384×640: at most 0.0e+00 from PyTorch" in capsys.readouterr().out


def test_the_weights_are_not_written_over(weights):
    with pytest.raises(UserError, match=r"aligned.pth is the file to export; give another --output"):
        run(
            "--format",
            "torchscript",
            "--weights",
            weights / "aligned.pth",
            "--output",
            weights / "aligned.pth",
            "--overwrite",
        )


@pytest.mark.parametrize("package", export.ONNX_PACKAGES)
def test_a_missing_package_is_named_with_the_command_that_installs_it(package, weights, monkeypatch):
    skip_with_an_old_torch("onnx")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package} cannot be imported .*`pip install onnx onnxscript onnxruntime`"):
        run("--format", "onnx", "--weights", weights / "aligned.pth")


@pytest.mark.parametrize("kind", export.RECORDED)
def test_a_torch_that_is_too_old_is_refused(kind, monkeypatch, tmp_path):
    monkeypatch.setattr(export, "LAST_WITHOUT_THEM", (99, 0))
    with pytest.raises(UserError, match=f"--format {kind} needs a newer torch than .*; --format torchscript does not"):
        run("--format", kind, "--output", tmp_path / "network")
    assert not any(tmp_path.iterdir())


def test_a_runtime_without_the_operator_is_reported(weights, small_picture, tmp_path):
    version = pytest.importorskip("onnxruntime").__version__
    if tuple(map(int, version.split(".")[:2])) >= tuple(map(int, FIRST_RUNTIME.split("."))):
        pytest.skip("this runtime has it")
    skip_with_an_old_torch("onnx")
    output = tmp_path / "network.onnx"
    with pytest.raises(UserError, match=rf"is valid, but could not be compared .*{version}: .*DeformConv"):
        run(
            "--format", "onnx", "--weights", weights / "aligned.pth", "--check_image", small_picture, "--output", output
        )
    importlib.import_module("onnx").checker.check_model(output)


def test_a_picture_too_small_to_check_on_is_refused_with_status_2(tmp_path, run_here):
    Image.fromarray(load(SAMPLE)[:63, :200]).save(tmp_path / "small.png")
    done = run_here("tools/export.py", "--format", "torchscript", "--check_image", tmp_path / "small.png")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: --check_image {tmp_path / 'small.png'} is 63×200 px (H×W); expected at least 64×64"
    ]

"""The benchmark: it runs the named configurations, and its output is readable for people and programs."""

import json

import pytest
import torch

from tests.support.processes import run_script
from tests.support.samples import SAMPLES
from tools import benchmark
from tools.benchmark_work import WORKS, Configuration, baseline_configuration

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def keep_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS)
def test_every_work_runs_both_ways(work, capsys):
    size = ["32", "32"] if work == "data" else ["16", "24"]
    benchmark.main(
        benchmark.parse_args(["--work", work, "--device", "cpu", "--size", *size, "--batch", "2", "--repeats", "2",
                              "--frames", str(SAMPLES), "--json"])
    )  # fmt: skip
    printed = json.loads(capsys.readouterr().out)
    first, second = printed["results"][:2]  # the third is OpenVINO, where it is installed
    assert first["name"] == "baseline"
    names = {"data": "cached", "reblur": "channels_last, fp32"}
    assert second["name"] == names.get(work, "fused, fp32")
    for result in (first, second):
        assert 0 < result["fastest"] <= result["median"] <= result["slowest"]
        assert result["repeats"] == 2
    assert f"{work} 2×3×{size[0]}×{size[1]}" in printed["work"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_openvino_is_a_peer_where_it_is_installed(precision, capsys):
    pytest.importorskip("openvino")
    benchmark.main(
        benchmark.parse_args(["--work", "deblur", "--device", "cpu", "--size", "16", "24", "--batch", "2", "--repeats",
                              "1", "--precision", precision, "--json"])
    )  # fmt: skip
    peer = json.loads(capsys.readouterr().out)["results"][2]["name"]
    assert peer.startswith("OpenVINO, differs by ")
    assert 0 < float(peer.split()[-1]) < (1e-4 if precision == "fp32" else 0.1)


@pytest.mark.slow
def test_sizes_that_openvino_does_not_take_are_measured_without_it(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "find_spec", lambda name: name)
    more = ["--device", "cpu", "--size", "9", "16", "--repeats", "1", "--json"]
    benchmark.main(benchmark.parse_args(["--work", "deblur", *more]))
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)["results"]) == 2
    assert printed.err == "OpenVINO is left out: it takes sizes that are multiples of 4\n"


def test_the_table_has_the_ratio_of_the_medians(capsys):
    rows = [
        benchmark.Measurement("baseline", 3.0, 2.0, 4.0, 5, 1.5),
        benchmark.Measurement("new", 1.5, 1.0, 2, 5, None),
    ]
    benchmark.print_table(rows, "deblur", "a CPU")
    _, _, baseline, new = capsys.readouterr().out.splitlines()
    assert baseline.split() == ["baseline", "3000.00", "ms", "2000.00", "ms", "4000.00", "ms", "1.50", "GiB", "1.00x"]
    assert new.split()[-2:] == ["unknown", "2.00x"]


def test_the_table_has_the_share_of_what_a_known_gpu_can_do(capsys):
    row = benchmark.Measurement("new", 0.01, 0.009, 0.011, 5, None)
    benchmark.print_table([row], "deblur", "NVIDIA H200", 1.979e12)
    benchmark.print_table([row], "deblur", "another", 1.979e12)
    _, _, known, _, _, unknown = capsys.readouterr().out.splitlines()
    assert known.split()[-2:] == ["198", "(20%)"]
    assert unknown.split()[-1] == "198"


def test_operations_are_those_of_the_paper():
    """64.3 GMACs of the deblurring network at 256×256, for three passes."""
    assert benchmark.operations("deblur_step", 6, (256, 256)) == pytest.approx(2 * 3 * 6 * 64.3e9, rel=1e-3)
    assert benchmark.operations("data", 6, (256, 256)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("work", ["deblur", "finetune_step"])
def test_the_baseline_uses_torchvisions_operator_and_the_named_one_does_not(work, monkeypatch):
    calls = []
    operator = torch.ops.torchvision.deform_conv2d
    monkeypatch.setattr(torch.ops.torchvision, "deform_conv2d", lambda *args: (calls.append(1), operator(*args))[1])
    for configuration, expected in (
        (baseline_configuration(), 24),
        (Configuration("fused", "fp32", channels_last=True), 0),
    ):
        calls.clear()
        WORKS[work](configuration, 1, (16, 16), CPU, SAMPLES)()
        assert len(calls) == expected  # six ASPDCs of four


@pytest.mark.slow
def test_a_training_run_is_measured_beside_its_steps(capsys):
    benchmark.main(
        benchmark.parse_args(["--work", "training_run", "--device", "cpu", "--size", "16", "16", "--steps", "8",
                              "--repeats", "1", "--frames", str(SAMPLES)])
    )  # fmt: skip
    title, header, *stages = capsys.readouterr().out.splitlines()
    assert title.startswith("training_run 1×3×16×16")
    assert header.split()[-2:] == ["GPU", "busy"]
    assert [line.split()[0] for line in stages] == ["reblur", "deblur", "finetune"]
    for line in stages:
        _, step, _, alone, _, ratio, busy = line.split()
        assert float(ratio) == pytest.approx(float(step) / float(alone), rel=0.02)
        assert busy == "unknown"


@pytest.mark.slow
def test_the_module_is_a_command():
    result = run_script("-m", "tools.benchmark", "--work", "reblur", "--size", "16", "16", "--repeats", "1",
                        "--device", "cpu")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "configuration" in result.stdout
    assert "ratio" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--work", "data"], "--work data makes square patches"),
        (["--work", "deblur", "--size", "4", "8"], "argument --size: should be at least 8, got '4'"),
        (["--work", "deblur", "--threads", "0"], "argument --threads: should be at least 1, got '0'"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message, capsys):
    with pytest.raises(SystemExit):
        benchmark.parse_args(arguments)
    assert message in capsys.readouterr().err

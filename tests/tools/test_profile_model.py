"""The cost report gives the published counts."""

import pytest

from tools import profile as profile_model
from tools.profile import build, count


@pytest.mark.parametrize(
    ("network", "size", "parameters", "gmacs"),
    [("deblur", (256, 256), 15_016_503, 64.3), ("deblur", (720, 1280), 15_016_503, 903.9)],
)
def test_parameters_and_macs_of_the_paper(network, size, parameters, gmacs):
    costs = count(build(network, None, "torchvision"), 1, *size).values()
    assert sum(cost.parameters for cost in costs) == parameters
    assert round(sum(cost.macs for cost in costs) / 1e9, 1) == gmacs


def test_the_reblurring_network_and_sizes_that_are_padded():
    costs = count(build("reblur", None), 2, 64, 64)
    assert sum(cost.parameters for cost in costs.values()) == 998_802
    padded = count(build("reblur", None), 2, 57, 63)
    assert {name: cost.macs for name, cost in padded.items()} == {name: cost.macs for name, cost in costs.items()}


def test_the_table_has_a_line_a_part_whose_times_make_the_whole(capsys):
    arguments = ["--size", "48", "64", "--width", "4", "--device", "cpu"]
    profile_model.main(profile_model.parse_args(arguments))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    table = {line[0]: line[1:] for line in lines}
    assert list(table) == ["head", "res_blocks", "aspdcs", "fusion", "tail", "between", "all"]
    parts = [float(table[name][2]) for name in ("head", "res_blocks", "aspdcs", "fusion", "tail")]
    parts.append(float(table["between"][-1]))
    assert sum(parts) == pytest.approx(float(table["all"][2]), abs=0.3)
    assert min(parts) > 0


def test_counting_runs_nothing_at_full_size(capsys):
    profile_model.main(profile_model.parse_args(["--size", "100000", "100000", "--no_time", "--device", "cpu"]))
    assert "deblur, 1×3×100000×100000" in capsys.readouterr().out

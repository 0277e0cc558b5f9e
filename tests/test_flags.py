"""Whatever text a flag of any command is given, the command works, or ends in one line and status 2."""

import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import DeblurringNet, ReblurringNet
from tests.support.commands import COMMANDS, parser_of, run_command
from tests.support.samples import ROOT, SAMPLE, load, save
from utils.training.network_files import save_network

DERANDOMIZED = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)
# What makes a run of each command a short one: of values of flags and positional arguments, by their names. Training
# ends where all is set up but its first step, exporting where the picture to compare on is found to be too small.
BASES = {
    "DR_training": {"stage": "deblur", "trainset_dir": "DATA/pairs", "width": "2", "patch_size": "16",
                    "num_workers": "0", "resume": "nowhere.pth", "max_steps": "1", "device": "cpu"},
    "D_testing": {"testset_dir": "DATA/pairs", "weights": "DATA/D.pth", "device": "cpu", "num_workers": "1"},
    "tools.benchmark": {"work": "reblur", "size": "16 16", "repeats": "1", "device": "cpu"},
    "tools.blur_statistics": {"sets": "DATA/pairs"},
    "tools.check_data": {"folders": "DATA/pairs"},
    "tools.compare": {"commit": "0000000000000000000000000000000000000000"},
    "tools.compare_finetuning": {"results": "DATA"},
    "tools.export": {"format": "torchscript", "weights": "DATA/D.pth", "check_image": "DATA/pairs/blur/a.png"},
    "tools.halve": {"source": "DATA/D.pth", "target": "half.pth"},
    "tools.profile": {"network": "deblur", "size": "16 16", "width": "2", "no_time": "", "device": "cpu"},
    "tools.reblurring_term": {"testset_dir": "DATA/pairs", "deblurring_weights": "DATA/D.pth",
                              "reblurring_weights": "DATA/R.pth", "size": "8", "device": "cpu"},
    "tools.synthesize_blur": {"sharp_dir": "DATA/photos", "out_dir": "out", "device": "cpu"},
    "tools.table": {"results": "DATA/summary.json"},
    "tools.training_history": {"history": "history.csv", "stage": "deblur", "network": "DATA/D.pth",
                               "valset_dir": "DATA/pairs", "device": "cpu"},
}  # fmt: skip
NUMBERS = ("0", "-0", "1", "-1", "1.5", "1e300", "1e400", "-1e400", "1e-320", "inf", "-inf", "nan", "1_0", "٣", "²",
           "0x10", "9" * 25, "9" * 5000, "1e20", "1,2", "1e300,1e300", "-1,1", "99999999999,99999999999")  # fmt: skip
TEXTS = ("", " ", ".", "-", "--", "-x", "=", "*", "0*DATA/pairs", "100000000*DATA/pairs", "2*DATA/pairs", "a\nb",
         "a\0b", "a\x85b", "\udcff", "x" * 300, "x/" * 3000, "paired=", "other=x", "sharp=DATA/photos", "1.5steps",
         "0min", "9" * 400 + "min", "2epochs", "cuda:99999999999", "cpu:1", "cpu:\udcff", "DATA/pairs", "DATA/D.pth",
         "DATA/pairs/blur/a.png", "DATA/D.pth/x", "auto", "extent=1e300", "frame=99999999999999999999999,1",
         "shot=-1,nan", "extent=", "spread=5", "default,,", "psnr")  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.binary(max_size=12).map(os.fsdecode),
    st.text(max_size=12).filter(lambda text: not re.search("[\ud800-\udfff]", text)),  # an argument's are of bytes
)
FLAGS = [(command, action.dest) for command in COMMANDS for action in parser_of(command)._actions[1:]]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for side in ("blur", "sharp"):
        picture = load(SAMPLE.parents[1] / side / SAMPLE.name)
        for i, name in enumerate(("a.png", "b.png")):
            save(folder / "pairs" / side / name, picture[100:116, 60 * i : 60 * i + 24])
    save(folder / "photos" / "a.png", picture[:80, :96])
    shutil.copy(ROOT / "tests" / "data" / "94a4be1" / "restored" / "whole" / "summary.json", folder)
    runs = [f"lambda{weight}-seed1_D/pairs,a.png,lambda{weight}-seed1_D,a.png,{30 + weight}\n" for weight in (0, 1)]
    (folder / "results.csv").write_text("set,image,weights,saved_as,psnr\n" + "".join(runs))
    torch.manual_seed(0)
    save_network(folder / "D.pth", DeblurringNet(2), "deblur", 1)
    save_network(folder / "R.pth", ReblurringNet(2), "reblur", 1)
    return folder


def command_line(command: str, name: str, value: str, data: Path) -> list[str]:
    """Return the arguments of a short run in which one has another value."""
    options, positional = [], []
    for action in parser_of(command)._actions[1:]:
        text = BASES[command].get(action.dest)
        values = [] if text is None else text.split()
        if action.dest == name:
            values = [value, *values[1:]]
        if text is None and action.dest != name:
            continue
        if not action.option_strings:
            positional += values
        elif len(values) == 1:
            options += [f"{action.option_strings[-1]}={values[0]}"]
        else:
            options += [action.option_strings[-1], *values]
    return [text.replace("DATA", str(data)) for text in [*positional, *options]]


def check(command: str, name: str, value: str, data: Path) -> None:
    if re.search(r"^[/~]|\.\.", value):  # not outside of the folder
        return
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as changed:
        changed.chdir(folder)
        try:
            ended = run_command(command, command_line(command, name, value, data))
        finally:
            torch.set_num_threads(threads)
    said = re.sub(r"\r[^\n]*\n", "", ended.stderr)  # without bars
    if ended.status == 0 or (command == "tools.check_data" and not said):  # its report is its output
        return
    assert ended.status == 2
    assert re.fullmatch(r"(usage: .*\n( .*\n)*)?(.*: )?error: .*\n(  .*\n)*", said), said


def test_every_command_is_tried():
    assert sorted(BASES) == sorted(COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_short_runs_are_long_enough(command, data):
    """They end where they are meant to, not at an argument of theirs."""
    ends = {
        "DR_training": "--resume 'nowhere.pth'",
        "tools.check_data": "",  # which finds that parts of pictures fit no scene
        "tools.blur_statistics": "all pairs are smaller than",
        "tools.compare": "cannot be taken",
        "tools.export": "expected at least",
    }
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as changed:
        changed.chdir(folder)
        ended = run_command(command, command_line(command, "", "", data))
    assert ends.get(command, "") in ended.stderr
    assert ended.status == (2 if command in ends else 0), ended


@pytest.mark.slow
@settings(DERANDOMIZED, max_examples=50)
@given(st.sampled_from(FLAGS), VALUES)
def test_any_value_of_a_flag_works_or_ends_in_one_line(data, flag, value):
    check(*flag, value, data)


@pytest.mark.large
@pytest.mark.parametrize("flag", FLAGS, ids=" ".join)
def test_many_values_of_each_flag_work_or_end_in_one_line(data, flag):
    for value in (*NUMBERS, *TEXTS):
        check(*flag, value, data)

    @settings(DERANDOMIZED, max_examples=20)
    @given(VALUES)
    def others(value):
        check(*flag, value, data)

    others()

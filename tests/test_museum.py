"""What commit 94a4be1 wrote (tests/data/94a4be1) is loaded, resumed and continued by the code of today.

Names in files stay, whatever their names in the code: keys of states, columns of tables, flags. Where a module moves,
`COMMANDS` and the imports of loaders and errors follow; nothing else here knows where things lie.
"""

import csv
import hashlib
import importlib
import json
import math
import os
import re
import runpy
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import D_testing
import DR_training
from models.checkpoint import load_deblurring_net, load_reblurring_net
from utils.common.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
MUSEUM = ROOT / "tests" / "data" / "94a4be1"
MADE = json.loads((MUSEUM / "made.json").read_text())
FLAGS = json.loads((MUSEUM / "flags.json").read_text())
MAKE = runpy.run_path(str(MUSEUM / "make.py"))  # its functions; it makes nothing so
FILES, VARIANTS = MAKE["FILES"], tuple(MAKE["VARIANTS"])
STATES = [(stage, variant) for variant in VARIANTS for stage in FILES]

# Where each command of 94a4be1 is today: a module with `parse_args`, or with a `main` that parses.
COMMANDS = {
    **{name: name for name in FLAGS},
    "utils.benchmark": "tools.benchmark",
    "utils.export": "tools.export",
    "utils.halve": "tools.halve",
    "utils.profile_model": "tools.profile",
    "datasets.blur_statistics": "tools.blur_statistics",
    "datasets.blur_synthesis": "tools.synthesize_blur",
    "datasets.check": "tools.check_data",
}
# Defaults that were changed on purpose since: (command, flag) -> the new one. New flags need no entry.
CHANGED_DEFAULTS: dict[tuple[str, str], object] = {}

# To the bit on the processor and with the libraries that made the museum. Elsewhere sums are added in another order:
# with AVX2 and SSE4 in the place of AVX-512 weights ended up to 1.7e-6 of the way from the state to the end beside the
# museum's, and outputs differed by up to 1.2e-7. A learning rate that is wrong by 1 % is 8e-3 of the way.
EXACT = {name: MADE[name] for name in MAKE["processor"]()} == MAKE["processor"]()
OF_THE_WAY = 0.0 if EXACT else 1e-4
OF_OUTPUTS = 0.0 if EXACT else 1e-5
OF_SCORES = 0.0 if EXACT else 1e-5


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked") / "museum"
    shutil.copytree(MUSEUM, folder)
    for name in ("training", "more"):
        with tarfile.open(folder / f"{name}.tar.xz") as archive:
            archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def museum(unpacked, tmp_path, monkeypatch):
    """The museum's copy in a place of its own, as the working directory: paths in its files are relative to that."""
    folder = tmp_path / "museum"
    shutil.copytree(unpacked, folder)
    monkeypatch.chdir(folder)
    with MAKE["one_thread"]():
        yield folder


def content(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)


def weights(network: dict) -> dict[str, torch.Tensor]:
    (state,) = (each for name, each in network.items() if name.endswith("_state_dict"))
    return state


def begun(state: dict) -> dict[str, torch.Tensor]:
    """The weights of a state that its end's network will have come from."""
    if state["average"] is None:
        return state["network"]
    return {name.removeprefix("module."): each for name, each in state["average"].items() if name != "n_averaged"}


def distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return sum((first[name].double() - second[name].double()).square().sum().item() for name in first) ** 0.5


def resume_training(stage: str, variant: str, *more: str) -> None:
    DR_training.main(DR_training.parse_args(MAKE["training_arguments"](stage, variant, "--resume", "auto", *more)))


def restore(save_dir: str, *more: str) -> None:
    D_testing.main(D_testing.parse_args(MAKE["testing_arguments"](save_dir, *more)))


def rows(path: Path, *times: str) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if name not in times} for row in csv.DictReader(file)]


def same_tables(first: Path, second: Path, *times: str) -> None:
    """Compare the columns that 94a4be1 wrote (`second`); there may be new ones."""
    found, expected = rows(first, *times), rows(second, *times)
    assert len(found) == len(expected)
    for now, before in zip(found, expected, strict=True):
        assert same_values(now, before), f"{first}: {now}, expected {before}"


def same_values(found: Any, expected: Any) -> bool:
    """Say whether values of a table or of JSON are the same; a dict may have new keys."""
    if isinstance(expected, dict):
        return all(name in found and same_values(found[name], each) for name, each in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same_values, found, expected))
    try:
        return math.isclose(float(found), float(expected), rel_tol=OF_SCORES)
    except (TypeError, ValueError):
        return found == expected


def state_file(museum: Path, stage: str, variant: str) -> Path:
    (path,) = (museum / variant / "states" / stage).glob("*.pth")
    return path


def write_state(path: Path, state: dict) -> None:
    torch.save(state, path)
    path.with_name(f"{path.name}.sha256").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")


def resumed(museum: Path, stage: str, variant: str, *more: str) -> None:
    """Resume a stage's state, and compare the network that its run ends with with 94a4be1's."""
    state, end = content(state_file(museum, stage, variant)), museum / variant / FILES[stage]
    before = content(end)
    end.unlink()
    resume_training(stage, variant, *more)
    after = content(end)
    assert after.keys() >= before.keys()
    assert [after[name] for name in ("stage", "epoch", "arguments")] == [
        before[name] for name in ("stage", "epoch", "arguments")
    ]
    moved = distance(weights(before), begun(state))
    assert moved > 0
    assert distance(weights(after), weights(before)) <= OF_THE_WAY * moved


@pytest.mark.parametrize("variant", VARIANTS)
def test_networks_give_the_same_outputs(museum, variant):
    expected = content(museum / "outputs.pth")[variant]
    found = MAKE["outputs"](load_deblurring_net, load_reblurring_net, variant)
    for name, image in expected.items():
        assert found[name].shape == image.shape
        assert (found[name] - image).abs().max() <= OF_OUTPUTS


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "variant"), STATES)
def test_states_in_the_middle_of_an_epoch_are_resumed_to_the_same_end(museum, stage, variant):
    state = content(state_file(museum, stage, variant))
    assert state["progress"]["position"] > 0
    assert (state["average"] is not None) == (variant == "averaged")
    resumed(museum, stage, variant)


@pytest.mark.slow
def test_a_resumed_run_continues_its_log(museum):
    path, log = state_file(museum, "deblur", "plain"), museum / "log_plain" / "deblur_20220101-000000"
    shutil.copytree(museum / "log_deblur", log)
    write_state(path, {**content(path), "log": str(log)})  # by a whole path, which is another one here
    resumed(museum, "deblur", "plain")
    assert [each.name for each in log.parent.iterdir()] == [log.name]
    same_tables(log / "log.csv", MUSEUM / "log_deblur" / "log.csv", "seconds")
    assert (log / "log.txt").read_text().startswith((MUSEUM / "log_deblur" / "log.txt").read_text())


def test_the_released_reading_of_module_0_is_that_of_the_file(museum):
    network = load_deblurring_net(museum / "released" / FILES["deblur"])
    assert network.arguments["modulation"] == "released"
    found, expected = MAKE["released_output"](load_deblurring_net), content(museum / "released" / "output.pth")
    assert (found - expected).abs().max() <= OF_OUTPUTS


@pytest.mark.slow
@pytest.mark.parametrize("best_before", [None, 99.0])
def test_the_best_network_gives_way_to_a_better_one_alone(museum, best_before):
    path, best = state_file(museum, "deblur", "validated"), museum / "validated" / "DeblurringNet_NF_best.pth"
    state, expected = content(path), content(best)
    assert state["progress"]["validated"] == 2
    assert 18 < state["progress"]["best_psnr"] < 20
    if best_before is not None:
        write_state(path, {**state, "progress": {**state["progress"], "best_psnr": best_before}})
        best.write_bytes((museum / "averaged" / FILES["deblur"]).read_bytes())
        expected = content(best)
    resumed(museum, "deblur", "validated")
    after = content(best)
    assert (after["stage"], after["epoch"]) == (expected["stage"], expected["epoch"])
    assert distance(weights(after), weights(expected)) <= OF_OUTPUTS


def test_a_state_is_not_resumed_by_another_run(museum):
    with pytest.raises(UserError, match=r"architecture was \{'width': 2.* is \{'width': 4"):
        resume_training("deblur", "plain", "--width", "4")
    reblurring = museum / "plain" / FILES["reblur"]
    network = content(reblurring)
    next(iter(weights(network).values())).view(-1)[0] += 1
    torch.save(network, reblurring)  # which states of then know by its file
    with pytest.raises(UserError, match=r"reblurring_weights was \w{64}, is \w{64}"):
        resume_training("finetune", "plain")
    for path in museum.glob("data/pairs/*/c.png"):
        path.unlink()
    with pytest.raises(UserError, match="data was 3 frames, is 2"):
        resume_training("deblur", "plain")


@pytest.mark.slow
def test_the_frame_cache_is_read_and_nothing_decoded_again(museum):
    # A frame's name is of its source's whole path, size and time, which are others here.
    for name, source in json.loads((museum / "cached.json").read_text()).items():
        (museum / "frame_cache" / name).rename(museum / "frame_cache" / MAKE["cached_name"](Path(source)))
    before = {path: path.stat().st_mtime_ns for path in (museum / "frame_cache").iterdir()}
    for source in MAKE["frames"]():  # decoding one now fails; the header is whole
        status, whole = source.stat(), source.read_bytes()
        source.write_bytes(whole[:100] + bytes(len(whole) - 100))
        os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(UserError, match="damaged"):
        resume_training("deblur", "plain", "--overwrite", "--resume", "none")
    resumed(museum, "deblur", "plain", "--cache_dir", "frame_cache")
    assert {path: path.stat().st_mtime_ns for path in (museum / "frame_cache").iterdir()} == before


@pytest.fixture
def results(museum):
    """Its folders of results, as if they had been made here and with the torch of today, on which they depend."""
    for path in museum.glob("restored/*/summary.json"):
        summary = json.loads(path.read_text().replace(MADE["place"], str(museum)))
        path.write_text(json.dumps(summary | {"torch": torch.__version__}))
    return museum / "restored"


@pytest.mark.parametrize("begun", ["stopped", "whole"])
def test_a_folder_of_results_is_continued_to_the_same_tables_and_pictures(results, begun):
    folder, whole = results / begun, MUSEUM / "restored" / "whole"
    done = {row["image"] for row in rows(folder / "results.csv")}
    assert len(done) == (1 if begun == "stopped" else 3)
    assert (folder / "unfinished.jsonl").exists() == (begun == "stopped")
    before = {name: (folder / "pairs" / name).stat().st_mtime_ns for name in done}
    restore(f"restored/{begun}", "--resume")
    assert {name: (folder / "pairs" / name).stat().st_mtime_ns for name in done} == before
    assert not list(folder.glob("unfinished*"))
    same_tables(folder / "results.csv", whole / "results.csv", "seconds")
    found, expected = (json.loads((each / "summary.json").read_text()) for each in (folder, whole))
    for content in (found, expected):
        for name in ("version", "torch", "testset_dir"):  # of the machine and its paths
            del content[name]
        del content["sets"]["pairs"]["seconds_per_image"]
    assert same_values(found, expected)
    for path in (whole / "pairs").iterdir():
        image, reference = (np.asarray(Image.open(each), int) for each in (folder / "pairs" / path.name, path))
        assert image.shape == reference.shape
        assert np.abs(image - reference).max() <= (0 if EXACT else 1)


@pytest.mark.parametrize("command", FLAGS)
def test_flags_are_still_there_with_the_same_defaults(command, monkeypatch):
    """New flags may be added, and choices; a changed default is named in `CHANGED_DEFAULTS`."""
    found = MAKE["flags_of"](MAKE["parser_of"](importlib.import_module(COMMANDS[command])), ROOT)
    by_name = {name: flag for names, flag in found.items() for name in names.split()}
    in_help = re.findall(r"^  (--\w+)", (MUSEUM / "help" / f"{command}.txt").read_text(), re.MULTILINE)
    assert set(in_help) <= by_name.keys()
    for names, before in FLAGS[command].items():
        for name in names.split():
            now, default = by_name[name], CHANGED_DEFAULTS.get((command, name), before["default"])
            assert (name, now["default"]) == (name, default)
            assert now["nargs"] in (before["nargs"], "+")  # more values than one
            assert not now["required"] or before["required"]
            assert set(before["choices"] or ()) <= set(now["choices"] or ())

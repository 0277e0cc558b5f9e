"""Files that only others read (CI, pre-commit, citation managers) and the docs, against Makefile and requirements."""

import fnmatch
import re
from pathlib import Path

import pytest
import torch
import yaml
from packaging.requirements import Requirement

from models.ops.back_ends import mmcv_problem
from tests.support.samples import ROOT
from utils.common.errors import UserError
from utils.common.version import __version__
from utils.runtime.device import pick_device

DOCS = ("install.md", "contributing.md")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def recipe(target: str) -> list[str]:
    """Return the commands of a target of the Makefile, with its programs below .venv/bin."""
    lines = read("Makefile").split(f"\n{target}:", 1)[1].splitlines()[1:]
    end = next((i for i, line in enumerate(lines) if not line.startswith("\t")), len(lines))
    return [line.strip().replace("$(BIN)", ".venv/bin") for line in lines[:end]]


@pytest.fixture(scope="module")
def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))


@pytest.fixture(scope="module")
def workflow():
    return yaml.safe_load(read(".github/workflows/tests.yml"))


@pytest.fixture(scope="module")
def hooks():
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    return repository["hooks"]


def test_the_citation_names_the_software_and_the_paper():
    software = yaml.safe_load(read("CITATION.cff"))
    paper = software["preferred-citation"]
    assert (software["cff-version"], software["type"], software["version"]) == ("1.2.0", "software", __version__)
    assert software["title"]
    assert software["authors"]
    assert software["license"] == read("LICENSE").split()[0] == "MIT"
    assert paper["title"].startswith("Blind Non-Uniform Motion Deblurring using Atrous Spatial Pyramid Deformable")
    assert [author["family-names"] for author in paper["authors"]] == ["Huo", "Masoumzadeh", "Yang"]
    assert (paper["year"], paper["identifiers"][0]["value"]) == (2022, "arXiv:2106.14336")


def test_ci_calls_targets_that_exist(workflow, targets):
    (job,) = workflow["jobs"].values()
    commands = "\n".join(step.get("run", "") for step in job["steps"])
    called = re.findall(r"^make (\w+)", commands, re.MULTILINE)
    assert {"lint", "test"} <= set(called) <= targets
    for name in ("ffmpeg", "chromium", "chromium-driver", "fonts-dejavu-core"):
        assert name in commands
        assert name in read(".ci/run")


def test_ci_runs_the_oldest_and_the_newest_python_that_was_tried(workflow):
    (job,) = workflow["jobs"].values()
    pythons = job["strategy"]["matrix"]["python"]
    assert all(isinstance(each, str) for each in pythons)  # 3.10 without quotes is the number 3.1
    rows = re.findall(r"^\| (3\.\d.*?) \|.*?\| (yes|no)\b", read("docs/install.md"), re.MULTILINE)
    tried = sorted(int(minor) for names, answer in rows if answer == "yes" for minor in re.findall(r"3\.(\d+)", names))
    assert pythons == [f"3.{tried[0]}", f"3.{tried[-1]}"]
    first, last = re.findall(r"\(3, (\d+)\)", read("Makefile"))
    assert int(first) == tried[0] <= tried[-1] <= int(last)


def test_ci_may_read_alone_and_gives_way_to_newer_runs(workflow):
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    assert {"push", "pull_request"} == set(workflow[True])  # YAML 1.1 takes `on` for a truth value
    (job,) = workflow["jobs"].values()
    for name in (step["uses"] for step in job["steps"] if "uses" in step):
        assert re.fullmatch(r"actions/[\w-]+@v\d+", name), name


def test_hooks_are_the_linters_of_make_lint(hooks):
    commands = {hook["id"]: hook["entry"].removesuffix(" --force-exclude") for hook in hooks}
    expected = [re.sub(r" (\.|recipes/\S+ \S+)$", "", command) for command in recipe("lint")]
    assert sorted(commands.values()) == sorted(expected)
    assert all(hook["language"] == "system" for hook in hooks)  # of .venv: the lock says which version


def test_hooks_look_at_what_make_lint_looks_at(hooks):
    patterns = next(command for command in recipe("lint") if "shellcheck" in command).split()[1:]
    scripts = [path.relative_to(ROOT).as_posix() for folder in ("recipes", ".ci") for path in ROOT.glob(f"{folder}/*")]
    (hook,) = (hook for hook in hooks if hook["id"] == "shellcheck")
    found = [name for name in scripts if re.search(hook["files"], name)]
    assert found
    assert found == [name for name in scripts if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def test_every_package_has_a_licence_in_the_table():
    table = read("docs/install.md").split("\n| package |", 1)[1].split("\n\n", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert all(len(row) == 4 and all(row) for row in rows)
    listed = {name for row in rows for name in re.findall(r"`([\w-]+)`", row[0])}
    for file in ("requirements.txt", "tests/requirements.txt"):
        lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in read(file).splitlines())
        assert {Requirement(line).name for line in lines if line} <= listed
    assert {"pyiqa", "pillow-heif", "onnx", "onnxscript", "onnxruntime", "mmcv-full", "onedl-mmcv", "ffmpeg"} <= listed


def test_make_mmcv_picks_the_package_for_this_torch_and_ends_with_a_look_at_it(capsys):
    pick, look = re.findall(r'-c "(.*?)"', " ".join(recipe("mmcv")).replace("\\ ", ""))
    exec(pick)
    new = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 14)
    assert capsys.readouterr().out.strip() == ("onedl-mmcv" if new else "mmcv-full")
    assert {"onedl-mmcv", "mmcv-full"} <= set(re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE))
    if mmcv_problem(pick_device("auto").type):
        with pytest.raises(UserError, match=r"--deform_op mmcv is not usable: .*mmcv"):
            exec(look)
    else:
        exec(look)
        assert capsys.readouterr().out == "ready: --deform_op mmcv\n"


def test_perceptual_metrics_are_installed_with_a_word_about_their_licence():
    assert "non-commercial" in recipe("perceptual")[0]


@pytest.mark.parametrize("name", DOCS)
def test_the_docs_name_what_exists(name, targets):
    text = read(f"docs/{name}")
    links = re.findall(r"\]\(\.\./([^)#]+)", text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert set(re.findall(r"\bmake ([a-z]+)(?=[` ]|$)", text, re.MULTILINE)) <= targets
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    modules = {Path(link).stem for link in links} | {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    tests = set(re.findall(r"`(test_\w+)`", text)) - modules
    assert [each for each in sorted(tests) if f"def {each}(" not in sources] == []


def test_the_map_has_the_layers_of_the_contracts():
    tomllib = pytest.importorskip("tomllib", reason="part of Python from 3.11 on")
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["name"] == "Layers")
    picture = read("docs/contributing.md").split("```", 2)[1].splitlines()
    names = [re.split(r" {3,}", line.strip())[0] for line in picture]
    assert [name for name in names if name in layers] == layers

"""The files around the code: citation, workflow, hooks, and the table of licences."""

import re

import yaml

from tests.support.samples import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()


def read(*parts: str) -> dict:
    return yaml.safe_load(ROOT.joinpath(*parts).read_text())


def test_the_citation_names_the_paper():
    paper = read("CITATION.cff")["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Huo", "Masoumzadeh", "Yang"]
    assert paper["title"].replace(" ", "") in re.sub(r"\s", "", (ROOT / "README.md").read_text())


def test_the_workflow_runs_make_on_the_oldest_and_newest_python_that_were_tried():
    job = read(".github", "workflows", "tests.yml")["jobs"]["tests"]
    targets = [step["run"].removeprefix("make ") for step in job["steps"] if step.get("run", "").startswith("make")]
    assert targets == ["lint", "test"]
    assert all(f"\n{target}:" in MAKEFILE for target in targets)
    tried = re.findall(r"^\| ([\d., ]+)\| .*\| yes \|$", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE)
    versions = re.findall(r"3\.\d+", " ".join(tried))
    assert job["strategy"]["matrix"]["python"] == [versions[0], versions[-1]]


def test_the_hooks_are_the_linters():
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    hooks = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in repository["hooks"]}
    recipe = MAKEFILE.partition("\nlint:")[2].partition("\n\n")[0]
    assert hooks == set(re.findall(r"\$\(BIN\)/([\w-]+)", recipe)) - {"python"}


def test_every_package_has_a_licence_in_the_table():
    table = (ROOT / "docs" / "install.md").read_text().partition("## Packages and licences")[2]
    for file in ("requirements.txt", "tests/requirements.txt"):
        for name in re.findall(r"^([\w-]+)", (ROOT / file).read_text(), re.MULTILINE):
            assert re.search(rf"[|,] {re.escape(name)}[,\s]", table), name

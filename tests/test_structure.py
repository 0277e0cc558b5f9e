"""Structure of the tests: folders mirror packages, shared code is in tests/support, marks are consistent."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.samples import ROOT

TESTS = ROOT / "tests"
PACKAGES = ("models", "losses", "datasets", "utils", "tools")
WHOLES = {"training": "DR_training.py", "testing": "D_testing.py"}
FILES = [path for path in TESTS.rglob("*.py") if "data" not in path.relative_to(TESTS).parts]


def imported(path: Path) -> Iterator[str]:
    """Yield the names of modules that a file imports, relative ones with their dots."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def test_no_test_file_imports_from_another():
    found = {f"{path.relative_to(ROOT)}: {name}" for path in FILES for name in imported(path) if name[:1] == "."}
    for path in FILES:
        names = [name for name in imported(path) if name.partition(".")[0] == "tests"]
        found |= {f"{path.relative_to(ROOT)}: {name}" for name in names if not name.startswith("tests.support.")}
    assert not found, "what several test files use goes to tests/support"


def test_folders_are_packages_and_mirror_those_of_the_repository():
    for folder in {path.parent for path in FILES if path.name.startswith("test_")} - {TESTS}:
        name = str(folder.relative_to(TESTS))
        assert (ROOT / WHOLES.get(name, name)).exists(), name
        assert (folder / "__init__.py").exists(), name  # pytest imports files of one name otherwise as one module
    helpers = {path for path in FILES if not path.name.startswith(("test_", "__")) and path.name != "conftest.py"}
    assert {path.relative_to(TESTS).parts[0] for path in helpers} == {"support"}


def test_every_package_has_tests():
    packages = {path.parent for name in PACKAGES for path in ROOT.glob(f"{name}/**/*.py")}
    assert len(packages) > 15
    for package in packages - {ROOT / "utils"}:
        name = package.relative_to(ROOT)
        assert any((TESTS / each).glob("test_*.py") for each in (name, name.parent)), name


def test_contracts_know_every_package():
    """import-linter does not check packages that it does not know."""
    tomllib = pytest.importorskip("tomllib", reason="part of Python from 3.11 on")
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert set(linter["root_packages"]) == packages
    rooms = {f"utils.{path.parent.name}" for path in ROOT.glob("utils/*/__init__.py")}
    assert [path.name for path in ROOT.glob("utils/*.py")] == ["__init__.py"]
    contracts = {each["name"]: each for each in linter["contracts"]}
    layers = {name.strip() for layer in contracts["Layers"]["layers"] for name in layer.split("|")}
    assert layers == rooms | packages - {"utils"}
    losses = next(each for each in contracts.values() if each.get("source_modules") == ["losses"])
    assert set(losses["forbidden_modules"]) == rooms - {"utils.common"} | {"datasets"}


def test_nothing_imports_the_tests():
    for path in [*ROOT.glob("*.py"), *(path for name in PACKAGES for path in ROOT.glob(f"{name}/**/*.py"))]:
        assert not [name for name in imported(path) if name.partition(".")[0] == "tests"], path


def test_arguments_of_scripts_stay_in_scripts():
    """What leaves them is typed: no function elsewhere takes a `Namespace`."""
    for path in (path for name in PACKAGES if name != "tools" for path in ROOT.glob(f"{name}/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                annotations = [ast.unparse(each.annotation) for each in arguments if each.annotation]
                assert not [each for each in annotations if "Namespace" in each], f"{path}: {node.name}"


def test_large_tests_are_slow_too(request):
    """`pytest -m "not slow"` replaces the `-m "not large"` of pyproject.toml."""
    plugins = request.config.pluginmanager.get_plugins()
    (conftest,) = (each for each in plugins if getattr(each, "__file__", None) == str(TESTS / "conftest.py"))
    request.node.add_marker("large")
    conftest.pytest_collection_modifyitems([request.node])
    assert request.node.get_closest_marker("slow")

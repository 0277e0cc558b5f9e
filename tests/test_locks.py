"""What the locks install: all requirements and what they depend on, one version of each, the same in both."""

import platform
import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS = {"requirements.lock": "requirements.txt", "tests/requirements.lock": "tests/requirements.txt"}


@pytest.fixture(scope="module")
def root(pytestconfig):
    return pytestconfig.rootpath


@pytest.fixture(scope="module")
def pythons(root):
    """Return the Pythons that the Makefile takes."""
    first, last = re.search(r"\(3, (\d+)\) <= v\[:2\] <= \(3, (\d+)\)", (root / "Makefile").read_text()).groups()
    return [f"3.{minor}" for minor in range(int(first), int(last) + 1)]


def requirements(path, python: str | None = None, **more: str) -> list[Requirement]:
    """Return what a file lists, for one Python alone on Linux if it is given."""
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in path.read_text().splitlines())
    everything = [Requirement(line) for line in lines if line]
    return everything if python is None else [each for each in everything if applies(each, python, **more)]


def applies(requirement: Requirement, python: str, extra: str = "") -> bool:
    where = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "implementation_name": "cpython"}
    version = {"python_version": python, "python_full_version": f"{python}.2"}
    return requirement.marker is None or requirement.marker.evaluate(where | version | {"extra": extra})


def versions(path, python: str) -> dict[str, str]:
    """Return the version of each package that a lock gives a Python, which is one."""
    found = requirements(path, python)
    names = [canonicalize_name(each.name) for each in found]
    assert len(names) == len(set(names)), f"{path} gives Python {python} two versions of a package"
    return {name: next(iter(each.specifier)).version for name, each in zip(names, found, strict=True)}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_is_pinned_and_names_no_place(root, lock):
    for each in requirements(root / lock):
        assert re.fullmatch(r"==[^*,]+", str(each.specifier)), each
        assert each.url is None
    assert not re.search(r"://|index-url|find-links|(^|\s)[/~]", (root / lock).read_text())


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_satisfies_every_requirement(root, pythons, lock):
    listed = requirements(root / LOCKS[lock])
    assert len(listed) >= 9
    for python in pythons:
        locked = versions(root / lock, python)
        for each in requirements(root / LOCKS[lock], python):
            assert each.specifier.contains(locked[canonicalize_name(each.name)]), (python, each)
        names = {canonicalize_name(each.name) for each in listed}
        assert names <= set(locked), f"Python {python} lacks {names - set(locked)}"


def test_both_locks_give_the_same_versions(root, pythons):
    for python in pythons:
        ours, tests = (versions(root / lock, python) for lock in LOCKS)
        shared = set(ours) & set(tests)
        assert "numpy" in shared
        assert {name: ours[name] for name in shared} == {name: tests[name] for name in shared}


def test_the_readme_names_the_pythons_of_the_makefile(root, pythons):
    assert f"\nPython {pythons[0]} to {pythons[-1]} " in (root / "README.md").read_text()
    assert f"# For Python {pythons[0]} to {pythons[-1]};" in (root / "requirements.txt").read_text()


def test_what_is_installed_depends_on_nothing_that_the_locks_lack(root):
    """`make` installs without dependencies: one that no lock lists would not come."""
    here = ".".join(platform.python_version_tuple()[:2])
    locked = {name: version for lock in LOCKS for name, version in versions(root / lock, here).items()}
    installed = {canonicalize_name(each.name): each.version for each in metadata.distributions()}
    if other := [f"{name} {installed.get(name)}" for name in locked if installed.get(name) != locked[name]]:
        pytest.skip(f"not installed by make: {', '.join(other)}")
    waiting = [each for path in LOCKS.values() for each in requirements(root / path, here)]
    seen = set()
    while waiting:
        each = waiting.pop()
        assert each.specifier.contains(locked[canonicalize_name(each.name)]), each
        for extra in ("", *each.extras):
            if (one := (canonicalize_name(each.name), extra)) not in seen:
                seen.add(one)
                needed = map(Requirement, metadata.requires(each.name) or ())
                waiting += [other for other in needed if applies(other, here, extra)]
    assert {name for name, _ in seen} == set(locked)

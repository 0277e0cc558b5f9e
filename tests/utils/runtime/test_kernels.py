"""Kernels are compiled by forked processes, each once for all processes of a machine; needs no GPU."""

import os
import re
import time
from pathlib import Path

import pytest

from models.ops.back_ends import fused_problem
from tests.support.processes import run_ranks, run_script

if problem := fused_problem("fused", "cuda"):
    pytest.skip(problem, allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="Windows forks no processes")]

NUMBERS = tuple(range(7))
# What may happen to a process: it is one that was forked, and gets its first kernel.
FORKED = """
import multiprocessing, os, signal, time
from triton import FutureKernel
result = FutureKernel.result
def compile(kernel, *args):
    if multiprocessing.parent_process().pid != FORKSERVER:
        WHAT
    return result(kernel, *args)
FutureKernel.result = compile
"""


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setenv("TRITON_INTERPRET", "0")


def command(log: Path, numbers=NUMBERS, more="", **options):
    given = "".join(f", {name}={value}" for name, value in options.items())
    return f"from tests.support.small_kernels import *\n{more}\ncompile_all({str(log)!r}, {numbers}{given})"


def run(log: Path, *args, **options):
    ended = run_script("-c", command(log, *args, **options))
    assert ended.returncode == 0, ended.stderr
    return lines(log)


def lines(log: Path):
    """Return what was compiled, what was loaded, and what each rank logged; the file is deleted.

    Whatever was compiled, no two threads of a process made launchers.
    """
    found = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    kinds = {kind: [each[1:] for each in found if each[0] == kind] for kind in {each[0] for each in found}}
    assert {main for main, _ in kinds.pop("launcher", ())} <= {"True"}
    logged = {kind: [" ".join(words[:-1]) for words in kinds.pop(kind)] for kind in [*kinds] if kind[:4] == "log-"}
    return kinds.get("compiled", []), kinds.get("loaded", []), logged


def test_processes_are_forked_that_compile_and_only_for_what_is_missing(tmp_path):
    compiled, loaded, logged = run(tmp_path / "log")
    assert sorted(int(number) for number, _ in compiled) == list(NUMBERS)
    assert not {process for _, process in compiled} & {process for _, process in loaded}
    assert len({kernel for kernel, _ in loaded}) == len(loaded) == 7
    assert len(logged["log-0"]) == 2
    assert re.fullmatch(r"compiled 7 kernels in \d+\.\d s", logged["log-0"][1])
    compiled, loaded, logged = run(tmp_path / "log")
    assert (compiled, len(loaded), logged) == ([], 7, {})
    compiled, loaded, logged = run(tmp_path / "log", (*NUMBERS, 7, 8))
    assert sorted(number for number, _ in compiled) == ["7", "8"]
    assert len(loaded) == 9
    assert "compiled 2 kernels" in logged["log-0"][1]


def test_forked_processes_compile_launchers_too(tmp_path):
    ended = run_script("-c", command(tmp_path / "log"))
    assert ended.returncode == 0, ended.stderr
    found = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    compiled, made = ([each[-1] for each in found if each[0] == kind] for kind in ("compiled", "launcher"))
    assert len(made) == 14
    assert sorted(compiled) == sorted(process for process in made if process in compiled)


def test_with_one_processor_no_process_is_forked(tmp_path):
    compiled, loaded, _ = run(tmp_path / "log", processors=1)
    assert len(compiled) == len(loaded) == 7
    assert {process for _, process in compiled} == {process for _, process in loaded}


@pytest.mark.parametrize("processors", [2, 8])
def test_the_processes_of_a_machine_share_the_compilation_and_all_load_all(tmp_path, processors):
    statuses, _, err = run_ranks("-c", command(tmp_path / "log", processors=processors))
    assert statuses == [0, 0], err
    compiled, loaded, logged = lines(tmp_path / "log")
    assert sorted(int(number) for number, _ in compiled) == list(NUMBERS)
    assert len({process for _, process in compiled}) > 1
    assert sorted(process for _, process in loaded) == sorted([*{process for _, process in loaded}] * 7)
    assert len({process for _, process in loaded}) == 2
    assert all("compiled 7 kernels" in logged[f"log-{rank}"][1] for rank in range(2))


def test_processes_without_a_common_cache_compile_all_themselves(tmp_path):
    apart = "knobs.cache.dir = os.environ['TRITON_CACHE_DIR'] + os.environ['RANK']"
    statuses, _, err = run_ranks("-c", command(tmp_path / "log", more=apart))
    assert statuses == [0, 0], err
    compiled, loaded, _ = lines(tmp_path / "log")
    assert sorted(int(number) for number, _ in compiled) == sorted([*NUMBERS, *NUMBERS])
    assert len(loaded) == 14


@pytest.mark.parametrize("what", ["os.kill(os.getpid(), signal.SIGKILL)", "raise MemoryError", "time.sleep(1000)"])
def test_what_a_forked_process_leaves_is_compiled_all_the_same(tmp_path, what):
    server = "FORKSERVER = multiprocessing.parent_process().pid"
    more = FORKED.replace("WHAT", what).replace("from triton", f"{server}\nfrom triton")
    more += "import utils.runtime.kernels\nutils.runtime.kernels._PATIENCE = 5.0"
    compiled, loaded, _ = run(tmp_path / "log", more=more)
    assert len(compiled) == len(loaded) == 7
    assert {process for _, process in compiled} == {process for _, process in loaded}


@pytest.mark.parametrize("position", [0, 1])
def test_an_error_in_a_kernel_ends_all_processes(tmp_path, position):
    """A kernel at each position is compiled by another of them."""
    numbers = ["1", "2", "3", "4"]
    numbers[position] = "BROKEN"
    begun = time.monotonic()
    statuses, _, err = run_ranks("-c", command(tmp_path / "log", f"({', '.join(numbers)})"))
    assert time.monotonic() - begun < 60
    assert "CompileTimeAssertionFailure" in err
    assert (statuses[position], statuses[1 - position]) == (1, 2), err

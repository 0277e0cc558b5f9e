"""Every command: its module, its parser, and a run of it in this process."""

import argparse
import contextlib
import importlib
import io
from typing import NamedTuple

import pytest

from tests.support.samples import ROOT
from utils.runtime.program_end import user_errors_end_the_program

COMMANDS = [
    *("DR_training", "D_testing"),
    *(f"tools.{path.stem}" for path in sorted((ROOT / "tools").glob("*.py")) if "__main__" in path.read_text()),
]


class Ended(NamedTuple):
    status: int
    stdout: str
    stderr: str


def parser_of(command: str) -> argparse.ArgumentParser:
    """Return the parser of a command's module, with all that is added to it."""
    found = []
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(argparse.ArgumentParser, "parse_args", lambda self, *_: found.append(self) or 1 / 0)
        module = importlib.import_module(command)
        with pytest.raises(ZeroDivisionError):
            getattr(module, "parse_args", module.main)([])
    return found[0]


def run_command(command: str, arguments: list[str]) -> Ended:
    """Run a command as its module does; what is no end of a program is raised."""
    module = importlib.import_module(command)
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            with user_errors_end_the_program():
                parse = getattr(module, "parse_args", lambda given: given)
                status = module.main(parse(arguments)) or 0
        except SystemExit as end:
            status = end.code or 0
    return Ended(status, out.getvalue(), err.getvalue())

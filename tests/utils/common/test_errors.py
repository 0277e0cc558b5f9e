"""How a program ends: with a line and a status, whoever reads its output."""

import os
import subprocess
import sys

import pytest

from tests.support.samples import ROOT

pytestmark = pytest.mark.slow


@pytest.mark.skipif(os.name == "nt", reason="has no such pipes")
def test_output_that_nobody_reads(monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)

    def outcome(ending, errors=subprocess.PIPE):
        script = f"""
from utils.common.errors import UserError
from utils.runtime.program_end import user_errors_end_the_program
with user_errors_end_the_program():
    print("what was found")
    {ending}
"""
        program = [sys.executable, "-c", script]
        process = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
        process.stdout.close()
        told = process.stderr.read() if process.stderr else ""
        return process.wait(), told.strip().partition(";")[0]

    unread = "error: what read the output has ended"
    assert outcome("pass") == outcome("print(flush=True)") == (141, unread)
    assert outcome("print(flush=True)", errors=subprocess.STDOUT) == (141, "")
    assert outcome("raise UserError('no such folder')") == (2, "error: no such folder")
    assert outcome("raise UserError('no such folder')", errors=subprocess.STDOUT) == (2, "")
    assert outcome("raise SystemExit(0)") == (0, "")
    assert outcome("raise PermissionError(13, 'denied', 'a.png')") == (2, "error: a.png cannot be opened: denied")
    status, told = outcome("raise PermissionError('of a file that it does not name')")
    assert (status, told.splitlines()[-1]) == (1, "PermissionError: of a file that it does not name")

"""How a program ends: with a message and a status, also if its output is not read."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.samples import ROOT
from utils.common.errors import counted

pytestmark = pytest.mark.slow

# Each ending in a process of its own, forked from one interpreter: its output is not read, its errors by the test.
PROGRAM = """
import json, os, sys
from utils.common.errors import UserError
from utils.runtime.program_end import user_errors_end_the_program
for ending, joined in json.loads(sys.argv[1]):
    unread, output = os.pipe()
    os.close(unread)
    reading, errors = os.pipe()
    if not (child := os.fork()):
        os.dup2(output, 1), os.dup2(output if joined else errors, 2)
        os.close(output), os.close(errors)
        with user_errors_end_the_program():
            print("what was found")
            exec(ending)
        sys.exit()
    os.close(output), os.close(errors)
    text = open(reading).read().strip().partition(";")[0]
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text]), flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="has no such pipes")
def test_output_that_nobody_reads(monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    unread = [141, "error: the reader of the output has ended"]
    refused, denied = "raise UserError('no such folder')", "raise PermissionError(13, 'denied', 'a.png')"
    expected = (  # what the program does, whether its errors go where its output goes, its status and last line
        ("pass", False, unread),
        ("print(flush=True)", False, unread),
        ("print(flush=True)", True, [141, ""]),
        (refused, False, [2, "error: no such folder"]),
        (refused, True, [2, ""]),
        ("raise SystemExit(0)", False, [0, ""]),
        (denied, False, [2, "error: a.png cannot be opened: denied"]),
        ("open('x' * 300)", False, [2, f"error: {'x' * 300} cannot be opened: File name too long"]),
        ("raise PermissionError('no name')", False, [1, "PermissionError: no name"]),
    )
    endings = json.dumps([row[:2] for row in expected])
    result = subprocess.run([sys.executable, "-c", PROGRAM, endings], cwd=ROOT, capture_output=True, text=True)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(found) == len(expected), result.stderr
    for (ending, joined, (status, line)), (ended, text) in zip(expected, found, strict=True):
        assert (ended, (text.splitlines() or [""])[-1]) == (status, line), (ending, joined)


def test_a_number_with_its_noun():
    assert [counted(number, "image") for number in (0, 1, 2103)] == ["0 images", "1 image", "2,103 images"]
    assert [counted(number, "patch", "patches") for number in (1, 6)] == ["1 patch", "6 patches"]

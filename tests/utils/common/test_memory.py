"""How much memory is free, and which errors are a lack of it."""

import ctypes
import resource

import cv2
import numpy as np
import pytest
import torch

from tests.support.processes import run_script
from utils.common.errors import UserError
from utils.common.memory import free_memory, out_of_memory

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def test_free_memory_knows_the_processs_limit():
    assert 0 < free_memory(CPU) < 2**44
    code = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({2**36},) * 2)\n"
    code += "import torch; from utils.common.memory import free_memory; print(free_memory(torch.device('cpu')))"
    assert int(run_script("-c", code).stdout) < 2**36
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_a_lack_of_memory_is_recognised_in_all_libraries():
    def by_opencv():
        cv2.copyMakeBorder(np.zeros((1, 1), np.uint8), 0, 2**24, 0, 2**24, cv2.BORDER_CONSTANT)

    def by_numpy():
        np.ones(2**60, np.uint8)

    def by_pytorch():
        torch.empty(2**60)

    def in_a_message():
        raise UserError("the picture does not fit") from MemoryError()

    for lack in (by_opencv, by_numpy, by_pytorch, in_a_message):
        with pytest.raises(Exception) as error:  # noqa: PT011 (each has a type of its own)
            lack()
        assert out_of_memory(error.value), lack.__name__
    assert not out_of_memory(UserError("no such folder"))


ALLOCATE = """
import resource, sys
import numpy as np
from utils.common.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for i in range(21):
    image = [np.ones(size * 2**20, np.uint8) for size in (3, 11, 3)]
    del image
    first = first if i else resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - first)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_memory_that_is_freed_is_taken_again_without_page_faults():
    faults = {how: int(run_script("-c", ALLOCATE, how).stdout) for how in ("kept", "given back")}
    assert faults["kept"] < faults["given back"] / 5, faults

"""The list of pictures that a run has begun, when a kill or a full disk cut a line of it."""

import os

import pytest
import torch

from utils.common.errors import UserError
from utils.runtime.distributed import DistributedContext
from utils.testing.result_files import find_previous_run
from utils.testing.results import Results


def test_a_list_cut_in_its_last_line_is_read_up_to_there(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    for cut in ('"photos/b', '"photos/b\n', '"photos/b"photos/c.png"\n'):
        (tmp_path / "unfinished-rank1.jsonl").write_text(f'"photos/a.png"\n{cut}')
        earlier = find_previous_run(tmp_path, resume=True, overwrite=False)
        assert earlier.begun == {"photos/a.png"}
        assert earlier.made(tmp_path / "photos" / "a.png")


@pytest.mark.skipif(os.name == "nt", reason="has no limit of a file's size")
def test_a_full_disk_leaves_no_part_of_a_line_in_the_list(tmp_path):
    import resource

    results = Results(tmp_path, {}, DistributedContext(torch.device("cpu")))
    results.write()
    results.begin(tmp_path / "a.png")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len('"a.png"\n"b.'), limits[1]))
        with pytest.raises(UserError, match=r"unfinished\.jsonl cannot be written: File too large"):
            results.begin(tmp_path / "b.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    results.begin(tmp_path / "c.png")  # another thread's, once there is room again
    assert find_previous_run(tmp_path, resume=True, overwrite=False).begun == {"a.png", "c.png"}

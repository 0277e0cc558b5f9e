"""Files changed at random are read, the same each time, or refused: no traceback, no line of a library."""

import random
import sys

import pytest
import tifffile
from PIL import features

from tests.support.pictures import VALUES, png
from tests.support.processes import run_script

FUZZ = """
import random, resource, sys
from pathlib import Path
from utils.images.codecs import UnreadableError
from utils.images.photographs import read_picture
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2 * 2**30, resource.RLIM_INFINITY))
def outcome(path):
    try:
        picture = read_picture(path)
        return picture.pixels.tobytes(), picture.alpha is None
    except UnreadableError as error:
        return str(error)
whole, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
content, rng, target = whole.read_bytes(), random.Random(seed), whole.with_name("mutated" + whole.suffix)
for i in range(count):
    mutated = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        mutated[rng.randrange(min(len(mutated), rng.choice((64, 512, 10**9))))] = rng.randrange(256)
    target.write_bytes(mutated[: rng.randrange(len(mutated))] if rng.random() < 0.1 else mutated)
    outcomes = [outcome(target) for _ in range(2)]
    lacks = any(isinstance(each, str) and "does not fit into memory" in each for each in outcomes)  # may come and go
    assert lacks or outcomes[0] == outcomes[1], (i, [each if isinstance(each, str) else "" for each in outcomes])
print("done")
"""


def fuzz(tmp_path, photo, suffix: str, count: int) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix.startswith("deep"):
        path = tmp_path / f"a.{suffix[5:]}"
        if suffix == "deep.tif":
            tifffile.imwrite(path, VALUES[..., :3], photometric="rgb", compression="lzw")
        else:
            path.write_bytes(png(VALUES, 16, 6))
    else:
        photo.save(path)
    result = run_script("-c", FUZZ, str(path), str(random.Random(suffix).randrange(1000)), str(count))
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


FORMATS = ["png", "jpg", "tif", "webp", "bmp", "deep.tif", "deep.png", *(["avif"] if features.check("avif") else [])]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_files_changed_at_random_are_read_or_refused(tmp_path, photo):
    for suffix in FORMATS:
        fuzz(tmp_path, photo, suffix, 7)


@pytest.mark.large
@pytest.mark.parametrize("suffix", FORMATS)
def test_thousands_of_files_changed_at_random(tmp_path, photo, suffix):
    fuzz(tmp_path, photo, suffix, 2000)

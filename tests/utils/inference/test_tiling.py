"""Tiles: weights that add up, seams that do not show, memory that is short, and images far larger than memory."""

import itertools
import sys

import numpy as np
import pytest
import torch

import D_testing
from models import DeblurringNet
from models.released_names import DEBLURRING_KEY, from_released
from tests.support.processes import run_script
from tests.support.samples import SAMPLE, load
from utils.common.errors import UserError
from utils.inference.evaluation import restore
from utils.inference.restorer import Restorer
from utils.inference.tiling import GRID, MIN_TILE, Tiling, parse_tile

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network():
    """A small network as it is initialised."""
    torch.manual_seed(0)
    return DeblurringNet(4).eval()


@pytest.mark.parametrize(("size", "overlap"), [(128, 64), (480, 32), (480, 240), (512, 0), (1024, 320)])
def test_weights_add_up_to_1_and_no_tile_is_larger_than_asked(size, overlap):
    for length in [*range(100, 1500, 37), size, size + 1, size + GRID, size + GRID + 1, 2 * size, 5000]:
        spans = Tiling(size, overlap).spans(length)
        total = np.zeros(length, np.float64)
        for span in spans:
            total[span.start : span.stop] += span.weights
            assert span.start % GRID == 0
            assert span.stop - span.start <= size + GRID
        np.testing.assert_allclose(total, 1, atol=1e-6)
        for first, second in itertools.pairwise(spans):
            assert first.stop - second.start >= overlap


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(360, 480), (353, 479)])
def test_seams_cannot_be_seen(network, shape):
    """PSNR of at least 60 dB against the whole image, and no more than 0.01 % of the pixels 1/255 away."""
    image = load(SAMPLE)[: shape[0], : shape[1]]
    whole = restore(network, image, CPU)
    tiled = Restorer(network, 4, CPU, tile=256, overlap=128)(image)
    difference = np.abs(tiled - whole)
    assert tiled.shape == whole.shape
    assert -10 * np.log10((difference**2).mean()) >= 60
    assert (difference.max(axis=2) > 1 / 255).mean() <= 1e-4
    assert difference.max() > 0  # it was cut


@pytest.mark.slow
def test_nor_with_weights_whose_offsets_reach_far(released_weights):
    """The reference weights move samples by up to 140 px; 128 px of overlap would give 45 dB and 8 % of the pixels."""
    network = DeblurringNet().eval()
    network.load_state_dict(from_released(released_weights("deblurring", 0), DEBLURRING_KEY))
    network.to(memory_format=torch.channels_last)
    image = load(SAMPLE)[:128]
    difference = np.abs(Restorer(network, 32, CPU, tile=480, overlap=240)(image) - restore(network, image, CPU))
    assert -10 * np.log10((difference**2).mean()) >= 60
    assert (difference.max(axis=2) > 1 / 255).mean() <= 1e-4


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiles_are_the_image_where_nothing_is_changed(dtype):
    image = load(SAMPLE)[:301, :402].astype(dtype)
    peak = np.iinfo(dtype).max
    tiled = np.zeros(image.shape, np.float32)
    for part, weights in Tiling(128, 64).tiles(*image.shape[:2]):
        tiled[part] += image[part].astype(np.float32) / peak * weights
    np.testing.assert_allclose(tiled, image / peak, atol=1e-6)


def test_the_eight_flips_and_rotations_are_averaged(network):
    image = load(SAMPLE)[:64, :80]
    expected = []
    for turns in range(4):
        for flip in (False, True):
            turned = np.rot90(image[:, ::-1] if flip else image, turns)
            back = np.rot90(restore(network, np.ascontiguousarray(turned), CPU), -turns)
            expected.append(back[:, ::-1] if flip else back)
    result = Restorer(network, 4, CPU, self_ensemble=True)(image)
    np.testing.assert_allclose(result, np.mean(expected, axis=0), atol=1e-6)
    assert np.abs(result - restore(network, image, CPU)).max() > 1e-5


def test_too_little_memory_makes_tiles_smaller_and_is_an_error_where_they_were_chosen(network):
    """A network that, like a GPU, refuses what is larger than it can hold."""

    def limited(x):
        if x.shape[2] * x.shape[3] > 200**2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return network(x)

    image, lines = load(SAMPLE)[:300, :400], []
    restorer = Restorer(limited, 4, CPU, tile="auto", log=lines.append)
    result = restorer(image)
    assert restorer.tiling.size == 200
    assert lines == ["not enough memory for 400×300 px: continuing with tiles of 200 px"]
    np.testing.assert_allclose(result, restore(network, image, CPU), atol=0.02)
    with pytest.raises(UserError, match=r"for 400×300 px with --tile off \(CUDA out of memory.*give --tile auto"):
        Restorer(limited, 4, CPU)(image)

    def hopeless(x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match="even in the smallest tiles"):
        Restorer(hopeless, 4, CPU, tile="auto", log=lines.append)(image)

    def broken(x):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        Restorer(broken, 4, CPU, tile="auto")(image)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_a_real_lack_of_main_memory_is_met_with_tiles():
    """A process that may take 100 MiB more than it has."""
    script = """
import resource, sys
import numpy as np, torch
from models import DeblurringNet
from utils.inference.restorer import Restorer
torch.set_num_threads(1)
network = DeblurringNet(8).eval()
network(torch.zeros(1, 3, 16, 16))
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20,) * 2)
for tile in ("auto", None):
    restorer = Restorer(network, 8, torch.device("cpu"), tile=tile, overlap=64)
    print(restorer.tiling.size, flush=True)
    try:
        print(restorer(np.zeros((700, 900, 3), np.uint8)).shape, flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
"""
    result = run_script("-c", script)
    lines = result.stdout.split("\n")
    assert result.returncode == 0, result.stderr
    assert MIN_TILE <= int(lines[0]) < 600
    assert "(700, 900, 3)" in lines
    assert lines[-3:-1] == ["None", "UserError"]


@pytest.mark.parametrize("text", ["0", "100", "130", "-256", "big", " "])
def test_tiles_that_make_no_sense(text, capsys):
    with pytest.raises(SystemExit):
        D_testing.parse_args(["--testset_dir", "photos", f"--tile={text}"])
    expected = f"argument --tile: expected auto, off, or a multiple of 4 from 128 up, got {text!r}"
    assert expected in capsys.readouterr().err
    assert parse_tile("256") == 256
    assert parse_tile("off") is None

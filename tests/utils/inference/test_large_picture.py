"""A photograph of 100 megapixels within 24 GiB; `pytest -m large` runs it, which takes minutes."""

import csv
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from models import DeblurringNet
from models.checkpoint import load_deblurring_net
from tests.support.samples import ROOT, SAMPLE, load
from utils.images.conversion import to_uint8
from utils.inference.evaluation import restore
from utils.training.network_files import save_network

LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_AS, (24 * 2**30,) * 2)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.large
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_a_picture_of_100_megapixels_is_restored_within_24_gib(tmp_path):
    """The bundled picture tiled 23 times down and 18 times across, by the script, in a process of 24 GiB."""
    torch.manual_seed(0)
    save_network(tmp_path / "DeblurringNet_FT.pth", DeblurringNet(2), "finetune", 1)
    picture = np.tile(load(SAMPLE), (23, 18, 1))
    assert picture.shape == (8832, 11520, 3)
    Image.fromarray(picture).save(tmp_path / "large.png", compress_level=1)
    command = ["D_testing.py", "--testset_dir", str(tmp_path / "large.png"), "--save_dir", str(tmp_path / "out")]
    command += ["--weights", str(tmp_path / "DeblurringNet_FT.pth"), "--device", "cpu"]
    result = subprocess.run([sys.executable, "-c", LIMITED, *command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    with (tmp_path / "out" / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["height"], row["width"]) == ("8832", "11520")
    with Image.open(tmp_path / "out" / "large.png") as image:
        restored = np.asarray(image)
    # The same as without tiles, wherever a part of the picture is looked at with enough around it.
    network = load_deblurring_net(tmp_path / "DeblurringNet_FT.pth").to(memory_format=torch.channels_last)
    for top, left in ((0, 0), (4096, 5632), (8832 - 640, 11520 - 640)):
        part = np.s_[top : top + 640, left : left + 640]
        inner = np.s_[200:440, 200:440]
        expected = to_uint8(restore(network, picture[part], torch.device("cpu")))[inner]
        assert np.abs(restored[part][inner].astype(int) - expected).max() <= 1

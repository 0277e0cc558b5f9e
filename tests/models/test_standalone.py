"""The package alone, under another name and with another project's `utils`."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.support.samples import ROOT

PROGRAM = """
import sys
import torch
import aspdc_net
from aspdc_net import load_deblurring_net, load_reblurring_net
from aspdc_net.checkpoint import CheckpointError

deblurring = load_deblurring_net(sys.argv[1] + "/DeblurringNet_NF.pth")
reblurring = load_reblurring_net(sys.argv[1] + "/ReBlurringNet.pth")
image = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
with torch.no_grad():
    ours = reblurring(image, deblurring(image))
try:
    load_deblurring_net("nowhere.pth")
except CheckpointError as error:
    assert "nowhere.pth does not exist" in str(error)
assert "utils" not in sys.modules and "models" not in sys.modules

sys.path.append(sys.argv[2])  # both at once
import models
with torch.no_grad():
    theirs = models.load_deblurring_net(sys.argv[1] + "/DeblurringNet_NF.pth")(image)
    assert torch.equal(deblurring(image), theirs)
import utils
assert utils.MINE
"""


@pytest.mark.slow
def test_another_project_loads_it_under_a_name_of_its_own(tmp_path, small_networks):
    shutil.copytree(ROOT / "models", tmp_path / "aspdc_net")
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "__init__.py").write_text("MINE = True\n")
    command = [sys.executable, "-c", PROGRAM, str(small_networks), str(ROOT)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr

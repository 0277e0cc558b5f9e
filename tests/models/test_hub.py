"""The networks by torch.hub, beside a project with its own `models` and `utils`, and the code in docs/reuse.md."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import hubconf
from models.checkpoint import BUNDLED, load_deblurring_net
from tests.support.samples import ROOT, SAMPLE, load, save

# What stands in the working directory and what the program imports first are the project's own.
PROGRAM = """
import copy, pickle, sys
import torch
ours, weights, first = sys.argv[1:]
if first == "project":
    import models, utils
path, before = list(sys.path), set(sys.modules)

deblurring = torch.hub.load(ours, "deblurring_net", source="local", weights=weights + "/DeblurringNet_NF.pth")
reblurring = torch.hub.load(ours, "reblurring_net", source="local", weights=weights + "/ReBlurringNet.pth")
assert sys.path == path
added = {name.partition(".")[0] for name in set(sys.modules) - before}
assert not added & {"models", "utils", "datasets", "losses", "tools"}, added

import models, utils
from models import late, mine
from utils import late as other
assert (mine, late.WHOSE, utils.WHOSE, other.WHOSE) == ("theirs",) * 4
assert models.__file__ != sys.modules[type(deblurring).__module__].__file__

image = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
deblurring.deform_op = reblurring.deform_op = "torchvision"  # imports late, as it is used
again = torch.hub.load(ours, "deblurring_net", source="local", weights=weights + "/DeblurringNet_NF.pth")
assert type(again) is type(deblurring)
with torch.no_grad():
    deblurred = deblurring(image)
    for other in (again, copy.deepcopy(deblurring), pickle.loads(pickle.dumps(deblurring))):
        other.deform_op = "torchvision"
        assert torch.equal(other(image), deblurred)
    torch.save([image, deblurred, reblurring(image, deblurred)], "outputs.pth")
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", ["project", "hub"])
def test_both_projects_go_on_working(tmp_path, small_networks, first):
    for package in ("models", "utils"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("WHOSE = mine = 'theirs'\n")
        (tmp_path / package / "late.py").write_text("WHOSE = 'theirs'\n")
    command = [sys.executable, "-c", PROGRAM, str(ROOT), str(small_networks), first]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    image, deblurred, _ = torch.load(tmp_path / "outputs.pth", weights_only=True)
    network = load_deblurring_net(small_networks / "DeblurringNet_NF.pth", deform_op="torchvision")
    torch.testing.assert_close(network(image), deblurred)


def test_torch_hub_lists_the_two_networks():
    listed = [name for name, each in vars(hubconf).items() if callable(each) and name[0] != "_"]
    assert listed == ["deblurring_net", "reblurring_net"]
    assert hubconf.dependencies == ["torch"]


def test_another_clone_is_another_package_with_operations_of_its_own(tmp_path):
    shutil.copytree(ROOT / "models", tmp_path / "models")
    shutil.copy(ROOT / "hubconf.py", tmp_path)
    (tmp_path / BUNDLED.parent.name).mkdir()
    shutil.copy(BUNDLED, tmp_path / BUNDLED.parent.name)
    networks = [torch.hub.load(str(folder), "deblurring_net", source="local") for folder in (ROOT, tmp_path)]
    expected = load_deblurring_net(BUNDLED).state_dict()
    for network in networks:
        assert not network.training
        assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())
    packages = [type(network).__module__.partition(".")[0] for network in networks]
    operations = {
        sys.modules[f"{package}.ops.dynamic_filter.op"].filter_by_logits._qualname for package in (*packages, "models")
    }
    assert len(operations) == 3


@pytest.mark.slow
def test_the_code_in_the_docs_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "final_model").symlink_to(ROOT / "final_model")
    blurry = load(SAMPLE)[100:148, 200:264]
    save(tmp_path / "shaky.png", blurry)
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "reuse.md").read_text(encoding="utf-8"), re.DOTALL)
    results = []
    for example in examples:
        exec(example.replace("/path/to/this/repository", str(ROOT)), {})
        results.append(np.asarray(Image.open("sharp.png")))
        (tmp_path / "sharp.png").unlink()
    assert len(examples) == 2
    assert np.abs(results[0].astype(int) - results[1]).max() <= 1  # of another back end
    assert (results[0] != blurry).any()


@pytest.mark.parametrize("network", [hubconf.deblurring_net, hubconf.reblurring_net])
def test_a_device_that_is_not_there_is_refused_with_advice(network):
    with pytest.raises(RuntimeError, match=r'device="cuda:99" is not available \(.*\); try device="cpu"'):
        network(device="cuda:99")

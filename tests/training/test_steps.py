"""A step of each stage, compared with a few lines of PyTorch; what a run imports before its first one."""

import copy
import subprocess
import sys

import pytest
import torch

from DR_training import Deblur, Finetune, Reblur, training_step
from models import DeblurringNet, ReblurringNet
from models.blocks import Conv
from models.ops.common.kernel_weights import kernel_weights
from tests.support.samples import ROOT, SAMPLES, load
from tests.support.training import arguments
from utils.images.conversion import to_tensor
from utils.training import OptimizationSettings, TrainingState

STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def loss_of(image, target):
    """L of the paper: MSE of images in [0, 1], normalised as for ImageNet; these are in [-1, 1]."""
    return ((image / 2 - target / 2) / STD).pow(2).mean()


@pytest.fixture
def pairs():
    """Four crops of a real pair."""
    (blurry,), (sharp,) = (sorted(SAMPLES.glob(f"train/*/{side}/000047.png")) for side in ("blur", "sharp"))
    crops = [[to_tensor(load(file)[y : y + 32, 100:140]) for y in range(0, 128, 32)] for file in (blurry, sharp)]
    return [torch.stack(each) for each in crops]


@pytest.mark.parametrize("parts", [("reblur", "deblur"), ("deblur", "edges"), ("deblur",)])
def test_parts_of_a_loss_that_would_be_logged_under_other_names_are_refused(pairs, parts):
    class Other(Finetune):
        def forward(self, batch):
            output = super().forward(batch)
            return output._replace(parts=dict.fromkeys(parts, output.loss))

    stage, (b, x) = Other(DeblurringNet(2), ReblurringNet(2), 1.0, 0.1), pairs
    with pytest.raises(
        ValueError, match=r"stage finetune returned the parts .*, its `parts` are \('deblur', 'reblur'\)"
    ):
        stage({"blurry": b, "sharp": x, "has_sharp": torch.ones(4)})


def test_kernel_weights_of_the_frozen_network_alone_are_kept():
    stage, built = Finetune(DeblurringNet(2), ReblurringNet(2), 1.0, 0.1), []
    with stage.frozen_weights_cached():
        for network in (stage.network, stage.consistency.reblurring_net):
            layer = next(each for each in network.modules() if isinstance(each, Conv))
            for _ in range(2):
                kernel_weights(layer, "key", lambda network=network: built.append(network))
    assert built == [stage.network, stage.network, stage.consistency.reblurring_net]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", ["reblur", "deblur", "finetune"])
def test_a_step_of_each_stage_is_five_lines_of_pytorch(pairs, name, accumulate):
    torch.manual_seed(0)
    d, r, (b, x) = DeblurringNet(4, deform_op="torchvision"), ReblurringNet(2, "torchvision"), pairs
    plain_d, plain_r = copy.deepcopy(d), copy.deepcopy(r)
    stage = Reblur(r) if name == "reblur" else Deblur(d) if name == "deblur" else Finetune(d, r, 1.0, 0.1)
    trained = stage.network
    losses = {
        "reblur": lambda: loss_of(plain_r(b, x), b),
        "deblur": lambda: loss_of(plain_d(b), x),
        "finetune": lambda: loss_of(plain_d(b), x) + 0.1 * loss_of(plain_r(b, plain_d(b)), b),
    }
    plain = plain_r if name == "reblur" else plain_d
    training = TrainingState(trained, 1e-3, OptimizationSettings(accumulate=accumulate))
    optimizer = torch.optim.Adam(plain.parameters(), 1e-3)
    for _ in range(2):
        batch = {"blurry": b, "sharp": x, "has_sharp": torch.ones(4)}
        _, numbers = training_step(stage, training, weight=torch.tensor(1 / 4), notes=torch.zeros(2), **batch)
        optimizer.zero_grad()
        loss = losses[name]()
        loss.backward()
        optimizer.step()
        torch.testing.assert_close(numbers[0], loss.detach())
    for ours, theirs in zip(trained.parameters(), plain.parameters(), strict=True):
        # Adam's first steps are all of one size: where a gradient is next to nothing, its sign may be any.
        assert (ours - theirs).abs().max() < 4e-3
        assert ((ours - theirs).abs() > 1e-6).float().mean() < 0.02


@pytest.mark.slow
def test_the_first_step_does_not_wait_for_libraries_that_it_has_no_use_for(tmp_path):
    script = """
import sys, DR_training
unwanted, step = ("matplotlib", "sympy", "torch._dynamo", "torch._inductor", "torchvision"), DR_training.training_step
def watched(*args, **kwargs):
    result = step(*args, **kwargs)
    print([each for each in unwanted if each in sys.modules])
    return result
DR_training.training_step = watched
DR_training.main(DR_training.parse_args(sys.argv[1:]))
"""
    command = [sys.executable, "-c", script, *arguments(tmp_path, "--stage", "reblur", "--max_steps", "1")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "[]" in run.stdout.splitlines()

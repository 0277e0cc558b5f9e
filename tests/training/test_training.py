"""The training script: what each stage moves and leaves alone, what it writes, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import DR_training
from losses import NormalizedMSELoss
from models import DeblurringNet
from models.checkpoint import CheckpointError, load_deblurring_net, load_reblurring_net
from tests.support.networks import SMALL_WIDTH
from tests.support.processes import run_script
from tests.support.samples import SAMPLES, save
from tests.support.training import arguments, curves, train, values
from utils.common.errors import UserError
from utils.images.codecs import read_image
from utils.images.conversion import to_float_image, to_tensor
from utils.metrics.numpy_metrics import psnr


def unpaired_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for file in sorted((SAMPLES / "train").glob("*/blur/*.png")):
        shutil.copy(file, folder)
    return folder


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.slow
def test_the_script_trains_all_stages_on_real_pairs(tmp_path):
    result = run_script("DR_training.py", *arguments(tmp_path, "--stage", "all", "--n_epochs", "2"))
    assert result.returncode == 0, result.stderr
    for stage, name in (("reblur", "ReBlurringNet"), ("deblur", "DeblurringNet_NF"), ("finetune", "DeblurringNet_FT")):
        content = torch.load(tmp_path / "nets" / f"{name}.pth", weights_only=True)
        assert (content["stage"], content["epoch"]) == (stage, 2)
        (folder,) = (tmp_path / "log").glob(f"{stage}_*")
        recorded = json.loads((folder / "arguments.json").read_text())
        assert recorded["arguments"]["batch_size"] == 2
        assert recorded["versions"]["torch"] == torch.__version__
        lines = (folder / "log.txt").read_text().splitlines()
        assert len([line for line in lines if f"{stage}: epoch" in line]) == 2
        board = curves(tmp_path / "log", stage)
        assert {"loss/total", "lr", "time/data", "time/step"} <= set(board.Tags()["scalars"])
        assert board.Tags()["images"]
    assert "gopro, 2 pairs (GOPR0372_07_00/{blur,sharp}/*.png)" in result.stdout
    assert "finetune: 100%" in result.stderr  # the bar


@pytest.mark.slow
def test_what_moves_and_what_stays(tmp_path, small_networks):
    before_r = load_reblurring_net(small_networks / "ReBlurringNet.pth")
    before_nf = load_deblurring_net(small_networks / "DeblurringNet_NF.pth")
    files = {path.name: path.read_bytes() for path in small_networks.iterdir()}

    train(tmp_path, "--stage", "finetune", "--max_steps", "2", "--overwrite")
    tuned = load_deblurring_net(small_networks / "DeblurringNet_FT.pth")
    for (name, old), new in zip(before_nf.state_dict().items(), tuned.state_dict().values(), strict=True):
        assert not torch.equal(old, new), f"{name} did not move"
    for name in ("ReBlurringNet.pth", "DeblurringNet_NF.pth"):
        assert (small_networks / name).read_bytes() == files[name]

    train(tmp_path, "--stage", "reblur", "--max_steps", "1", "--overwrite")
    assert not same(load_reblurring_net(small_networks / "ReBlurringNet.pth"), before_r)
    assert (small_networks / "DeblurringNet_NF.pth").read_bytes() == files["DeblurringNet_NF.pth"]


def test_finetune_is_the_published_sum_and_unpaired_images_miss_its_first_term(tmp_path, small_networks):
    more = ("--stage", "finetune", "--lambda_A", "0.7", "--lambda_B", "0.3")
    args = DR_training.parse_args(arguments(tmp_path, *more))
    stage = DR_training.make_stage("finetune", args, torch.device("cpu"))
    reblurring = load_reblurring_net(small_networks / "ReBlurringNet.pth")
    generator = torch.Generator().manual_seed(0)
    blurry, sharp = torch.rand(2, 2, 3, 16, 16, generator=generator) * 2 - 1
    paired = torch.tensor([1.0, 0.0])
    total, parts, deblurred = stage({"blurry": blurry, "sharp": sharp, "has_sharp": paired})
    criterion = NormalizedMSELoss()
    first = criterion(deblurred[:1], sharp[:1]) / 2  # of a mean over both images
    second = criterion(reblurring(blurry, deblurred), blurry)
    torch.testing.assert_close(total, 0.7 * first + 0.3 * second)
    torch.testing.assert_close(parts["deblur"], first)
    torch.testing.assert_close(parts["reblur"], second)


@pytest.mark.slow
def test_unpaired_images_alone_can_finetune_with_a_warning(tmp_path, small_networks, capsys):
    folder = unpaired_folder(tmp_path)
    save(folder / "small.png", size=(31, 40))
    train(tmp_path, "--stage", "finetune", "--max_steps", "2", "--overwrite", trainset=(f"unpaired={folder}",))
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WARNING: ")]
    assert "no set of --trainset_dir has sharp images" in warnings[0]
    assert "1 of 3 frames are smaller than a patch of 32×32 px" in warnings[1]
    assert values(tmp_path / "log", "finetune", "loss/deblur") == [0.0, 0.0]
    assert min(values(tmp_path / "log", "finetune", "loss/reblur")) > 0
    tuned, start = (load_deblurring_net(small_networks / f"DeblurringNet_{name}.pth") for name in ("FT", "NF"))
    assert not same(tuned, start)


@pytest.mark.slow
def test_unpaired_images_take_no_part_in_the_other_stages(tmp_path):
    folder = unpaired_folder(tmp_path)
    train(tmp_path, "--stage", "deblur", "--n_epochs", "1", trainset=(str(SAMPLES), f"unpaired={folder}"))
    (log,) = (tmp_path / "log").glob("deblur_*/log.txt")
    assert "deblur: 2 frames" in log.read_text()
    with pytest.raises(UserError, match="--stage reblur needs sharp images, and no set of --trainset_dir has any"):
        train(tmp_path, "--stage", "reblur", trainset=(f"unpaired={folder}",))


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "start"), [("reblur", 1e-4), ("deblur", 1e-4), ("finetune", 1e-5)])
def test_learning_rate_of_the_stage_halves_every_n_steps_epochs(tmp_path, small_networks, stage, start):
    train(tmp_path, "--stage", stage, "--n_epochs", "5", "--n_steps", "2", "--overwrite")
    rates = values(tmp_path / "log", stage, "lr")  # one step an epoch
    assert rates == pytest.approx([start, start, start / 2, start / 2, start / 4])


@pytest.mark.slow
def test_learning_rate_rises_over_the_first_steps_also_after_a_resume(tmp_path):
    more = ("--stage", "deblur", "--warmup_steps", "4", "--n_steps", "3", "--lr", "1e-3")
    train(tmp_path, *more, "--n_epochs", "2")
    train(tmp_path, *more, "--n_epochs", "6", "--resume", "auto")
    rates = values(tmp_path / "log", "deblur", "lr")  # one step an epoch
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 5e-4, 5e-4, 5e-4])


@pytest.mark.slow
def test_a_warm_up_that_does_not_end_is_a_warning(tmp_path):
    for steps in (2, 3):
        train(tmp_path / str(steps), "--stage", "deblur", "--warmup_steps", str(steps), "--n_epochs", "2")
    text = "rises over 3 steps to 0.0001, which a run of 2 steps does not reach; give fewer --warmup_steps"
    found = [text in next((tmp_path / steps / "log").glob("*/log.txt")).read_text() for steps in "23"]
    assert found == [False, True]


@pytest.mark.slow
def test_a_new_adam_harms_a_trained_network_less_with_a_warm_up(tmp_path, small_networks):
    start = small_networks / "DeblurringNet_NF.pth"
    more = ("--stage", "deblur", "--deblurring_weights", str(start), "--max_steps", "1", "--n_epochs", "1")
    for name, steps in (("without", "0"), ("with", "100")):
        train(tmp_path / name, *more, "--warmup_steps", steps)
    begin = load_deblurring_net(start).state_dict()
    found = {}
    for name in ("without", "with"):
        state = load_deblurring_net(tmp_path / name / "nets" / "DeblurringNet_NF.pth").state_dict()
        found[name] = torch.cat([(state[key] - begin[key]).flatten() for key in state]).abs().max().item()
    assert found["with"] == pytest.approx(found["without"] / 100, rel=0.05)  # Adam's first step is the rate itself


@pytest.mark.slow
def test_learning_rate_and_its_factor_can_be_chosen(tmp_path):
    train(tmp_path, "--stage", "reblur", "--n_epochs", "2", "--n_steps", "1", "--lr", "3e-4", "--gamma", "0.1")
    assert values(tmp_path / "log", "reblur", "lr") == pytest.approx([3e-4, 3e-5])


def test_published_defaults():
    args = DR_training.parse_args([])
    names = ("batch_size", "patch_size", "gamma", "n_epochs", "n_steps", "lambda_A", "lambda_B")
    assert [getattr(args, name) for name in names] == [6, 256, 0.5, 1000, 200, 1.0, 0.1]
    stages = (DR_training.Reblur, DR_training.Deblur, DR_training.Finetune)
    assert {stage.name: stage.lr for stage in stages} == {"reblur": 1e-4, "deblur": 1e-4, "finetune": 1e-5}


@pytest.mark.slow
def test_same_seed_same_bits_whatever_the_workers(tmp_path):
    for name, more in (("a", ()), ("b", ("--num_workers", "2")), ("c", ("--seed", "1"))):
        train(tmp_path / name, "--stage", "deblur", "--n_epochs", "2", *more)
    a, b, c = (load_deblurring_net(tmp_path / name / "nets" / "DeblurringNet_NF.pth") for name in "abc")
    assert same(a, b)
    assert not same(a, c)


@pytest.mark.slow
def test_max_steps_ends_in_the_middle_of_an_epoch(tmp_path):
    train(tmp_path, "--stage", "deblur", "--batch_size", "1", "--max_steps", "3")
    assert len(values(tmp_path / "log", "deblur", "loss/total")) == 3


@pytest.mark.slow
def test_existing_networks_are_kept_without_overwrite(tmp_path, small_networks):
    before = (small_networks / "DeblurringNet_NF.pth").read_bytes()
    with pytest.raises(UserError, match=r"NF.pth exists already; give --overwrite to replace it, or another"):
        train(tmp_path, "--stage", "deblur", "--max_steps", "1")
    assert (small_networks / "DeblurringNet_NF.pth").read_bytes() == before
    train(tmp_path, "--stage", "deblur", "--max_steps", "1", "--overwrite")
    assert (small_networks / "DeblurringNet_NF.pth").read_bytes() != before


def test_the_best_network_of_another_run_is_kept_too(tmp_path, small_networks):
    best = (small_networks / "DeblurringNet_NF.pth").rename(small_networks / "DeblurringNet_NF_best.pth")
    with pytest.raises(UserError, match=r"NF_best.pth exists already; give --overwrite to replace it, or another"):
        train(tmp_path, "--stage", "deblur", "--max_steps", "1", "--deblurring_weights", str(best))
    assert best.exists()


@pytest.mark.slow
def test_a_small_network_overfits_a_real_pair():
    torch.manual_seed(0)
    folder = SAMPLES / "test" / "GOPR0881_11_01"
    blurry, sharp = (read_image(folder / side / "000203.png")[40:104, 60:124] for side in ("blur", "sharp"))
    network, criterion = DeblurringNet(6), NormalizedMSELoss()
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    batch, target = to_tensor(blurry).unsqueeze(0), to_tensor(sharp).unsqueeze(0)
    for _ in range(60):
        optimizer.zero_grad()
        criterion(network(batch), target).backward()
        optimizer.step()
    with torch.no_grad():
        restored = to_float_image(network(batch)[0])
    assert psnr(restored, sharp) > psnr(blurry, sharp) + 6


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "load"), [("reblur", load_reblurring_net), ("deblur", load_deblurring_net)])
def test_the_first_two_stages_can_start_from_a_network(tmp_path, small_networks, stage, load, capsys):
    file = {"reblur": "ReBlurringNet.pth", "deblur": "DeblurringNet_NF.pth"}[stage]
    flags = ("--stage", stage, f"--{stage}ring_weights", str(small_networks / file), "--width", "6", "--max_steps", "1")
    train(tmp_path / "new", *flags, "--lr", "1e-4")
    assert (
        f"--width 6 is for new networks: those that were given have a width of {SMALL_WIDTH}" in capsys.readouterr().out
    )
    start, end = (dict(load(folder / file).named_parameters()) for folder in (small_networks, tmp_path / "new/nets"))
    moved = max((end[name] - start[name]).abs().max().item() for name in start)
    assert 0 < moved < 1.01e-4  # Adam's first step is the learning rate


def test_finetune_without_its_networks_explains_how_to_get_them(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"ReBlurringNet.pth does not exist. It holds the network that the reblur stage"
    ):
        train(tmp_path, "--stage", "finetune", "--max_steps", "1")


@pytest.mark.slow
def test_a_damaged_frame_ends_the_run_with_its_name(tmp_path, run_here):
    data = tmp_path / "pairs"
    shutil.copytree(SAMPLES / "train" / "GOPR0372_07_00", data)
    damaged = data / "sharp" / "000047.png"
    damaged.write_bytes(damaged.read_bytes()[:10_000])
    for workers in ("0", "1"):
        result = run_here(
            "DR_training.py", *arguments(tmp_path, "--stage", "deblur", "--num_workers", workers, trainset=(str(data),))
        )
        assert result.returncode == 2
        (message,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert message.startswith(f"error: {damaged} is damaged or incomplete")
        assert "Traceback" not in result.stderr

"""Validation in training, the best network, averaged weights, and what a run's folder holds."""

import csv
import json
import re
import signal
import subprocess
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import skimage.metrics
import torch
from PIL import Image

import D_testing
import DR_training
from models.checkpoint import BUNDLED, load_file
from tests.support.samples import ROOT, load, small_samples
from tests.support.training import curves, log_lines, pairs, same, states, train, weights
from utils.common.errors import UserError
from utils.common.signals import Interruption
from utils.runtime.distributed import DistributedContext
from utils.training.validation import Validation, validate

BEST = "DeblurringNet_NF_best.pth"
VALIDATED = ("--valset_dir", str(small_samples()), "--val_every", "1")


def run(folder: Path, *more: str, stage: str = "deblur", epochs: int = 3) -> Namespace:
    return train(folder, "--stage", stage, "--n_epochs", str(epochs), *more, trainset=(str(pairs(folder)),))


def table(folder: Path) -> list[dict[str, float]]:
    (path,) = folder.glob("log/*/log.csv")
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_the_best_network_is_kept_and_scores_what_the_testing_script_gives(tmp_path):
    run(tmp_path, *VALIDATED, "--lr", "3e-2")
    rows = table(tmp_path)
    scores = [row["val_psnr"] for row in rows]
    assert len(scores) == 3
    for name, expected in ((BEST, max(scores)), ("DeblurringNet_NF.pth", scores[-1])):
        command = ["--testset_dir", str(small_samples()), "--weights", str(tmp_path / "nets" / name), "--device", "cpu"]
        D_testing.main(D_testing.parse_args([*command, "--save_dir", str(tmp_path / "results"), "--overwrite"]))
        summary = json.loads((tmp_path / "results" / "summary.json").read_text())
        (found,) = summary["sets"].values()
        assert found["output"]["psnr"] == pytest.approx(expected, abs=1e-9)
    assert load_file(tmp_path / "nets" / BEST)["epoch"] == 1 + scores.index(max(scores))
    board = curves(tmp_path / "log", "deblur")
    assert [event.value for event in board.Scalars("validation/psnr")] == pytest.approx(scores, abs=1e-4)
    assert [tag for tag in board.Tags()["images"] if tag.startswith("validation/")]
    assert [row["val_psnr_input"] for row in rows] == pytest.approx([found["input"]["psnr"]] * 3, abs=1e-9)


@pytest.mark.slow
def test_an_output_worse_than_its_input_is_a_warning(tmp_path, small_networks):
    (validation,) = (small_samples() / "test").iterdir()
    blurry, sharp = (load(next((validation / side).iterdir())) for side in ("blur", "sharp"))
    before = skimage.metrics.peak_signal_noise_ratio(sharp, blurry)
    for stage in ("deblur", "reblur"):  # new networks, after two steps
        run(tmp_path / stage, *VALIDATED, stage=stage, epochs=1)
        (score,) = table(tmp_path / stage)
        assert score["val_psnr_input"] == pytest.approx(before)
        lines = log_lines(tmp_path / stage)
        assert f"validation, step 2: psnr {score['val_psnr']:.4f} (input {before:.4f}), psnr_float" in lines
        assert f"WARNING: the output is {before - score['val_psnr']:.2f} dB worse than the input, as a new" in lines
    trained = ("--deblurring_weights", str(BUNDLED), "--warmup_steps", "1000")
    run(tmp_path / "trained", *VALIDATED, *trained, epochs=1)
    assert "worse than the input" not in log_lines(tmp_path / "trained")
    run(tmp_path / "trained", *VALIDATED, *trained[:2], "--lr", "0.1", "--resume", "auto", epochs=2)
    assert re.search(
        r"WARNING: the output is .* and was better before: .*NF_best\.pth is", log_lines(tmp_path / "trained")
    )


@pytest.mark.slow
def test_validation_comes_every_so_many_epochs_and_at_the_end(tmp_path):
    run(tmp_path, "--valset_dir", str(small_samples()), "--val_every", "2", epochs=5)
    assert [row["epoch"] for row in table(tmp_path) if "val_psnr" in row] == [2, 4, 5]


@pytest.mark.slow
def test_the_reblurring_network_is_validated_against_the_blurry_images(tmp_path):
    run(tmp_path, *VALIDATED, stage="reblur", epochs=1)
    assert "validation, step 2: psnr" in log_lines(tmp_path)
    assert (tmp_path / "nets" / "ReBlurringNet_best.pth").exists()


@pytest.mark.slow
def test_a_resumed_run_continues_in_its_folder_and_knows_the_best(tmp_path):
    run(tmp_path / "whole", *VALIDATED, "--ema_decay", "0.9")
    run(tmp_path / "parts", *VALIDATED, "--ema_decay", "0.9", "--max_steps", "3")
    best = load_file(states(tmp_path / "parts")[0])["progress"]["best_psnr"]
    assert best == max(row["val_psnr"] for row in table(tmp_path / "parts"))
    run(tmp_path / "parts", *VALIDATED, "--ema_decay", "0.9", "--resume", "auto")
    whole, parts = table(tmp_path / "whole"), {row["step"]: row for row in table(tmp_path / "parts")}
    assert sorted(parts) == [2, 3, 4, 6]
    assert [parts[row["step"]]["val_psnr"] for row in whole] == [row["val_psnr"] for row in whole]
    assert parts[6]["loss"] == whole[-1]["loss"]
    assert "epoch" not in parts[3]  # of a part, at which there was a validation: its row is that alone
    assert same(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    (folder,) = (tmp_path / "parts" / "log").iterdir()
    assert (folder / "arguments.json").exists()
    assert (folder / "arguments-from-step-3.json").exists()
    image = np.array(Image.open(folder / "curves.png").convert("RGB"))
    assert image.shape[0] > 300
    assert image.std() > 10


@pytest.mark.slow
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize(("scores", "epoch"), [((2, 1, 3, 1.5), 3), ((3, 1, 2, 1.5), 1)])
def test_the_best_network_is_of_no_steps_that_a_resumed_run_discards(tmp_path, monkeypatch, scores, epoch, moved):
    """The second run takes the last epoch again: its score stands last. Its state may lie elsewhere."""
    left = iter(scores)
    monkeypatch.setattr(DR_training, "validate", lambda *_, **__: Validation({"psnr": next(left), "psnr_input": 0}, {}))
    run(tmp_path, *VALIDATED, "--save_every", "1epochs")
    state = states(tmp_path)[1]
    if moved:
        state = state.rename(tmp_path / state.name)
    run(tmp_path, *VALIDATED, "--resume", str(state), "--overwrite", "--seed", "7")
    assert load_file(tmp_path / "nets" / BEST)["epoch"] == epoch
    assert same(weights(tmp_path, BEST), weights(tmp_path)) == (epoch == 3)


@pytest.mark.slow
@pytest.mark.parametrize(("decay", "kept"), [("0.75", 2 / 11), ("0.1", 0.1)])  # the first steps keep less
def test_averaged_weights_are_what_is_written(tmp_path, decay, kept):
    for name, more in (("1", ("1",)), ("2", ("2",)), ("average", ("2", "--ema_decay", decay))):
        run(tmp_path / name, "--max_steps", *more)
    first, second, average = (weights(tmp_path / name) for name in ("1", "2", "average"))
    for name, value in average.items():
        torch.testing.assert_close(value, kept * first[name] + (1 - kept) * second[name], atol=1e-7, rtol=0)
    assert not same(average, second)
    assert same(load_file(states(tmp_path / "average")[0])["network"], second)


def test_a_signal_ends_a_validation_that_is_not_complete(tmp_path):
    from datasets import find_images
    from models import DeblurringNet

    asked = []

    class Second(Interruption):
        """A request that comes after the first look."""

        @property
        def requested(self):
            asked.append(self)
            return signal.SIGTERM if len(asked) > 1 else None

    sets = [find_images(pairs(tmp_path), "test")]
    options = {"recorded": False, "stop": Second(), "log": print}
    assert validate(DeblurringNet(4), sets, DistributedContext(torch.device("cpu")), "fp32", **options) is None
    assert len(asked) == 2


def test_images_to_validate_on_need_ground_truth(tmp_path):
    (tmp_path / "photos").mkdir()
    for path in (small_samples() / "train").glob("*/blur/*.png"):
        (tmp_path / "photos" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"--valset_dir .*photos has no sharp images to validate against; give pairs"):
        run(tmp_path, "--valset_dir", str(tmp_path / "photos"))
    with pytest.raises(UserError, match=r"sharp=.*photos: sharp= photographs have no blurry partners; make pairs with"):
        run(tmp_path, "--valset_dir", f"sharp={tmp_path / 'photos'}")


@pytest.mark.slow
def test_the_runs_folder_records_its_provenance(tmp_path):
    run(tmp_path, "--max_steps", "1", *VALIDATED)
    (path,) = tmp_path.glob("log/*/arguments.json")
    record = json.loads(path.read_text())
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    assert (record["versions"]["commit"] or "").partition(" ")[0] == commit
    assert record["arguments"]["seed"] == 0
    trained, validated = record["data"]
    assert (trained["images"], validated["images"], trained["paired"]) == (3, 1, True)
    assert len(trained["list_sha256"]) == 64
    assert trained["list_sha256"] != validated["list_sha256"]


@pytest.mark.slow
def test_deterministic_is_passed_on(tmp_path):
    try:
        run(tmp_path, "--deterministic", "--max_steps", "1")
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.slow
def test_the_best_is_of_these_images_and_of_a_network_that_is_here(tmp_path):
    run(tmp_path, *VALIDATED, "--max_steps", "2")
    other = ("--valset_dir", str(pairs(tmp_path)), "--val_every", "1")
    run(tmp_path, *other, "--resume", "auto", "--max_steps", "3")
    assert log_lines(tmp_path).count("the best so far") == 2
    (tmp_path / "nets" / BEST).unlink()
    run(tmp_path, *other, "--resume", "auto", "--max_steps", "4")
    assert (tmp_path / "nets" / BEST).exists()


def test_images_too_small_to_score_are_refused_before_training(tmp_path):
    for side in ("blur", "sharp"):
        (tmp_path / "tiny" / side).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "tiny" / side / "a.png")
    with pytest.raises(UserError, match=r"--valset_dir: .*a\.png is 9×9 px; SSIM needs at least 11×11"):
        run(tmp_path, "--valset_dir", str(tmp_path / "tiny"))

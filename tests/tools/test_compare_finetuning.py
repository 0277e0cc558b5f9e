"""The comparison of fine-tuned networks with their controls."""

import numpy as np
import pytest

from tools import compare_finetuning
from utils.common.errors import UserError
from utils.testing.result_files import write_table


def write(folder, scores):
    """Write a results.csv; scores: of each network one for each picture."""
    folder.mkdir(exist_ok=True)
    rows = [
        {"set": f"{name}/GOPRO", "image": f"{i}\udcff.png", "weights": name, "saved_as": f"{name}/{i}", "psnr": value}
        for name, values in scores.items()
        for i, value in enumerate(values)
    ]  # names that are no UTF-8
    write_table(folder / "results.csv", rows)


def compare(folder, *options):
    compare_finetuning.main(compare_finetuning.parse_args([str(folder), *options]))


def test_differences_are_those_of_pictures_and_of_seeds(tmp_path, capsys):
    ft = "_DeblurringNet_FT"
    write(
        tmp_path,
        {
            "NF": [30, 20],
            f"lambda0-seed1{ft}": [31, 22],
            f"lambda0-seed2{ft}": [32, 23],
            f"lambda0.1-seed1{ft}": [31.5, 22.5],
            f"lambda0.1-seed2{ft}": [32.5, 23.5],
            f"lambda1-seed1{ft}": [30, 24],
            "other": [40, 20],
        },
    )
    compare(tmp_path)
    _, small, large, before, other = capsys.readouterr().out.splitlines()
    assert "lambda0.1    2 seeds, 2 images: +0.5000, 95 % within +0.5000 to +0.5000; higher on 2; by seed +0.5" in small
    assert "1 seeds, 2 images: +0.5000, 95 % within -1.0000 to +2.0000; higher on 1;" in large
    assert "NF           2 seeds, 2 images: -2.0000" in before  # -1, -2, -2 and -3
    assert "other        2 seeds, 2 images: +3.0000" in other  # 9, -2, 8 and -3


def test_an_interval_is_that_of_means_of_resampled_seeds_and_pictures():
    values = np.random.default_rng(1).normal(size=(1, 400))
    low, high = compare_finetuning.interval(values)
    expected = values.mean() + np.array([-1.96, 1.96]) * values.std() / 20  # the central limit
    assert (low, high) == pytest.approx(expected, abs=0.006)
    seeds = np.repeat([[-1.0], [1.0]], 50, axis=1)  # pictures that agree tell nothing about seeds
    assert compare_finetuning.interval(seeds) == (-1.0, 1.0)


def test_runs_that_cannot_be_compared_are_refused(tmp_path):
    write(tmp_path, {"lambda0-seed1_FT": [30, 20], "lambda0.1-seed2_FT": [30, 20]})
    with pytest.raises(UserError, match="the same seeds and pictures"):
        compare(tmp_path)
    write(tmp_path, {"lambda0-seed1_FT": [30, 20], "lambda0.1-seed1_FT": [30]})
    with pytest.raises(UserError, match="the same seeds and pictures"):
        compare(tmp_path)
    for pictures in ([30], [30, 20, 10]):  # of the control of the second seed
        runs = {f"lambda{weight}-seed{seed}_FT": [30, 20] for weight in (0, 1) for seed in (1, 2)}
        write(tmp_path, runs | {"lambda0-seed2_FT": pictures})
        with pytest.raises(UserError, match="the same seeds and pictures"):
            compare(tmp_path)
    with pytest.raises(UserError, match=r"has no lambda5; expected one of lambda0, lambda1"):
        compare(tmp_path, "--control", "lambda5")
    with pytest.raises(UserError, match="no table of scores with ssim"):
        compare(tmp_path, "--metric", "ssim")


def test_sets_that_no_result_has_are_refused(tmp_path, capsys):
    write(tmp_path, {"lambda0-seed1_FT": [30, 20], "lambda1-seed1_FT": [31, 20]})
    message = r"--sets: .*results\.csv has no set HIDE, gopro; expected GOPRO$"
    with pytest.raises(UserError, match=message):
        compare(tmp_path, "--sets", "HIDE", "GOPRO", "gopro")
    compare(tmp_path, "--sets", "GOPRO")
    assert "1 seeds, 2 images: +0.5000" in capsys.readouterr().out


def test_two_networks_of_a_run_are_not_one(tmp_path):
    write(tmp_path, {f"lambda{x}-seed1_DeblurringNet_{name}": [30, 20] for x in ("0", "0.1") for name in ("NF", "FT")})
    with pytest.raises(UserError, match="has several networks of lambda0-seed1_DeblurringNet_FT's run"):
        compare(tmp_path)

"""The table and the figure of a run: a row an epoch, whatever the stops, and each line drawn once."""

import csv
from pathlib import Path

import pytest
from PIL import Image

from utils.training.curves import Curves
from utils.training.curves_figure import curves_figure

SCORES = {"val_psnr": 30.0, "val_psnr_float": 30.01, "val_psnr_input": 25.5, "val_ssim": 0.9}


def epoch(number: int, loss: float = 0.5) -> dict[str, float]:
    return {"epoch": number, "loss": loss, "loss_deblur": loss, "lr": 1e-4 / 2 ** (number // 3)}


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def test_the_row_of_a_part_gives_way_to_that_of_its_epoch_but_for_its_validation(tmp_path):
    curves = Curves(tmp_path, 0, "run")
    curves.add(4, epoch(1))
    for step, scores in ((5, {}), (6, SCORES)):  # two stops, with a validation at the second one
        curves.add(step, epoch(2, loss=9.0) | scores)
    curves = Curves(tmp_path, 6, "run")
    curves.add(8, epoch(2))
    curves.add(8, SCORES)
    assert [(row["step"], row.get("epoch"), row.get("loss"), row.get("val_psnr")) for row in table(tmp_path)] == [
        ("4", "1", "0.5", None),
        ("6", None, None, "30.0"),
        ("8", "2", "0.5", "30.0"),
    ]


def test_a_table_of_an_earlier_version_is_continued(tmp_path):
    rows = ["step,epoch,loss,lr,val_psnr", "2,1,0.5,0.001,20.5", "3,2,0.4,0.001,", "4,2,0.3,0.001,", "6,3,9,0.001,"]
    (tmp_path / "log.csv").write_text("\n".join(rows))
    curves = Curves(tmp_path, 4, "run")
    curves.add(6, epoch(3) | SCORES)
    curves.draw()
    assert [(row["step"], row["epoch"], float(row["loss"])) for row in table(tmp_path)] == [
        ("2", "1", 0.5),
        ("4", "2", 0.3),
        ("6", "3", 0.5),
    ]
    assert table(tmp_path)[0] == {"step": "2", "epoch": "1", "loss": "0.5", "lr": "0.001", "val_psnr": "20.5"}
    assert Image.open(tmp_path / "curves.png").height > 800


def test_the_figure_has_a_title_both_axes_and_each_line_once():
    rows = [{"step": 10 * i, **epoch(i), **(SCORES if i % 2 == 0 else {})} for i in range(1, 7)]
    figure = curves_figure(rows, "deblur_1: $GOPRO")
    figure.draw_without_rendering()
    assert figure.get_suptitle() == "deblur_1: $GOPRO"
    lines = {axis.get_ylabel(): {line.get_label(): line for line in axis.lines} for axis in figure.axes}
    assert {label: list(found) for label, found in lines.items()} == {
        "loss": ["total"],
        "PSNR [dB]": ["output", "input"],
        "SSIM": ["output"],
        "learning rate": ["learning rate"],
    }
    rate = lines["learning rate"]["learning rate"]
    assert rate.get_drawstyle() == "steps-pre"  # the rate of a row is that of the steps up to it
    assert list(rate.get_ydata()) == [1e-4, 1e-4, 5e-5, 5e-5, 5e-5, 2.5e-5]
    (top,) = figure.axes[0].child_axes
    ticks = {label.get_text(): at for at, label in zip(top.get_xticks(), top.get_xticklabels(), strict=True)}
    assert ticks == {str(number): 10 * number for number in range(1, 7)}
    assert (top.get_xlabel(), figure.axes[-1].get_xlabel()) == ("epoch", "step")


@pytest.mark.parametrize(
    "row", [{"val_psnr": 20.0}, {"epoch": 1, "loss": 0.0, "lr": 0.0}, {"val_psnr": float("inf")}, {"epoch": 1}]
)
def test_what_cannot_be_drawn_is_left_out(tmp_path, row):
    curves = Curves(tmp_path, 0, "run")
    curves.add(3, row)
    curves.draw()
    assert (tmp_path / "curves.png").exists()

"""report.html of a run on several data sets, of which RealBlur alone is scored aligned."""

from statistics import fmean

import pytest

from tests.support.browser import PHONE
from tests.support.reports import SETTINGS, photograph_rows, photographs
from utils.report.page import write_report

pytestmark = pytest.mark.slow
METRICS = {
    "gopro": ("psnr", "psnr_float", "ssim", "ssim_released", "ssim_matlab"),
    "realblur_j": ("psnr_aligned", "ssim_aligned", "aligned"),
}
# By the gain of the metric that its set is judged by: the two sets take turns.
GAINS = {("gopro", "a.png"): -1.0, ("realblur_j", "b.png"): 0.25, ("gopro", "c.png"): 2.0, ("realblur_j", "d.png"): 3.0}


@pytest.fixture
def page(tmp_path):
    """The page of a run on GoPro's and RealBlur's images, of each the best first."""
    rows, sets = [], {}
    for kind, names in METRICS.items():
        of_kind = photograph_rows([image for each, image in GAINS if each == kind])
        for row in of_kind:
            gain = GAINS[kind, row["image"]]
            row["set"] = f"{kind} as typed"
            row |= {f"input_{name}": 30.0 if name.startswith("psnr") else 0.5 for name in names}
            row |= {name: 30.0 + gain if name.startswith("psnr") else 0.5 for name in names}
        means = {
            each: {name: fmean(row[f"{each}{name}"] for row in of_kind) for name in names} for each in ("input_", "")
        }
        scored = {"kind": kind, "published": [], "input": means["input_"], "output": means[""]}
        sets[f"{kind} as typed"] = photographs([""])["photos"] | scored
        rows += of_kind[::-1]
    unset = {"metrics": [*METRICS["gopro"], "psnr_aligned"], "sharp_dir": None, "crop_border": None}
    return write_report(tmp_path, rows, sets, SETTINGS | unset, {})


def test_the_worst_image_is_first_whatever_its_set_is_judged_by(browser, page):
    browser.open(page)
    assert browser.texts("#body .open") == [image for _, image in GAINS]
    assert browser.texts("#body .gain") == ["−1.00", "+0.25", "+2.00", "+3.00"]
    assert browser["th[aria-sort]"].text.strip() == "gain in PSNR or PSNR-aligned"
    browser["#descending"].click()
    assert browser.texts("#body .open") == [image for _, image in GAINS][::-1]
    assert browser.texts(".histogram h3") == [
        "Gains in PSNR: 1 of 2 made worse, median +0.50 dB",
        "Gains in PSNR-aligned: 0 of 2 made worse, median +1.63 dB",
    ]
    for image, first in ("b.png", "PSNR-aligned 30.00 → 30.25 dB +0.25"), ("a.png", "PSNR 30.00 → 29.00 dB −1.00"):
        row = "data.rows.find((row) => row.values.image === arguments[0])"
        assert browser.run(f"return scoreLines({row})[0].textContent", image) == first
    assert browser.messages() == []


@pytest.mark.parametrize("size", [PHONE, (390, 844), (700, 800)], ids=str)
def test_a_narrow_window_shows_each_sets_own_metrics_without_scrolling(browser, page, size):
    browser.open(page, size)
    assert browser["#sets > section"].text.startswith("All sets\nmeans: output, change\nGoPro\n30.50\n+0.50\n")
    rows = [row.find_elements("css selector", "td") for row in browser.all(".overview tbody tr")]
    labels = [[cell.get_attribute("data-label") for cell in row if cell.is_displayed()] for row in rows]
    assert labels == [
        ["PSNR", "SSIM", "PSNR-float", "SSIM-released", "SSIM-MATLAB"], ["PSNR-aligned", "SSIM-aligned", "aligned"],
    ]  # fmt: skip
    wide = "return [...document.querySelectorAll('.overview, html')].map((each) => each.scrollWidth - each.clientWidth)"
    assert browser.run(wide) == [0, 0]
    browser.resize((1280, 900))
    browser.wait("!document.querySelector('.stacked')")
    heads = ["set", "PSNR", "PSNR-aligned", "SSIM", "SSIM-aligned"]
    assert browser.texts("#sets > section:first-child thead th")[:5] == heads


def test_settings_that_were_not_given_are_no_lines(browser, page):
    browser.open(page, PHONE)
    lines = browser.texts("#settings > dl > *")
    assert "metrics" in lines
    assert {"sharp dir", "crop border"}.isdisjoint(lines)
    assert lines[lines.index("metrics") + 1] == "PSNRPSNR-floatSSIMSSIM-releasedSSIM-MATLABPSNR-aligned"
    browser["#settings summary"].click()
    widths = browser.run("return [...document.querySelectorAll('#settings dd dl dd')].map((each) => each.clientWidth)")
    assert min(widths) > 100  # px: not a letter a line


def test_the_histograms_labels_are_whole(browser, tmp_path):
    rows = photograph_rows([f"{i}.png" for i in range(20)])
    for i, row in enumerate(rows):
        row |= {"input_psnr": 30.0, "psnr": 27.02 + 0.47 * i}  # from -3 to 6 dB, with a label at the end
    sets = photographs([""])
    sets["photos"] |= {"input": {"psnr": 30.0}, "output": {"psnr": 32.5}}
    browser.open(write_report(tmp_path, rows, sets, SETTINGS, {}), (390, 844))
    browser.wait("document.querySelector('svg text')")
    assert "+6.0" in browser.texts("svg text")
    boxes = "[...document.querySelectorAll('svg text')].map((each) => each.getBoundingClientRect().toJSON())"
    (svg,) = browser.run("return [document.querySelector('svg').getBoundingClientRect().toJSON()]")
    for box in browser.run(f"return {boxes}"):
        assert svg["left"] <= box["left"]
        assert box["right"] <= svg["right"]

"""Reports of the bundled pictures, with unsharp masks in the place of a network, and what their viewer shows."""

from pathlib import Path
from statistics import fmean

import cv2
import numpy as np
import pytest

from tests.support.browser import DESKTOP, Page
from tests.support.samples import SAMPLES, load, save
from utils.metrics.numpy_metrics import score
from utils.metrics.published import published_on
from utils.report.page import Source, write_report
from utils.report.rows import Row

METRICS = ("psnr", "ssim")
NAME = "GOPR0881_11_01/000203.png"  # of SAMPLE
ODD_NAMES = (
    "a space #1 100%25?.png",
    "Übung 'quoted' \"twice\" & [x].png",
    "back\\slash: javascript:alert(1).png",
    "<img src=x onerror=\"document.title='broken'\">.png",
    "a</script><script>document.title='broken'</script>.png",
    "<!--<script>.png",
)
NETWORKS = {"DeblurringNet_FT": {"weights": "nets/DeblurringNet_FT.pth", "deform_op": "fused"}}
SETTINGS = {
    "version": "0",
    "networks": NETWORKS,
    "precision": "fp32",
    "device": "cpu",
    "torch": "2",
    "metrics": METRICS,
}
SHOWN = "[...document.querySelectorAll('.pane img')].every((image) => image.complete && image.naturalWidth > 0)"
RECTANGLES = """
return [...document.querySelectorAll(".pane")].map((pane) => {
  const [a, b] = [pane.getBoundingClientRect(), pane.firstElementChild.getBoundingClientRect()];
  return [b.left - a.left, b.top - a.top, b.width, b.height];
});
"""


def sharpened(image: np.ndarray, strength: float) -> np.ndarray:
    values = image.astype(np.float32)
    values += strength * (values - cv2.GaussianBlur(values, (0, 0), 2))
    return np.rint(values).clip(0, 255).astype(np.uint8)


def restore_samples(folder: Path, name: str, strengths: list[float]) -> tuple[list[Row], dict, dict]:
    """Restore the three samples; return the rows, the set's summary and the sources as D_testing.py hands them over."""
    rows, sources = [], {}
    for blurry, strength in zip(sorted(SAMPLES.glob("*/*/blur/*.png")), strengths, strict=True):
        image = f"{blurry.parents[1].name}/{blurry.name}"
        sharp = blurry.parents[1] / "sharp" / blurry.name
        inputs, truth = load(blurry), load(sharp)
        output = sharpened(inputs, strength) if strength < 9 else truth  # a perfect result: an infinite PSNR
        save(folder / name / image, output)
        before = {f"input_{key}": value for key, value in score(inputs, truth, METRICS).items()}
        row = {"set": name, "image": image, "saved_as": f"{name}/{image}", "height": len(truth), "width": len(truth[0])}
        rows.append({**row, "seconds": 0.25, **before, **score(output, truth, METRICS)})
        sources[name, image] = Source(blurry, sharp)
    summary = {
        "kind": "gopro", "root": str(SAMPLES), "images": len(rows), "images_in_set": len(rows), "complete": True,
        "notes": [], "problems": [], "seconds_per_image": 0.25, "published": published_on("gopro"),
        "input": {key: fmean(row[f"input_{key}"] for row in rows) for key in METRICS},
        "output": {key: fmean(row[key] for row in rows) for key in METRICS},
    }  # fmt: skip
    return rows, {name: summary}, sources


def sample_report(folder: Path) -> tuple[Path, list[Row]]:
    """Write a report of one set: an image made better, one made worse, one perfect."""
    rows, sets, sources = restore_samples(folder, "GOPRO_test", [0.1, 3.0, 9.0])
    return write_report(folder, rows, sets, SETTINGS, sources), rows


def photographs(names: list[str]) -> dict:
    """Return the sets of a run on photographs without ground truth."""
    return {
        "photos": {
            "kind": "unpaired", "root": "photos", "images": len(names), "images_in_set": len(names), "complete": True,
            "notes": [], "problems": [], "seconds_per_image": 0.25,
        }
    }  # fmt: skip


def photograph_rows(names: list[str], height: int = 384, width: int = 640) -> list[Row]:
    return [
        {
            "set": "photos",
            "image": name,
            "saved_as": f"photos/{name}.png",
            "height": height,
            "width": width,
            "seconds": 1.0,
        }
        for name in names
    ]


def open_viewer(browser: Page, page: Path, size: tuple[int, int] = DESKTOP, name: str = NAME) -> None:
    """Show an image of a report, and wait for its two pictures."""
    browser.open(page, size)
    find = "[...document.querySelectorAll('.open')].find((each) => each.textContent === arguments[0])"
    browser.run(f"{find}.click()", name)
    browser.wait(SHOWN)


def image_place(browser: Page) -> np.ndarray:
    """Return left, top, width and height of the picture in its pane, the same in both panes."""
    left, right = browser.run(RECTANGLES)
    assert left == pytest.approx(right, abs=1e-3)
    return np.array(left)


def stage(browser: Page) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the pixels of the area that shows the pictures, and its place in the window."""
    box = browser["#stage"].rect
    left, top = round(box["x"]), round(box["y"])
    right, bottom = round(box["x"] + box["width"]), round(box["y"] + box["height"])
    return browser.screenshot()[top:bottom, left:right], (left, top)


def seen_at_one_to_one(browser: Page) -> tuple[np.ndarray, int]:
    """Return the part of the stage that the 640×384 picture takes, and where it begins."""
    pixels, _ = stage(browser)
    left, top, width, height = image_place(browser).round().astype(int)
    assert (width, height) == (640, 384)
    return pixels[top : top + height, left : left + width], left


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.abs(a.astype(int) - b).max() <= 1

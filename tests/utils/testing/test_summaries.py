"""What is printed of the published results."""

import re

import pytest

from utils.metrics.published import published_on
from utils.report.page import published_images
from utils.testing.summaries import print_published


def test_published_results_are_printed_where_all_images_were_scored(capsys):
    scored = (("gopro", 1111), ("gopro", 4), ("realblur_j", 980), ("hide", 2024), ("hide", 8))
    sets = [{"kind": kind, "images": images, "published": published_on(kind)} for kind, images in scored]
    print_published(sets)
    gopro, *lines = capsys.readouterr().out.splitlines()
    assert gopro == "published on GoPro's test set (sources: summary.json):"
    text = "\n".join(lines)
    assert "  ASPDC, fine-tuned          32.09 dB / 0.959" in text
    assert re.search(r"Restormer +28\.96 dB / 0\.879 +aligned, as RealBlur's authors", text)
    assert re.search(r"Restormer, not aligned +26\.63 dB / 0\.8274 +not aligned", text)
    line = "published results on HIDE are of 2,025 images, not comparable with these of 2,024 and 8: report.html"
    assert lines[-1] == line


@pytest.mark.parametrize("kind", ["gopro", "hide", "realblur_j", "realblur_r", "reds"])
def test_of_published_results_no_two_have_one_name_and_their_number_of_images_is_known(kind):
    names = [each["method"] for each in published_on(kind)]
    assert len(set(names)) == len(names)
    assert published_images(kind)

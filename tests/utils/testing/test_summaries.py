"""What is printed below the tables of sets: published results, and numbers of images."""

import re

import pytest

from utils.metrics.published import published_on
from utils.report.page import published_images
from utils.testing.summaries import print_published, print_table


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


def scored(images, complete=True):
    means = {"psnr": 30.0}
    return {"images": images, "images_in_set": 1111, "complete": complete, "input": means, "output": means}


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ({"GoPro": {"NF": scored(1111), "FT": scored(1111)}, "photos": {"NF": {"images": 3}, "FT": {"images": 2}}}, ""),
        ({"GoPro": {"NF": scored(10), "FT": scored(10)}}, ""),  # with --limit
        ({"GoPro": {"NF": scored(1111), "FT": scored(1110, False)}}, "GoPro: NF 1,111, FT 1,110 of 1,111 images"),
        ({"GoPro": {"NF": scored(20), "FT": scored(10)}}, "GoPro: NF 20, FT 10 of 1,111 images"),  # with two limits
        ({"GoPro": {"NF": scored(9, False), "FT": scored(9, False)}}, "GoPro: NF 9, FT 9 of 1,111 images"),
        ({"photos": {"NF": scored(1111, False), "FT": scored(1111, False)}}, ""),  # a closed folder, named elsewhere
        ({"a": {"NF": scored(4), "FT": {}}, "b": {"NF": scored(4), "FT": scored(4)}}, "a: NF 4, FT 0 of 1,111 images"),
        (
            {name: {"restored": scored(count, count == 4)} for name, count in (("a", 4), ("b", 3), ("c", 2))},
            "b: restored 3 of 1,111 images; c: restored 2 of 1,111 images",
        ),
    ],
)
def test_means_over_other_numbers_of_images_are_named_below_the_table(capsys, sets, expected):
    print_table(sets)
    found = [line for line in capsys.readouterr().out.splitlines() if "means are over fewer" in line]
    line = "some of these means are over fewer images than others, or than were asked for: "
    assert found == ([line + expected] if expected else [])

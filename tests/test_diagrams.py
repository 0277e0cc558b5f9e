"""The diagrams of docs/ are what docs/diagrams.py draws, and can be read; what the page around them names exists."""

import itertools
import re
import runpy
from xml.etree import ElementTree

import pytest
import torch
from matplotlib import rc_context
from matplotlib.text import Text

from models.aspdc import read_as_released
from tests.support.samples import ROOT

DOCS = ROOT / "docs"
LARGEST = 150_000  # bytes
WORDS = {
    "aspdc": (
        "module 0: modulated deformable conv",
        "dilation 4",
        "AFIM: reads x",
        "softmax",
        "ASPDC",
        "fusion: conv3",
    ),
    "stages": ("ReBlurringNet.pth", "DeblurringNet_NF.pth", "DeblurringNet_FT.pth", "R(b, D(b))", "trained", "frozen"),
    "module0": ("aligned", "released", "90×160", "88×158", "4,464 of 129,600 reads (3.4 %)"),
}


def texts(svg):
    """Return the texts of a diagram, whose letters are paths: matplotlib writes each text as a comment, too."""
    return re.findall(r"<!-- (.*?) -->", svg.decode())


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(DOCS / "diagrams.py"))


@pytest.fixture(scope="module")
def drawn(script, tmp_path_factory):
    """Return the bytes of each diagram by its name, of two runs."""
    runs = []
    for run in ("first", "second"):
        folder = tmp_path_factory.mktemp(run)
        script["save"](folder)
        runs.append({path.stem: path.read_bytes() for path in folder.iterdir()})
    return runs


def test_the_same_bytes_on_each_run(drawn):
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) == set(WORDS)


@pytest.mark.parametrize("name", WORDS)
def test_committed_files_say_what_the_script_draws(drawn, name):
    """Paths of letters may change with matplotlib's version."""
    committed = (DOCS / f"{name}.svg").read_bytes()
    assert texts(committed) == texts(drawn[0][name])
    for svg in (committed, drawn[0][name]):
        root = ElementTree.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.get("width") == "600pt"  # 800 px
        assert len(svg) < LARGEST
        background = next(root.iter("{http://www.w3.org/2000/svg}path"))
        assert background.get("style") == "fill: #ffffff"  # dark pages are white behind it, too
        for words in WORDS[name]:
            assert words in "\n".join(texts(svg))


@pytest.mark.parametrize("name", WORDS)
def test_no_text_overlaps_another_or_leaves_the_page(script, name):
    with rc_context(script["STYLE"]):
        page = script[f"draw_{name}"]()
        page.draw_without_rendering()
        boxes = [(each.get_text(), each.get_window_extent()) for each in page.findobj(Text) if each.get_text().strip()]
    for text, box in boxes:
        assert page.bbox.x0 <= box.x0 < box.x1 <= page.bbox.x1, text
        assert page.bbox.y0 <= box.y0 < box.y1 <= page.bbox.y1, text
    for (first, a), (second, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), f"{first!r} and {second!r}"


def test_the_released_reading_that_is_drawn_is_the_networks(script):
    height, width = 7, 9
    positions = torch.arange(9 * (height - 2) * (width - 2)).view(1, 9, height - 2, width - 2)
    drawn = torch.from_numpy(script["released_index"](height, width))
    assert torch.equal(read_as_released(positions, height, width)[0], drawn)


def test_what_the_page_names_exists():
    page = (DOCS / "fidelity.md").read_text(encoding="utf-8")
    for place, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", page):
        target = DOCS / place if place else DOCS / "fidelity.md"
        assert target.exists(), place
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
            assert anchor in anchors, f"{place}#{anchor}"
    tests = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page)
    assert len(tests) > 10
    for file, name in tests:
        assert f"def {name}" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"

"""report.html in a browser: what stands first, what is folded away, and how it reads on a phone."""

import pytest

from tests.support.browser import PHONE
from tests.support.reports import (
    SETTINGS,
    image_place,
    open_viewer,
    photograph_rows,
    photographs,
    restore_samples,
)
from tests.support.samples import save
from utils.metrics.published import published_on
from utils.metrics.scorer import KNOWN
from utils.report.page import Source, write_report

BOXES = "return [...document.querySelectorAll(arguments[0])].map((each) => each.getBoundingClientRect().toJSON())"
UNUSED = "not used: 1,008 images in other folders (a.png, b.png and 1,006 more)"


@pytest.fixture(scope="module")
def write_scored(tmp_path_factory):
    """Return a function that writes the page of the samples as if they were so many images of a kind of set."""
    folder = tmp_path_factory.mktemp("report")
    rows, sets, sources = restore_samples(folder, "set", [0.1, 0.2, 0.3])

    def write(kind="gopro", images=3):
        as_if = {"kind": kind, "images": images, "published": published_on(kind)}
        return write_report(folder, rows, {"set": sets["set"] | as_if}, SETTINGS, sources)

    return write


def test_every_metric_has_a_name_as_people_write_it():
    labels = {name: metric.label for name, metric in KNOWN.items()}
    assert all(label.split("-")[0].lower() == name.split("_")[0] for name, label in labels.items())
    assert len(set(labels.values())) == len(labels)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "is_open"), [(3, True), (40, False)])
def test_what_was_skipped_is_counted_above_the_fold(browser, tmp_path, count, is_open):
    sets = photographs(["one.jpg"])
    skipped = [f"photos/{i}.jpg cannot be read as an image" for i in range(count - 1)]
    sets["photos"] |= {"complete": False, "problems": skipped, "notes": ["WARNING: skipped: 3 .dng", UNUSED, "a note"]}
    sets = {"a/photos": sets["photos"], "b/photos": sets["photos"]}  # two networks lack the same files
    problems = [*skipped, "clip.mp4 cannot be restored"]
    page = write_report(tmp_path, photograph_rows(["one.jpg"]), sets, SETTINGS, {}, problems)
    for size in (PHONE, (1280, 900)):
        browser.open(page, size)
        first, unused, second = browser.all("#lacks details")
        assert first.find_element("css selector", "summary").text == f"{count} files skipped"
        assert (first.get_attribute("open") is not None) == is_open
        assert "clip.mp4" in first.get_property("textContent")
        assert len(first.find_elements("css selector", "li")) == count
        assert unused.text == f"1,008 images not used\nb/photos: {UNUSED}"
        assert second.text.startswith("1 warning\n")
        assert second.text.endswith("photos: skipped: 3 .dng")
        assert all(box["bottom"] < size[1] for box in browser.run(BOXES, "#lacks summary, #sets h2:first-of-type")[:4])
    assert browser.messages() == []


@pytest.mark.slow
def test_published_numbers_stand_folded_below_the_pictures(browser, write_scored):
    browser.open(write_scored())
    assert browser.texts("#sets h2") == ["GoPro"]  # whatever the folder is called
    assert browser[".card .muted"].text.startswith("3 images · ")
    (pictures,), (published,) = browser.run(BOXES, "#images"), browser.run(BOXES, "#published")
    assert pictures["bottom"] <= published["top"]
    mark = "not comparable: 3 images scored, the published results are of 1,111"
    assert browser[".links"].text == f"Published on GoPro's test set\n{mark}"
    assert browser["#published"].text == f"Published results\nOn GoPro's test set ({mark})"
    browser[".links a"].click()
    rows = browser.texts("#published tbody tr")
    assert browser["#published tbody"].is_displayed()
    assert any("MPRNet" in row and "SSIM-MATLAB" in row and "32.66" in row for row in rows)
    assert browser.lowest_contrast() >= 4.5
    assert browser.messages() == []


@pytest.mark.slow
@pytest.mark.parametrize("size", [(390, 844), (1280, 900)], ids=str)
def test_of_several_sets_the_first_and_incomplete_ones_are_unfolded(browser, tmp_path, size):
    rows, sets, sources = [], {}, {}
    for name, complete in (("GoPro", True), ("HIDE", True), ("RealBlur_J", False)):
        more = restore_samples(tmp_path, name, [0.1, 0.2, 0.3])
        more[1][name] |= {"complete": complete, "published": published_on("gopro") if name == "HIDE" else []}
        rows, sets, sources = rows + more[0], sets | more[1], sources | more[2]
    sets["clip.mp4"] = {"kind": "video", "width": 64, "height": 48, "frames": 9, "frames_per_second": 25.0, "notes": []}
    browser.open(write_report(tmp_path, rows, sets, SETTINGS, sources), size)
    overview, *cards = browser.all("#sets > section")
    assert overview.text.startswith("All sets\n")
    shown = {card.find_element("css selector", "h2").text: "\n" in card.text for card in cards}
    assert shown == {"GoPro": True, "HIDE": False, "RealBlur_J": True, "clip.mp4": True}
    assert browser.lowest_contrast() >= 4.5
    before = browser.run("return document.documentElement.scrollHeight")
    cards[1].find_element("css selector", "summary").click()
    svg = "document.querySelectorAll('#sets > section')[2].querySelector('svg')"
    browser.wait(f"{svg}.viewBox.baseVal.width === {svg}.clientWidth")  # drawn for its place
    assert browser.run("return document.documentElement.scrollHeight") > before + 200
    cards[1].find_element("css selector", ".links a").click()
    assert browser["#published tbody"].is_displayed()
    assert browser.messages() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "images", "mark"),
    [
        ("gopro", 1111, ""),
        ("hide", 2024, "2,024 images scored, the published results are of 2,025"),
        ("realblur_j", 980, ""),
        ("reds_jpeg", 3000, "3,000 images scored, the published results are of 300"),  # all, not NAFNet's part of it
        ("reds_jpeg", 300, ""),
    ],
)
def test_only_all_images_of_a_set_are_comparable(browser, write_scored, kind, images, mark):
    text = browser.open(write_scored(kind, images))["#sets"].text
    assert f"not comparable: {mark}" in text if mark else "not comparable" not in text


@pytest.mark.slow
def test_the_skip_link_is_the_first_stop_and_leads_to_the_images(browser, write_scored, tmp_path):
    browser.open(write_scored())
    link = browser[".skip"]
    focused = browser.driver.switch_to
    browser["body"].send_keys("\t")
    assert focused.active_element == link
    assert browser.run("return getComputedStyle(arguments[0]).clipPath", link) == "none"
    link.send_keys("\n")
    assert focused.active_element.get_attribute("id") == "pictures"
    focused.active_element.send_keys("\t")
    assert focused.active_element.get_attribute("id") == "query"
    assert browser.open(write_report(tmp_path, [], {}, SETTINGS, {}))[".skip"].is_displayed() is False


@pytest.mark.slow
def test_images_without_scores_are_cards_on_a_phone(browser, tmp_path):
    names = ["a.png", "b.png"]
    for name in names:
        save(tmp_path / "photos" / f"{name}.png")
    rows = photograph_rows(names)
    page = write_report(tmp_path, rows, photographs(names), SETTINGS, {})
    browser.open(page, PHONE)
    pictures, captions = browser.run(BOXES, "#body .picture"), browser.run(BOXES, "#body .image")
    assert all(picture["right"] <= caption["left"] for picture, caption in zip(pictures, captions, strict=True))
    rows[0] |= {"psnr": 30.0, "input_psnr": 25.0}  # of another set: the other one shows no empty scores
    browser.open(write_report(tmp_path, rows, photographs(names), SETTINGS, {}), PHONE)
    cells = [row.find_elements("css selector", "td") for row in browser.all("#body tr")]
    shown = [[cell.get_attribute("data-label") for cell in each if cell.is_displayed()] for each in cells]
    assert shown[1] == [None, None, "size in px", "seconds"]
    assert shown[0] == [None, None, "gain in PSNR", "PSNR", "size in px", "seconds"]


@pytest.mark.slow
def test_a_change_that_is_shown_as_nothing_has_no_colour(browser, tmp_path):
    rows = photograph_rows(["same.png", "better.png"])
    for row, gain in zip(rows, (0.004, 0.006), strict=True):
        row.update(input_psnr=30.0, psnr=30.0 + gain)
    browser.open(write_report(tmp_path, rows, photographs(["same.png", "better.png"]), SETTINGS, {}))
    cells = [(cell.text, cell.get_attribute("class").split()) for cell in browser.all("#body .gain")]
    assert cells == [("0.00", ["gain"]), ("+0.01", ["gain", "better"])]


@pytest.mark.slow
def test_panoramas_open_as_high_as_their_pane_on_a_phone(browser, tmp_path):
    save(tmp_path / "wide.png", size=(3000, 250))
    save(tmp_path / "photos" / "wide.png.png", size=(3000, 250))
    sources = {("photos", "wide.png"): Source(tmp_path / "wide.png")}
    page = write_report(
        tmp_path, photograph_rows(["wide.png"], 250, 3000), photographs(["wide.png"]), SETTINGS, sources
    )
    open_viewer(browser, page, PHONE, "wide.png")
    left, _, width, height = image_place(browser)
    assert height == 125  # two pixels of the display for one of the page
    assert left + width / 2 == pytest.approx(180, abs=1)
    browser["#fit"].click()
    assert image_place(browser)[2] == pytest.approx(360)
    browser["#close"].click()
    browser[".open"].click()
    assert image_place(browser)[3] == 125


@pytest.mark.slow
@pytest.mark.parametrize("size", [PHONE, (390, 844)], ids=str)
def test_the_viewers_tools_stand_in_two_rows_on_a_phone(browser, write_scored, size):
    open_viewer(browser, write_scored(), size)
    for row in ("#left, #right, #beside", "#out, #in, #fit, #exact"):
        boxes = browser.run(BOXES, row)
        assert len({box["top"] for box in boxes}) == 1
        assert all(box["left"] >= 0 and box["right"] <= size[0] and box["height"] >= 33 for box in boxes)

"""The viewer of report.html in a browser: what is seen is compared with the pictures' own pixels."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tests.support.browser import PHONE
from tests.support.reports import (
    NAME,
    SETTINGS,
    SHOWN,
    image_place,
    open_viewer,
    photograph_rows,
    photographs,
    restore_samples,
    same,
    sample_report,
    seen_at_one_to_one,
    stage,
)
from tests.support.samples import SAMPLE, SAMPLES, load, save
from utils.report.page import Source, write_report

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return sample_report(folder)[0]


def test_each_side_of_the_divider_shows_its_picture(browser, samples):
    open_viewer(browser, samples)
    browser["#exact"].click()
    restored = load(samples.parent / "GOPRO_test" / NAME)
    blurry, sharp = load(SAMPLE), load(SAMPLES / "test" / "GOPR0881_11_01" / "sharp" / "000203.png")
    label = 40  # px that the pictures' names take at the top
    near = 24  # and the divider with its knob, to either side

    def check(left_picture, right_picture, split):
        seen, left = seen_at_one_to_one(browser)
        edge = round(split * 1280) - left
        assert same(seen[label:, : edge - near], left_picture[label:, : edge - near])
        assert same(seen[label:, edge + near :], right_picture[label:, edge + near :])

    assert not same(blurry, restored)
    check(blurry, restored, 0.5)
    divider = browser["#divider"]
    for _ in range(5):
        divider.send_keys("\ue014")  # the right arrow key
    assert divider.get_attribute("aria-valuenow") == "60"
    check(blurry, restored, 0.6)
    box = divider.rect
    browser.drag((box["x"] + box["width"] / 2, box["y"] + 60), (-256, 0))
    check(blurry, restored, 0.4)
    browser["#right"].send_keys("sharp")
    browser.wait(SHOWN)
    check(blurry, sharp, 0.4)
    divider.send_keys("\ue010")  # End
    assert same(seen_at_one_to_one(browser)[0][label:], blurry[label:])
    assert browser.messages() == []


@pytest.mark.parametrize("beside", [False, True], ids=["divided", "side by side"])
def test_wheel_zooms_at_the_pointer_and_both_pictures_move_together(browser, samples, beside):
    open_viewer(browser, samples)
    if beside:
        browser["#beside"].click()
    _, (_, top) = stage(browser)
    pane = browser.run("return document.querySelectorAll('.pane')[1].getBoundingClientRect().left")
    pointer = (700, top + 300)
    in_pane = np.array([pointer[0] - pane, pointer[1] - top])

    def under_pointer():
        left, upper, width, _ = image_place(browser)
        return (in_pane - (left, upper)) * 640 / width

    before, width = under_pointer(), image_place(browser)[2]
    browser.wheel(pointer, -700)
    browser.wait(f"document.querySelector('.pane img').getBoundingClientRect().width > {width * 2}")
    np.testing.assert_allclose(under_pointer(), before, atol=0.7)  # of a pixel; places are rounded to the display's
    start = image_place(browser)
    browser.drag(pointer, (-90, -40))
    np.testing.assert_allclose(image_place(browser) - start, [-90, -40, 0, 0], atol=1e-3)
    browser["#divider" if not beside else "#beside"].send_keys("0")
    left, upper, width, height = image_place(browser)
    room = browser.run("const p = document.querySelector('.pane'); return [p.clientWidth, p.clientHeight]")
    assert width == pytest.approx(min(room[0], room[1] * 640 / 384, 640), abs=1)  # never enlarged
    np.testing.assert_allclose([left * 2 + width, upper * 2 + height], room, atol=2)
    assert browser.messages() == []


def test_high_zoom_shows_pixels_as_squares(browser, samples):
    open_viewer(browser, samples)
    for _ in range(20):
        browser["#divider"].send_keys("+")
    left, top, width, _ = image_place(browser)
    scale = width / 640
    assert 20 < scale <= 32
    pixels, _ = stage(browser)
    column, row = int(np.ceil((100 - left) / scale)), int(np.ceil((100 - top) / scale))  # of the picture
    x, y = left + column * scale, top + row * scale
    square = pixels[round(y) + 1 : round(y + scale) - 1, round(x) + 1 : round(x + scale) - 1]
    assert same(square, load(SAMPLE)[row, column])


def test_keys_step_through_the_images_in_their_order_and_escape_returns(browser, samples):
    browser.open(samples)
    names = browser.texts(".open")
    first = browser[".open"]
    assert browser.run("return arguments[0].tabIndex", first) == 0
    first.send_keys("\ue015")  # the down arrow key moves to the next row
    focused = "return document.activeElement.textContent"

    def shown():
        return [browser["#name"].text, browser["#at"].text]

    assert browser.run(focused) == names[1]
    browser.driver.switch_to.active_element.send_keys("\n")
    browser.wait(SHOWN)
    assert shown() == [names[1], "2 of 3"]
    assert browser.run("return document.activeElement.id") == "divider"
    browser["#divider"].send_keys("n")
    assert shown() == [names[2], "3 of 3"]
    browser["#divider"].send_keys("n")
    assert shown() == [names[2], "3 of 3"]
    browser["#divider"].send_keys("pp")
    assert shown() == [names[0], "1 of 3"]
    browser["#divider"].send_keys("s")
    assert browser["#beside"].get_attribute("aria-pressed") == "true"
    assert browser.run("return document.activeElement.id") == "beside"  # the divider is gone, keys still work
    browser["#beside"].send_keys("s")
    assert browser["#beside"].get_attribute("aria-pressed") == "false"
    browser["#beside"].send_keys("\ue00c")  # Escape
    assert not browser.run("return document.getElementById('viewer').open")
    # The browser first gives the focus back to where it was; the page moves it when it hears that the viewer is closed.
    browser.wait(f"document.activeElement.textContent === {names[0]!r}")
    assert browser.messages() == []


def test_fingers_move_the_divider_and_pinch_on_a_phone(browser, samples):
    open_viewer(browser, samples, PHONE)
    assert browser.run("return document.documentElement.scrollWidth") <= 360
    assert all(each.rect["x"] + each.rect["width"] <= 360 for each in browser.all("#viewer :is(button, select)"))
    browser.touch("touchStart", (180, 300))
    browser.touch("touchMove", (90, 300))
    browser.touch("touchEnd")
    assert browser["#divider"].get_attribute("aria-valuenow") == "25"
    width = image_place(browser)[2]
    browser.touch("touchStart", (140, 330), (220, 330))
    browser.touch("touchMove", (100, 330), (260, 330))
    browser.touch("touchEnd")
    assert image_place(browser)[2] == pytest.approx(2 * width, rel=0.02)


def test_photographs_have_two_pictures(browser, tmp_path):
    upright = load(SAMPLE)
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(np.rot90(upright, -1).copy()).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    Image.fromarray(upright).save(tmp_path / "scan.tif")
    names = ["scan.tif", "turned.jpg"]
    for name in names:
        save(tmp_path / "photos" / f"{name}.png", upright)
    sources = {("photos", name): Source(tmp_path / name) for name in names}
    page = write_report(tmp_path, photograph_rows(names), photographs(names), SETTINGS, sources)
    for name in names:
        open_viewer(browser, page, name=name)
        assert "not scored" in browser["#sets"].get_property("textContent")
        assert browser.texts("#left option") == ["blurry", "restored"]
        browser["#exact"].click()
        browser["#divider"].send_keys("\ue010")
        seen, _ = seen_at_one_to_one(browser)
        difference = seen[40:].astype(np.float64) - upright[40:]
        assert np.sqrt((difference**2).mean()) < 3  # JPEG, upright
        assert browser.messages() == []


def test_nothing_shines_through_transparent_pictures(browser, tmp_path):
    save(tmp_path / "opaque.png", load(SAMPLE))
    clear = np.zeros((384, 640, 4), np.uint8)
    for name in ("left.png", "right.png"):
        save(tmp_path / "photos" / f"{name}.png", clear)
    rows = photograph_rows(["left.png", "right.png"])
    sources = {("photos", row["image"]): Source(tmp_path / "opaque.png") for row in rows}
    page = write_report(tmp_path, rows, photographs(["left.png", "right.png"]), SETTINGS, sources)
    open_viewer(browser, page, name="left.png")
    for opaque_left in (True, False):
        if not opaque_left:
            browser["#left"].send_keys("restored")
            browser["#right"].send_keys("blurry")
        browser["#exact"].click()
        browser.wait(SHOWN)
        seen, left = seen_at_one_to_one(browser)
        edge, ground = 640 - left, browser.screenshot()[450, 20]
        sides = [seen[40:, : edge - 24], seen[40:, edge + 24 :]]
        empty = sides[opaque_left]
        assert same(empty, np.broadcast_to(ground, empty.shape))
        assert sides[not opaque_left].std() > 20


def test_networks_are_compared_on_an_image(browser, tmp_path):
    rows, sets, sources = [], {}, {}
    for network, strength in ("NF", 0.2), ("FT", 0.5):
        some_rows, some_sets, some_sources = restore_samples(tmp_path, f"{network}/GOPRO_test", [strength] * 3)
        rows += [{**row, "weights": network} for row in some_rows]
        sets |= some_sets
        sources |= some_sources
    open_viewer(browser, write_report(tmp_path, rows, sets, SETTINGS, sources))
    assert len(browser.all("#sets h2")) == 3  # the comparison and each of the two
    shown, other = ("NF", "FT") if browser["#name"].text.startswith("NF") else ("FT", "NF")
    assert browser.texts("#right option") == ["blurry", "restored", "sharp", f"restored, {other}/GoPro"]
    browser["#left"].send_keys("restored, ")
    browser.wait(SHOWN)
    browser["#exact"].click()
    seen, left = seen_at_one_to_one(browser)
    edge = 640 - left
    assert same(seen[40:, : edge - 24], load(tmp_path / other / "GOPRO_test" / NAME)[40:, : edge - 24])
    assert same(seen[40:, edge + 24 :], load(tmp_path / shown / "GOPRO_test" / NAME)[40:, edge + 24 :])
    browser["#close"].click()
    browser["#set"].send_keys("FT")
    assert len(browser.all("#body tr")) == 3


def test_a_page_that_was_moved_finds_the_pictures_where_they_were(browser, samples, tmp_path):
    moved = tmp_path / "deeper" / "still" / "results"
    shutil.copytree(samples.parent, moved)
    open_viewer(browser, moved / "report.html")
    assert browser.run("return document.querySelector('.pane img').src") == SAMPLE.as_uri()

"""report.html: what is written, and the page in a browser; the viewer has a file of its own."""

import os
import re
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from tests.support.browser import PHONE
from tests.support.reports import ODD_NAMES, SETTINGS, SHOWN, photograph_rows, photographs, sample_report, sharpened
from tests.support.samples import SAMPLE, load, save
from utils.report.page import FILES, Source, write_report

VISIBLE = "#body .open"


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return sample_report(tmp_path_factory.mktemp("report"))


def order_by(rows, key, descending=False):
    return [row["image"] for row in sorted(rows, key=key, reverse=descending)]


def gain(row):
    return row["psnr"] - row["input_psnr"]


def test_thumbnails_are_made_once_and_again_when_older_than_their_pictures(tmp_path):
    rows = photograph_rows(["old", "new"])
    for row in rows:
        save(tmp_path / row["saved_as"], load(SAMPLE))
    page = write_report(tmp_path, rows, photographs(["old", "new"]), SETTINGS, {})
    assert page == tmp_path / "report.html"
    files = list((tmp_path / "report_files").iterdir())
    assert [Image.open(file).size for file in files] == [(240, 144)] * 2
    for file in files:
        file.write_bytes(b"kept")
    for name, age in ("old", -9), ("new", 9):
        time = files[0].stat().st_mtime + age
        os.utime(tmp_path / "photos" / f"{name}.png", (time, time))
    write_report(tmp_path, rows, photographs(["old", "new"]), SETTINGS, {})
    assert sorted(file.read_bytes() == b"kept" for file in files) == [False, True]


def test_previews_of_what_browsers_do_not_show_are_those_pictures(tmp_path):
    upright = load(SAMPLE)
    turned, exif = Image.fromarray(np.rot90(upright).copy()), Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise
    turned.save(tmp_path / "turned.tif", exif=exif)
    turned.save(tmp_path / "turned.webp", exif=exif, lossless=True)
    turned.save(tmp_path / "turned.jpg", exif=exif)
    names = ["turned.tif", "turned.webp", "turned.jpg"]
    for name in names:
        save(tmp_path / "out" / "photos" / f"{name}.png", upright)
    sources = {("photos", name): Source(tmp_path / name) for name in names}
    write_report(tmp_path / "out", photograph_rows(names), photographs(names), SETTINGS, sources)
    previews = list((tmp_path / "out" / "report_files").glob("preview-*.jpg"))
    assert len(previews) == 2  # browsers turn JPEG themselves
    for preview in previews:
        difference = load(preview).astype(np.float64) - upright
        assert np.sqrt((difference**2).mean()) < 2.0


def test_sixteen_bits_of_grey_keep_their_brightness(tmp_path):
    values = np.linspace(0, 65535, 480 * 64).reshape(64, 480).astype(np.uint16)
    (tmp_path / "photos").mkdir()
    for path in (tmp_path / "grey.tif", tmp_path / "photos" / "grey.tif.png"):
        Image.fromarray(values).save(path)
    sources = {("photos", "grey.tif"): Source(tmp_path / "grey.tif")}
    write_report(tmp_path, photograph_rows(["grey.tif"], 64, 480), photographs(["grey.tif"]), SETTINGS, sources)
    for file, rows in ("thumbnail", 32), ("preview", 64):
        (made,) = (tmp_path / "report_files").glob(f"{file}-*.jpg")
        means = load(made)[..., 0].mean(axis=1)
        np.testing.assert_allclose(means, values.reshape(rows, -1).mean(axis=1) / 257, atol=2.0)


@pytest.mark.slow
def test_pictures_that_are_damaged_or_gone_give_rows_without(tmp_path, browser):
    names = ["damaged.tif", "gone.png"]
    (tmp_path / "photos").mkdir()
    for name in ("damaged.tif", "photos/damaged.tif.png"):
        (tmp_path / name).write_bytes(b"no picture")
    sources = {("photos", name): Source(tmp_path / name) for name in names}
    page = write_report(tmp_path, photograph_rows(names), photographs(names), SETTINGS, sources)
    assert browser.open(page).texts("#body .none") == ["no picture"] * 2
    assert browser.messages() == []


@pytest.mark.slow
def test_a_run_is_shown_with_its_scores_and_the_published_ones(browser, samples):
    page, rows = samples
    browser.open(page)
    assert browser["#run"].text == "DeblurringNet_FT.pth · fp32 · cpu · torch 2"
    assert browser["#extent"].text == "3 images · 1 set"
    assert "deform opfused" in browser["#settings"].get_property("textContent")
    mean = sum(row["input_psnr"] for row in rows) / 3
    first, note, *_ = browser.texts(".halves tbody tr")
    assert first == f"PSNR{mean:.2f}∞+∞"  # one of the images is perfect
    assert "MPRNet" in note
    assert "1 of 3 made worse" in browser[".histogram h3"].text
    assert "1 without a finite one" in browser[".histogram h3"].text
    assert browser.all(".histogram rect.worse")
    assert browser.all(".histogram rect.better")
    counts = [int(text.rsplit(": ", 1)[1]) for text in browser.texts(".histogram title")]
    assert sum(counts) == 2
    assert browser.messages() == []


@pytest.mark.slow
def test_networks_whose_files_share_a_name_are_distinguished(browser, tmp_path):
    files = {"x_net": {"weights": "nets/x/net.pth"}, "y_net": {"weights": "nets\\y\\net.pth"}}
    browser.open(write_report(tmp_path, [], {}, SETTINGS | {"networks": files}, {}))
    assert browser["#run"].text == "x/net.pth, y/net.pth · fp32 · cpu · torch 2"


@pytest.mark.slow
def test_photographs_and_videos_are_listed_without_scores(browser, tmp_path):
    (tmp_path / "shaky #1.mp4").write_bytes(b"")
    (tmp_path / "source.mp4").write_bytes(b"")
    stills = {side: f"{FILES}/video-{side}.png" for side in ("blurry", "restored")}
    for name, picture in zip(stills.values(), (load(SAMPLE), sharpened(load(SAMPLE), 3)), strict=True):
        save(tmp_path / name, picture)
    video = {"kind": "video", "height": 384, "width": 640, "frames": 250, "frames_per_second": 29.97002997}
    video |= {"source": str(tmp_path / "source.mp4"), "stills": stills, "notes": ["a note"], "problems": ["ends early"]}
    old = {
        "kind": "video",
        "height": 720,
        "width": 1280,
        "frames": 2,
        "frames_per_second": 25.0,
    }  # of an earlier version
    sets = photographs(["one.jpg"]) | {"shaky #1.mp4": video, "old.mp4": old}
    browser.open(write_report(tmp_path, photograph_rows(["one.jpg"]), sets, SETTINGS, {}))
    assert browser["#extent"].text == "1 image · 1 set · 2 videos"
    photos, shaky, older = (card.text for card in browser.all("#sets .card"))
    assert "No ground truth: restored and saved, not scored." in photos
    assert "video · 640×384 px · 250 frames · 29.97 a second" in shaky
    assert "video · 1280×720 px · 2 frames · 25 a second" in older
    links = [link.get_attribute("href") for link in browser.all(".card a")]
    assert links == [(tmp_path / name).as_uri() for name in ("source.mp4", "shaky #1.mp4")]
    assert "Problems (1)\nends early" in shaky
    assert "Notes (1)" in shaky
    assert browser["#lacks"].text == "1 video restored in part"
    (still,) = browser.all(".still")
    assert browser.texts(".still span") == ["before", "after"]
    browser.wait("[...document.querySelectorAll('.still img')].every((image) => image.naturalWidth === 240)")
    urls = browser.run("return [...document.querySelectorAll('.still img')].map((image) => image.getAttribute('src'))")
    before, after = (load(tmp_path / url).std() for url in urls)
    assert after > before + 2
    still.click()
    browser.wait(SHOWN)
    assert browser["#name"].text == "shaky #1.mp4"
    assert browser["#at"].text == "1 of 1"
    assert browser.texts("#left option") == ["blurry", "restored"]
    assert not browser["#next"].is_enabled()
    browser["#close"].click()
    assert browser.run("return document.activeElement.className") == "still"
    assert browser.texts("#key option") == ["order of the run", "name", "size in px", "seconds"]
    assert browser.messages() == []


@pytest.mark.slow
def test_a_run_without_images_is_a_page_all_the_same(browser, tmp_path):
    browser.open(write_report(tmp_path, [], {}, SETTINGS, {}))
    assert not browser["#images"].is_displayed()
    assert browser.messages() == []


@pytest.mark.slow
def test_rows_are_sorted_by_clicks_and_by_keys(browser, samples):
    page, rows = samples
    browser.open(page)
    assert browser.texts(VISIBLE) == order_by(rows, gain)  # the worst one first
    assert browser["th[aria-sort]"].text.replace("\n", " ").strip() == "gain in PSNR"
    browser["#descending"].click()
    assert browser.texts(VISIBLE) == order_by(rows, gain, descending=True)
    header = browser["th[data-key=ssim] button"]
    header.click()
    assert browser.texts(VISIBLE) == order_by(rows, lambda row: row["ssim"])
    assert browser["th[data-key=ssim]"].get_attribute("aria-sort") == "ascending"
    header.send_keys("\n")
    assert browser.texts(VISIBLE) == order_by(rows, lambda row: row["ssim"], descending=True)
    assert browser["th[data-key=ssim]"].get_attribute("aria-sort") == "descending"
    browser["#key"].send_keys("input psnr")
    assert browser.texts(VISIBLE) == order_by(rows, lambda row: row["input_psnr"], descending=True)
    browser["#query"].send_keys("0372")
    assert sorted(browser.texts(VISIBLE)) == sorted(row["image"] for row in rows if "0372" in row["image"])
    assert browser["#count"].text == "2 of 3 images"


@pytest.mark.slow
def test_where_less_is_better_the_highest_is_worst(browser, tmp_path):
    rows = photograph_rows(["a.png", "b.png", "c.png"])
    for row, value in zip(rows, (0.3, 0.1, 0.2), strict=True):
        row.update(psnr=30.0, input_psnr=25.0, lpips=value, input_lpips=0.2)
    del rows[1]["psnr"]
    browser.open(write_report(tmp_path, rows, photographs(["a.png", "b.png", "c.png"]), SETTINGS, {}))
    assert browser.texts(VISIBLE)[-1] == rows[1]["image"]  # nothing known is neither best nor worst
    browser["th[data-key=lpips] button"].click()
    assert [button.text for button in browser.all(".joined button")] == ["Worst first", "Best first"]
    browser["#descending"].click()
    assert browser["#descending"].text == "Worst first"
    assert browser.texts(VISIBLE) == [rows[i]["image"] for i in (0, 2, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("size", [PHONE, (800, 600), (1280, 900), (1920, 1000)], ids=str)
def test_no_width_scrolls_sideways(browser, samples, size):
    browser.open(samples[0], size)
    browser["details summary"].click()
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.run(overflow) == 0
    # Numbers are whole, on one line.
    whole = """
        const range = document.createRange();
        range.selectNode(arguments[0].firstChild);
        return range.getClientRects().length === 1 && arguments[0].scrollWidth <= arguments[0].clientWidth + 1;
    """
    assert all(browser.run(whole, cell) for cell in browser.all("#body td:is(.gain, .value)"))


@pytest.mark.slow
def test_both_schemes_can_be_read(browser, samples):
    brightness = {}
    for scheme in ("light", "dark"):
        brightness[scheme] = browser.open(samples[0], scheme=scheme).screenshot().mean()
        assert browser.lowest_contrast() >= 4.5  # WCAG 2.2, level AA
        assert browser.run("return getComputedStyle(document.querySelector('button')).transitionDuration") == "0s"
    assert brightness["light"] > 200
    assert brightness["dark"] < 60


@pytest.mark.slow
def test_names_are_text_and_find_their_files(browser, tmp_path):
    picture = load(SAMPLE)[:64, :96]
    rows = photograph_rows(list(ODD_NAMES), 64, 96)
    for row in rows:
        save(tmp_path / "blurry ä#%" / row["image"], picture)
        save(tmp_path / "out" / row["saved_as"], picture)
    sources = {("photos", name): Source(tmp_path / "blurry ä#%" / name) for name in ODD_NAMES}
    browser.open(write_report(tmp_path / "out", rows, photographs(list(ODD_NAMES)), SETTINGS, sources))
    assert sorted(browser.texts(VISIBLE)) == sorted(ODD_NAMES)
    assert browser.driver.title == "Test report"
    urls = browser.run("return data.rows.map((row) => row.pictures.blurry)")
    for url, name in zip(urls, ODD_NAMES, strict=True):
        assert not re.search(r"[^\w./~%-]", url, re.ASCII)
        assert (tmp_path / "out" / unquote(url)).samefile(tmp_path / "blurry ä#%" / name)
    for button in browser.all(VISIBLE):
        button.click()
        browser.wait("[...document.querySelectorAll('.pane img')].every((image) => image.naturalWidth === 96)")
        browser["#close"].click()
    assert browser.messages() == []


@pytest.mark.slow
def test_a_benchmark_of_1111_images_loads_what_is_seen(browser, tmp_path):
    names = [f"GOPR{i // 100:04}/{i:06}.png" for i in range(1111)]
    rng = np.random.default_rng(0)
    rows = photograph_rows(names, 8, 8)
    for row in rows:
        save(tmp_path / row["saved_as"])
        row.update(input_psnr=25.0, psnr=float(rng.uniform(24, 34)))
    sets = photographs(names)
    sets["photos"] |= {"input": {"psnr": 25.0}, "output": {"psnr": 29.0}}
    page = write_report(tmp_path, rows, sets, SETTINGS, {})
    assert len(list((tmp_path / "report_files").iterdir())) == 1111
    assert page.stat().st_size < 2**20
    browser.open(page)
    loaded = "[...document.querySelectorAll('#body img')].filter((image) => image.naturalWidth > 0).length"
    browser.wait(f"{loaded} > 3")
    assert browser.run(f"return {loaded}") < 120
    for kind, there in ("worse", sum(gain(row) < 0 for row in rows)), ("better", sum(gain(row) >= 0 for row in rows)):
        bars = browser.texts(f".histogram rect.{kind} title")
        assert sum(int(text.rsplit(": ", 1)[1]) for text in bars) == there
    assert browser.texts(VISIBLE) == order_by(rows, gain)
    browser["th[data-key=image] button"].click()
    assert browser.texts(VISIBLE) == names
    browser["th[data-key=psnr] button"].click()
    browser["#descending"].click()
    assert browser.texts(VISIBLE) == order_by(rows, gain, descending=True)
    last = browser.all(VISIBLE)[-1]
    browser.run("arguments[0].scrollIntoView()", last)
    browser.wait("document.querySelector('#body tr:last-child img').naturalWidth > 0")
    assert browser.run(f"return {loaded}") < 240
    assert browser.messages() == []

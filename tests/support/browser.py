"""Headless Chromium for the tests of pages, driven by selenium; nothing is fetched from a network."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP, PHONE = (1280, 900), (360, 740)
_CONTRAST = """
const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = (colour) => parse(colour).slice(0, 3).map((value) => value / 255)
  .map((value) => value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4)
  .reduce((sum, value, i) => sum + value * [.2126, .7152, .0722][i], 0);
const style = (node) => getComputedStyle(node);
const ground = (node) => (parse(style(node).backgroundColor)[3] === 0 ? ground(node.parentElement) : node);
const texts = "p, th, td, small, button, summary, h1, h2, h3, label, select, dt, dd";
return Math.min(...[...document.querySelectorAll(texts)].map((node) => {
  const [a, b] = [light(style(node).color), light(style(ground(node)).backgroundColor)];
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
}));
"""


class Page:
    """A page in the browser, and what the tests do with it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> "Page":
        """Show a file in a window of `size` px, or on a phone where it is that narrow, in the light or dark scheme.

        Nothing moves by itself: the page is told that less motion is preferred.
        """
        self.resize(size)
        wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wanted.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.messages()
        self.driver.get(path.as_uri())
        return self

    def resize(self, size: tuple[int, int]) -> None:
        width, height = size
        phone = width <= PHONE[0]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what a function body in JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def __getitem__(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return self.run("return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)", selector)

    def messages(self) -> list[str]:
        """Return what the console has received since the last call: errors of scripts, pictures not found."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def drag(self, start: tuple[float, float], by: tuple[int, int]) -> None:
        """Press the mouse's button at a place of the window, in px, move it and let go."""
        from selenium.webdriver.common.action_chains import ActionChains

        chain = ActionChains(self.driver, duration=20)
        chain.w3c_actions.pointer_action.move_to_location(*map(int, start))
        chain.click_and_hold().move_by_offset(*by).release().perform()

    def wheel(self, at: tuple[int, int], delta: int) -> None:
        event = {"type": "mouseWheel", "x": at[0], "y": at[1], "deltaX": 0, "deltaY": delta}
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def touch(self, kind: str, *fingers: tuple[int, int]) -> None:
        """Send touchStart, touchMove or touchEnd with all fingers that are on the display."""
        event = {"type": kind, "touchPoints": [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(fingers)]}
        self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", event)

    def lowest_contrast(self) -> float:
        """Return the lowest contrast of a text with what is behind it, as WCAG 2.2 defines it."""
        return self.run(_CONTRAST)

    def screenshot(self) -> np.ndarray:
        """Return what is seen as H×W×3 uint8 RGB."""
        png = np.frombuffer(self.driver.get_screenshot_as_png(), np.uint8)
        return cv2.cvtColor(cv2.imdecode(png, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def wait(self, condition: str) -> None:
        """Wait until an expression in JavaScript is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 20).until(lambda driver: driver.execute_script(f"return {condition}"))


@contextmanager
def headless_chromium() -> Iterator[Page]:
    """Start a browser; the test is skipped where it, its driver or selenium is not installed."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("Chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    # A container's /dev/shm is small, and Chromium refuses its sandbox to root.
    for argument in ("--headless=new", "--disable-dev-shm-usage", *(["--no-sandbox"] if root else [])):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    session = webdriver.Chrome(options=options, service=service)
    try:
        yield Page(session)
    finally:
        session.quit()

"""The browser in which tests of report.html look at pages."""

from collections.abc import Iterator

import pytest

from tests.support.browser import Page, headless_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with headless_chromium() as page:
        yield page

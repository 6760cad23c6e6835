"""A Chromium for the browser tests and the screenshots."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.factories import PASSWORD

ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CANDIDATES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """CRPBOT_CHROMIUM, or what the machine has; None where there is none."""
    return os.environ.get("CRPBOT_CHROMIUM") or next(filter(None, map(shutil.which, CANDIDATES)), None)


BROWSER_MARKS = [
    pytest.mark.browser,
    pytest.mark.processes,
    pytest.mark.skipif(
        find_chromium() is None, reason="no Chromium here: install it, or set CRPBOT_CHROMIUM"
    ),
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Raises RuntimeError, saying what to do, where there is no Chromium."""
    path = find_chromium()
    if path is None:
        raise RuntimeError(
            "No Chromium here: install one (Debian: apt-get install chromium), or set CRPBOT_CHROMIUM."
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def sign_in(page: Page, address: str, name: str) -> None:
    page.goto(f"{address}/sign-in/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{address}/")


def open_signed_in(browser: Browser, address: str, name: str) -> Page:
    """A page in a context of its own, signed in as this person. A script error fails the test."""
    page = browser.new_context().new_page()
    page.on("pageerror", lambda error: pytest.fail(f"{name} at {page.url}: {error}"))
    sign_in(page, address, name)
    return page

"""A real browser without a window, to look at pages that a server on loopback gives."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, sync_playwright

# Chromium otherwise asks for updates and looks up hosts of its maker as it starts.
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_LOAD_SECONDS = 60


class Watched:
    """A page, what it asked of other machines, and what went wrong in its scripts."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.elsewhere: list[str] = []
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.route("**/*", self._only_here)

    def _only_here(self, route: Route) -> None:
        place = urlsplit(route.request.url)
        if place.hostname == "127.0.0.1" or place.scheme == "file":
            route.continue_()
        else:
            self.elsewhere.append(route.request.url)
            route.abort()


@contextmanager
def browsing(width: int = 1500, height: int = 900) -> Iterator[Watched]:
    """Open a page, with no network beyond loopback; the test is skipped where there is no Chromium."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no browser: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(_ARGUMENTS))
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(1000 * _LOAD_SECONDS)
        yield Watched(page)
        browser.close()

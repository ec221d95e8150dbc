"""A real browser for pages: it counts as a failure whatever a page logs, throws, opens or asks of a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def headless() -> Iterator[Browser]:
    """This machine's Chromium; skips the test if there is none."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} on the PATH, and CHROMIUM names none")
    from playwright.sync_api import sync_playwright  # a tenth of a second, for these tests only

    quiet = ["--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=quiet)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, file: Path, **options: Any) -> Iterator[Page]:  # noqa: ANN401  (Playwright's)
    """The page in `file`; at the end, all that it must never do is looked for."""
    context = browser.new_context(viewport={"width": 1000, "height": 700}, **options)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    wrong: list[str] = []
    requests: list[str] = []

    def dismissed(dialog: Dialog) -> None:
        wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("dialog", dismissed)
    context.on("request", lambda request: requests.append(request.url))
    try:
        page.goto(file.as_uri())
        yield page
        page.evaluate("new Promise(requestAnimationFrame)")  # what is still under way is heard of
        assert wrong == []
        assert [url for url in requests if not url.startswith("data:")] == [file.as_uri()]
    finally:
        context.close()


def until(page: Page, expression: str) -> None:
    """Wait for `expression` to come true. Playwright's own way needs `eval` in the page, which its policy forbids."""
    for _ in range(400):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(25)
    pytest.fail(f"never came true: {expression}")

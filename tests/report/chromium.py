"""A Chromium for the tests of the page: started once, watched for errors and for requests, never online."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypedDict, Unpack

import pytest

from demur.report.large_runs.completions_file import NAME as COMPLETIONS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Request, ViewportSize

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: scripts/install_chromium.sh installs Debian's")

PATIENCE = 180
"""Seconds that a page may take on a busy machine."""
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


class ContextSettings(TypedDict, total=False):
    """What the tests set of Playwright's contexts."""

    viewport: "ViewportSize"
    offline: bool
    color_scheme: Literal["light", "dark"]
    java_script_enabled: bool


class Open(Protocol):
    """Opens a file in a context, a new one with these settings where none is given; gives a page whose figures are drawn."""

    def __call__(
        self,
        path: Path,
        state: str = "",
        *,
        drawn: bool = True,
        context: "BrowserContext | None" = None,
        **settings: Unpack[ContextSettings],
    ) -> "Page": ...


@contextmanager
def started() -> Iterator["Browser"]:
    """A browser, closed at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def until(page: "Page", condition: str) -> None:
    """Wait for a condition. Asked from outside, because the page's policy lets nothing be evaluated inside."""
    for _ in range(PATIENCE * 20):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{condition} did not come true within {PATIENCE} seconds")


def draw_all(page: "Page") -> "Page":
    """Bring every figure to the screen, one after the other."""
    for plot in page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
        plot.locator("svg.main-svg").first.wait_for(state="attached")
    return page


@contextmanager
def watched(browser: "Browser") -> Iterator[Open]:
    """Pages whose every console message, error and request fails the test at its end, but for the page and its completions."""
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def open_page(
        path: Path,
        state: str = "",
        *,
        drawn: bool = True,
        context: "BrowserContext | None" = None,
        **settings: Unpack[ContextSettings],
    ) -> "Page":
        if context is None:
            chosen: ContextSettings = {"viewport": {"width": 1200, "height": 900}, "offline": True, **settings}
            context = browser.new_context(**chosen)
            contexts.append(context)
        page = context.new_page()
        # Large pages drawn without a GPU, beside other tests at work.
        page.set_default_timeout(PATIENCE * 1000)
        own, beside = path.as_uri(), path.with_name(COMPLETIONS).as_uri()

        def asked(request: "Request") -> None:
            # Plotly paints heat maps into images of its own; everything else would be a way out.
            if request.url.split("#")[0] not in (own, beside) and not request.url.startswith(
                ("data:image/png", f"blob:{own.partition(':')[0]}")
            ):
                problems.append(f"request: {request.url[:200]}")

        context.on("request", asked)
        page.on("console", lambda message: problems.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.goto(own + (f"#{state}" if state else ""))
        if drawn:
            until(page, "document.documentElement.dataset.figures === 'ready'")
        return page

    try:
        yield open_page
        assert problems == []
    finally:
        for context in contexts:
            context.close()

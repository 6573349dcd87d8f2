"""Opens pages in a real browser: the machine's Chromium, else the one that Playwright installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

from tests.local_run import LocalRun
from tests.tapes import absent
from tests.waiting import PATIENCE, until_sync

expect.set_options(timeout=PATIENCE * 5_000)  # of its own it waits 5 s, which is what a quiet machine needs

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
AWAY = ("ERR_CONNECTION_REFUSED", "WebSocket connection to", "ERR_INTERNET_DISCONNECTED", "ERR_NETWORK_CHANGED")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
VIEW = (1440, 900)
MARKER = f"--tapeline-page={os.getpid()}"  # a word of the command line, by which its processes can be told from others


@contextmanager
def chromium(*more: str) -> Iterator[Browser]:
    """Run a headless Chromium with `more` arguments; without one the test is skipped, in CI it fails."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=[*ARGUMENTS, *more])
        except Error as missing:
            absent(f"no Chromium can be started: {str(missing).splitlines()[0]}")
            raise
        try:
            yield browser
        finally:
            browser.close()


def page_url(run: LocalRun, symbol: str = "") -> str:
    """Return the address of the run's page, with a symbol chosen."""
    return f"http://127.0.0.1:{run.port('SCP_PORT')}/" + (f"#{symbol}" if symbol else "")


class Desk:
    """An open page: its counters, and everything it complained about."""

    def __init__(
        self, browser: Browser, where: LocalRun | str, scheme: Any = "dark", view: tuple[int, int] = VIEW, script: str = "",
        symbol: str = "", cookies: Any = (), **more: Any,
    ) -> None:  # fmt: skip
        """Open the page of a run, signed in as its administrator, or an address with these cookies."""
        url = where if isinstance(where, str) else page_url(where, symbol)
        self.page: Page = browser.new_page(viewport={"width": view[0], "height": view[1]}, color_scheme=scheme, **more)
        if script:
            self.page.add_init_script(script)
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("console", lambda message: self._console(message.type, message.text))
        self.page.context.add_cookies(list(cookies) if isinstance(where, str) else where.cookies())  # type: ignore[arg-type]
        self.page.goto(url)

    def _console(self, kind: str, text: str) -> None:
        refused = any(word in text for word in AWAY)  # while a test has WDS or the network away
        if kind in ("error", "warning") and not refused:
            self.complaints.append(f"{kind}: {text}")

    def value(self, expression: str) -> Any:
        """Return what a JavaScript expression is worth on the page; `tapeline` is the page's counters."""
        return self.page.evaluate(f"() => {expression}")

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements that match."""
        return list(self.page.eval_on_selector_all(selector, "found => found.map(e => e.textContent)"))

    def until(self, condition: Callable[[], Any], seconds: float = 20, what: str = "") -> Any:
        """Return the first truthy value of `condition()`."""
        return until_sync(condition, seconds, what, every_s=0.1)

    def live(self, seconds: float = 30) -> None:
        """Wait until the page calls its numbers live and shows some."""
        self.until(lambda: self.value("tapeline.symbols > 0 && tapeline.verdict.verdict === 'live'"), seconds, "live numbers")

    def tab(self, name: str) -> None:
        """Show this part of the desk; on a wide screen all of them are shown anyway."""
        button = self.page.locator(f'.tabs [data-tab="{name}"]')
        if self.page.locator(".tabs").is_visible():
            button.click()

    def close(self) -> None:
        self.page.close()

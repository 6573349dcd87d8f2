"""Signing in as people do: the first link, a second factor, an invitation, the way out, all in a real browser on a real `make run`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pyotp
import pytest
from playwright.sync_api import Browser, Page

from tests.live.page.browser import MARKER, chromium
from tests.live.page.test_access import AXE, GRAVE
from tests.local_run import LocalRun
from tests.signing import PASSWORD
from tests.waiting import until_sync

pytestmark = pytest.mark.live

RUN = {"SYMBOLS": "100", "RATE": "500"}
LIVE = "() => window.tapeline && tapeline.symbols > 0 && tapeline.verdict.verdict === 'live'"
PATIENCE_MS = 40_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser of this file's own."""
    with chromium(MARKER) as started:
        yield started


def opened(browser: Browser, url: str) -> Page:
    """Return a page of somebody who has no cookie."""
    page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="dark")
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    return page


def desk_is_live(page: Page) -> None:
    """Wait for live numbers."""
    page.wait_for_function(LIVE)


def grave(page: Page) -> list[str]:
    """Return what axe calls critical or serious."""
    page.evaluate(AXE.read_text())
    return list(page.evaluate(GRAVE))


def enter(page: Page, username: str, password: str) -> None:
    """Type name and password."""
    page.fill("#sign-in [name=username]", username)
    page.fill("#sign-in [name=password]", password)
    page.click("#sign-in button[type=submit]")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[LocalRun]:
    """A run of the test's own: its link works once, also when the test is run again."""
    with LocalRun(tmp_path / "run", **RUN) as started:
        started.says("http://127.0.0.1:")
        yield started
        started.interrupt()
        started.ends()


def choose(page: Page, username: str, password: str) -> None:
    """Choose a name, where it can be chosen, and a password."""
    page.wait_for_selector("#new-password:not([hidden])")
    if username:
        page.fill("#new-password [name=username]", username)
    page.fill("#new-password [name=password]", password)
    page.fill("#new-password [name=again]", password)
    page.click("#new-password button[type=submit]")


def account(page: Page, tab: str) -> None:
    """Open the account's dialog at a tab."""
    if not page.locator("dialog.account").is_visible():
        page.click("#account")
    page.click(f"dialog.account [role=tab]:text('{tab}')")


def test_from_the_first_link_to_a_person_signed_out(run: LocalRun, browser: Browser, tmp_path: Path) -> None:
    """What a new user does in the first ten minutes, with nothing read but the page."""
    link = run.says("once, within a day: ").rpartition(" ")[2]
    base = link.partition("/welcome")[0]
    ann = opened(browser, f"{base}/")
    assert ann.url == f"{base}/sign-in"
    assert grave(ann) == []
    enter(ann, "ann", "nobody is here yet")
    ann.wait_for_selector("#said:text('wrong')")

    ann.goto(link)
    choose(ann, "ann", "short")
    ann.wait_for_selector("#said:text('12 to 256 characters')")
    ann.screenshot(path=str(tmp_path / "welcome.png"))
    choose(ann, "ann", PASSWORD)
    desk_is_live(ann)
    assert ann.url.startswith(f"{base}/")

    account(ann, "You")
    ann.fill("dialog form:has(button:text('Set a second factor')) [name=password]", PASSWORD)
    ann.click("button:text('Set a second factor')")
    totp = pyotp.TOTP(ann.inner_text("dialog code"))
    until_sync(lambda: ann.eval_on_selector("img.qr", "e => e.complete && e.naturalWidth > 0"), 10, "the QR code")
    ann.screenshot(path=str(tmp_path / "factor.png"))
    ann.fill("dialog [name=code]", totp.at(time.time() - 30))
    ann.click("button:text('That is my app')")
    codes = ann.input_value("dialog .once textarea").split()
    assert len(codes) == 10
    ann.click("button:text('I have written them down')")
    ann.wait_for_selector("button:text('Take it off')")

    ann.click("dialog button:text('Sign out')")
    ann.wait_for_url(f"{base}/sign-in")
    enter(ann, "Ann", PASSWORD)
    ann.fill("#second-factor [name=code]", totp.now())
    ann.click("#second-factor button[type=submit]")
    desk_is_live(ann)

    account(ann, "People")
    assert grave(ann) == []
    ann.fill("dialog form:has(button:text('Invite')) [name=username]", "bob")
    ann.click("dialog button:text('Invite')")
    invitation = ann.input_value("dialog .once textarea")
    assert invitation.startswith(f"{base}/welcome#")
    ann.screenshot(path=str(tmp_path / "people.png"))

    bob = opened(browser, invitation)
    until_sync(lambda: bob.input_value("#new-password [name=username]") == "bob", 10, "the name of who was invited")
    choose(bob, "", "three owls on a fence")
    desk_is_live(bob)
    account(bob, "You")
    assert bob.locator("dialog [role=tab]").all_inner_texts() == ["You", "Sessions", "Tokens"]
    bob.keyboard.press("Escape")

    account(ann, "Sessions")
    account(ann, "People")
    ann.click("dialog tr:has-text('bob') button:text('Sign out')")
    bob.wait_for_url(f"{base}/sign-in", timeout=20_000)
    account(ann, "Audit")
    ann.wait_for_selector("dialog td:text('user.sign_out')")
    ann.screenshot(path=str(tmp_path / "audit.png"))
    for page in (ann, bob):
        page.close()


def test_a_used_link_says_so(run: LocalRun, browser: Browser) -> None:
    """And offers to sign in instead."""
    link = run.says("once, within a day: ").rpartition(" ")[2]
    ann = opened(browser, link)
    choose(ann, "ann", PASSWORD)
    desk_is_live(ann)
    ann.close()
    page = opened(browser, link)
    page.wait_for_selector("#said:text('was used already or has ended')")
    assert page.locator("#sign-in").is_visible()
    page.close()

"""The operators' pages on a real `make run`: what runs is seen, and steered: clients, stores, listeners, components."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.live.page.browser import MARKER, Desk, chromium
from tests.live.page.test_access import AXE, GRAVE
from tests.local_run import LocalRun
from tests.waiting import until_sync

pytestmark = pytest.mark.live

PATIENCE_MS = 60_000
PAGES = ("topology", "components", "listeners", "queues", "clients", "stores", "letters", "keys", "tokens", "people", "audit")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRun]:
    """A run with everything embedded, the exchange too."""
    with LocalRun(tmp_path_factory.mktemp("run"), FEED="simulator+engine", SYMBOLS="50", RATE="200", BOTS_RATE="20") as started:
        started.says("ready after")
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser of this file's own."""
    with chromium(MARKER) as started:
        yield started


@pytest.fixture
def page(run: LocalRun, browser: Browser) -> Iterator[Page]:
    """The operators' pages, of an administrator."""
    made = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="dark")
    made.set_default_timeout(PATIENCE_MS)
    made.context.add_cookies(run.cookies())  # type: ignore[arg-type]
    made.goto(f"http://127.0.0.1:{run.port('SCP_PORT')}/operate")
    yield made
    made.close()


def test_every_page_shows_what_there_is_and_can_be_used_by_all(page: Page) -> None:
    """Live, without a complaint of axe, wide and narrow."""
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.wait_for_selector("section[aria-label='Processors'] strong:text('1 ready')")
    page.wait_for_selector("section[aria-label='Exchange'] strong:text('1 ready')")
    for name in PAGES:
        page.click(f"nav a[href='#{name}']")
        page.wait_for_selector(f"nav a[href='#{name}'][aria-current=page]")
        page.wait_for_selector("#page > *:nth-child(2)", state="attached")
        page.evaluate(AXE.read_text())
        assert page.evaluate(GRAVE) == [], name
    page.set_viewport_size({"width": 390, "height": 800})
    page.click("nav a[href='#topology']")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert complaints == []


def test_a_client_is_kicked(page: Page, run: LocalRun, browser: Browser) -> None:
    """It is seen, asked about twice, and gone."""
    desk = Desk(browser, run)
    page.click("nav a[href='#clients']")
    page.click("tr:has-text('ann') button:text('Kick')")
    page.click("button:text('Close the connection?')")
    page.wait_for_selector("text=Nobody is connected.")
    desk.page.close()


def test_a_store_is_purged_by_who_types_its_name(page: Page) -> None:
    """Another name purges nothing."""
    page.click("nav a[href='#stores']")
    page.wait_for_selector("text=Trading is open.")
    page.click("tr:has-text('mdl') button:text('Purge …')")
    page.fill("label:has-text('messages go') input", "mdp")
    page.click("button:text('Do it')")
    page.wait_for_selector("text=That is not the store's name.")
    page.fill("label:has-text('messages go') input", "mdl")
    page.click("button:text('Do it')")
    page.wait_for_selector("label:has-text('messages go')", state="detached")


def test_trading_is_suspended_and_resumed(page: Page) -> None:
    """With the reason that was given."""
    page.click("nav a[href='#stores']")
    page.fill("form:has-text('Suspend trading') input", "a try")
    page.click("button:text('Suspend trading')")
    page.wait_for_selector("text=/Trading is suspended: .*a try/")
    page.fill("form:has-text('Resume trading') input", "over")
    page.click("button:text('Resume trading')")
    page.wait_for_selector("text=Trading is open.")


def test_a_listener_follows_what_is_wanted_of_it(page: Page) -> None:
    """Tried first, then applied, seen at the listener, and rolled back."""
    page.click("nav a[href='#listeners']")
    page.click("tr:has-text('mdl') button:text('Configuration')")
    page.fill("label:text-is('rate') input", "-1")
    page.click("button:text('Try it')")
    page.wait_for_selector("text=/refuses/")
    page.fill("label:text-is('rate') input", "400")
    page.fill("label:text-is('note') input", "twice as much")
    page.click("button:text('Apply')")
    page.wait_for_selector("text=/Applied.*rate: its own → 400/")
    page.wait_for_selector("td:text('version 1')")
    page.wait_for_function("() => !document.body.innerText.includes('not as wanted')")


def test_a_component_that_is_drained_comes_back(page: Page) -> None:
    """Its supervisor starts it again: another instance of the same."""
    page.click("nav a[href='#components']")
    name = page.inner_text("td:has-text('bots-')")
    asked = (
        f"fetch('/api/v1/components/{name}').then((answer) => answer.json()).then(({{ state, instance }}) => [state, instance])"
    )
    before = page.evaluate(asked)
    page.click("tr:has-text('bots-') button:text('Drain')")
    page.click("button:text('Hand over and end?')")
    until_sync(lambda: (now := page.evaluate(asked))[0] == "ready" and now[1] != before[1], 60, "another instance")


def test_who_may_not_gets_words(run: LocalRun) -> None:
    """Without signing in the door, for a viewer a refusal that says whom to ask."""
    with urllib.request.urlopen(f"http://127.0.0.1:{run.port('SCP_PORT')}/operate", timeout=20) as answer:
        assert answer.url.endswith("/sign-in")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{run.port('SCP_PORT')}/api/v1/components", timeout=20)
    assert json.loads(refused.value.read())["code"] == "unauthorized"

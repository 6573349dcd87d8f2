"""The page for everybody: without a pointer, with a finger, with the system's colours, and as axe sees it."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from playwright.sync_api import Browser

from scp import build
from tests.live.page.browser import Desk
from tests.local_run import LocalRun

pytestmark = pytest.mark.live

RUN = {"FEED": "simulator", "SYMBOLS": "300", "RATE": "1200"}


# Keys and their footer


def test_what_the_footer_says_is_so(desk: Desk) -> None:
    """Each key that it names does what it says, and single keys can be switched off."""
    named = desk.value("[...document.querySelectorAll('.keys kbd')].filter(e => e.offsetParent).map(e => e.textContent)")
    assert named == ["↑", "↓", "/", "1", "M", "T", "Ctrl K"]
    desk.page.focus("#grid")
    chosen = desk.texts("#i-symbol")
    desk.page.keyboard.press("ArrowDown")
    desk.until(lambda: desk.texts("#i-symbol") != chosen, 5, "another symbol")
    desk.page.keyboard.press("ArrowUp")
    for key, checked in (("m", "1m"), ("1", "1s")):
        desk.page.keyboard.press(key)
        assert desk.texts('.chart-head [aria-checked="true"]') == [checked]
    desk.page.keyboard.press("t")
    assert desk.value("document.documentElement.dataset.theme") == "light"
    desk.page.keyboard.press("t")
    desk.page.click("#shortcuts")
    desk.page.keyboard.press("m")
    desk.page.keyboard.press("/")
    assert desk.texts('.chart-head [aria-checked="true"]') == ["1s"]
    assert desk.value("document.activeElement.id") == "shortcuts"
    assert desk.value("[...document.querySelectorAll('.keys kbd')].filter(e => e.offsetParent).map(e => e.textContent)") == [
        "↑",
        "↓",
        "Ctrl K",
    ]
    desk.page.reload()
    desk.live()
    assert desk.page.get_attribute("#shortcuts", "aria-pressed") == "false"
    desk.page.click("#shortcuts")


def test_everything_can_be_reached_by_keyboard(desk: Desk) -> None:
    """Sort headers, chips, boards, alerts and switches: one stop of Tab each, arrows within, Enter does it."""
    desk.until(lambda: desk.page.locator(".alerts .roll-row").count() > 3, 60, "alerts")
    desk.page.focus("#find")
    stops = []
    while len(stops) < 40 and "shortcuts" not in stops:
        desk.page.keyboard.press("Tab")
        stops.append(
            desk.value(
                "(e => e.closest('.grid-head, .board-list, .roll-list, .switch')?.className ?? (e.id || e.className))(document.activeElement)"
            )
        )
    for stop in ("grid", "grid-head", "switch", "chart-as", "board-list", "roll-list", "shortcuts"):
        assert stop in stops, f"{stop} is not among {stops}"
    assert [stops.count(stop) for stop in ("grid-head", "switch", "board-list", "roll-list")] == [1, 1, 4, 1]
    desk.page.focus(".grid-head button")
    desk.page.keyboard.press("End")
    desk.page.keyboard.press("Enter")
    assert desk.page.locator(".grid-head .cell").last.get_attribute("aria-sort") == "descending"
    desk.page.focus(".alerts .roll-row[tabindex='0']")
    symbol = desk.value("document.activeElement.children[2].textContent")
    desk.page.keyboard.press("Enter")
    desk.until(lambda: desk.texts("#i-symbol")[0] in (symbol, *desk.texts(".alerts .cell:nth-child(3)")), 5, "the alert's symbol")
    desk.page.focus("#chart-as")
    desk.page.keyboard.press("Enter")
    desk.until(lambda: desk.page.locator("#bar-rows tr:not([hidden])").count() > 0, 30, "the chart's table")
    assert desk.page.locator("#chart").is_hidden()


def test_a_phone_has_tabs(run: LocalRun, browser: Browser) -> None:
    """Nothing is scrolled but lists; a tap on a row opens its chart."""
    desk = Desk(browser, run, view=(390, 844), has_touch=True)
    desk.live()
    parts: dict[str, Any] = {"quotes": ".quotes", "chart": ".instrument", "boards": ".board", "alerts": ".alerts"}
    for tab, part in parts.items():
        desk.page.tap(f'.tabs [data-tab="{tab}"]')
        assert [name for name, other in parts.items() if desk.page.locator(other).first.is_visible()] == [tab], part
        assert desk.value("document.documentElement.scrollHeight <= innerHeight")
    desk.page.tap('.tabs [data-tab="quotes"]')
    desk.page.locator(".grid-row:not([hidden])").nth(3).tap()
    assert desk.page.locator(".instrument").is_visible()
    desk.close()
    assert desk.complaints == []


# Colours, targets, and what axe finds

AXE = build.WEB / "node_modules" / "axe-core" / "axe.min.js"
GRAVE = """async () => (await axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }))
  .violations.filter(({ impact }) => impact === "critical" || impact === "serious")
  .map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.slice(0, 3).map(({ html }) => html.slice(0, 120)).join(" | ")}`)"""


@pytest.mark.parametrize(
    ("scheme", "view"),
    [
        ("dark", (1440, 900)),
        ("light", (390, 844)),
        pytest.param("light", (1440, 900), marks=pytest.mark.faults),
        pytest.param("dark", (390, 844), marks=pytest.mark.faults),
    ],
)
def test_axe_finds_nothing_grave(run: LocalRun, browser: Browser, scheme: str, view: tuple[int, int]) -> None:
    """No critical and no serious finding: live, as a table, on every tab, with the finder open, and stale."""
    desk = Desk(browser, run, scheme, view)
    desk.live()
    desk.until(lambda: desk.value("tapeline.bars > 0 && tapeline.alerts > 3"), 60, "a chart and alerts")
    desk.page.evaluate(AXE.read_text())
    for tab in ("quotes", "chart", "boards", "alerts") if view[0] < 760 else ("quotes",):
        if view[0] < 760:
            desk.page.click(f'.tabs [data-tab="{tab}"]')
        assert desk.page.evaluate(GRAVE) == [], tab
    if view[0] < 760:
        desk.page.click('.tabs [data-tab="chart"]')
    desk.page.click("#chart-as")
    desk.page.focus("#find")
    desk.page.keyboard.type("a")
    desk.until(lambda: desk.page.locator("#found li").count() > 1, 5, "symbols found")
    assert desk.page.evaluate(GRAVE) == [], "as a table, with the finder open"
    desk.page.keyboard.press("Escape")
    os.kill(run.pids()["wds"], signal.SIGKILL)
    desk.until(lambda: desk.value("document.documentElement.dataset.feed") == "stale", 20, "the page to grey out")
    assert desk.page.evaluate(GRAVE) == [], "stale"
    desk.live(60)
    desk.close()


def test_forced_colours_keep_the_selection_and_the_live_dot(run: LocalRun, browser: Browser) -> None:
    """The system's colours: the chosen row and the pill's dot still differ from their neighbours."""
    desk = Desk(browser, run, forced_colors="active")
    desk.live()
    desk.until(lambda: desk.page.locator('.grid-row[aria-selected="true"]').count() == 1, 20, "a chosen row")
    ground = "s => getComputedStyle(document.querySelector(s)).backgroundColor"
    chosen = desk.page.evaluate(ground, '.grid-row[aria-selected="true"]')
    assert chosen != desk.page.evaluate(ground, '.grid-row[aria-selected="false"]')
    assert desk.page.evaluate(ground, ".pill i") != desk.page.evaluate(ground, ".pill")
    desk.close()


def test_targets_are_large_enough(run: LocalRun, browser: Browser) -> None:
    """Everything that is pressed is at least 24 px high and wide, on a desk and on a phone."""
    small = """() => [...document.querySelectorAll("button, input, a, .grid-row, [role=option]")].filter(e => e.checkVisibility())
      .map(e => [e.id || e.className || e.textContent, e.getBoundingClientRect()]).filter(([, box]) => box.width < 24 || box.height < 24)
      .map(([name, box]) => `${name}: ${box.width} × ${box.height}`)"""
    for view in ((1440, 900), (390, 844)):
        desk = Desk(browser, run, view=view)
        desk.live()
        desk.until(lambda desk=desk: desk.value("tapeline.alerts > 1"), 60, "an alert")
        for tab in ("quotes", "chart", "boards", "alerts") if view[0] < 760 else ("",):
            if tab:
                desk.page.click(f'.tabs [data-tab="{tab}"]')
            assert desk.page.evaluate(small) == [], tab
        desk.close()

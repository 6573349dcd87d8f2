"""The company behind a symbol, and the chart beyond the cache, in a browser: what is drawn is compared with the simulated market."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.live.page.browser import Desk
from tests.live.page.test_access import AXE, GRAVE
from tests.local_run import LocalRun

RUN = {"SYMBOLS": "60", "RATE": "1500"}
SYMBOL = "AMD"
MINUTE_MS, DAY_MS = 60_000, 86_400_000
SETTLED_MS = 15_000  # by then late trades are in the bars of both


def opened(desk: Desk) -> Desk:
    """Choose the stock and bars of a minute."""
    desk.value(f"location.hash = '{SYMBOL}'")
    desk.until(lambda: desk.texts("#i-symbol") == [SYMBOL], 10, "the stock")
    desk.page.locator("[data-frame='1m']").first.click()
    desk.until(lambda: desk.value("tapeline.bars") > 300, 20, "older bars")
    return desk


def placed(desk: Desk) -> None:
    """Have a company on the desk; the layout keeps it for the tests after."""
    if not desk.page.locator(".company").count():
        desk.page.click("#add")
        desk.page.locator("dialog[open]").get_by_role("button", name="Company").first.click()
        desk.page.keyboard.press("Escape")
    desk.until(lambda: "Short interest" in "".join(desk.texts(".company")), 15, "the company")


def market(run: LocalRun, since_ms: int) -> dict[int, list[float]]:
    """Return the simulated market's own bars."""
    asked = f"/simulated/v2/aggs/ticker/{SYMBOL}/range/1/minute/{since_ms}/{time.time_ns() // 1_000_000}?limit=50000"
    with urllib.request.urlopen(f"http://127.0.0.1:{run.port('MDL_ADMIN_PORT')}{asked}", timeout=10) as answer:
        return {bar["t"]: [bar["o"], bar["h"], bar["l"], bar["c"], bar["v"]] for bar in json.load(answer)["results"]}


def drawn(desk: Desk) -> list[list[float]]:
    found: list[list[float]] = desk.value("tapeline.drawn.map(b => [b.t, b.open, b.high, b.low, b.close, b.volume])")
    return found


def test_the_chart_goes_on_beyond_the_cache_without_a_seam(desk: Desk, run: LocalRun) -> None:
    """Pulled to the right it shows older bars: each once, none missing, the market's own numbers before and after the join."""
    opened(desk)
    box = desk.page.locator("#chart").bounding_box()
    assert box is not None
    left, middle = box["x"] + 20, box["y"] + box["height"] / 2

    def pull() -> bool:
        for _ in range(8):
            desk.page.mouse.move(left, middle)
            desk.page.mouse.down()
            desk.page.mouse.move(left + box["width"] - 120, middle, steps=3)
            desk.page.mouse.up()
        return bool(desk.value("tapeline.bars") > 900)

    desk.until(pull, 40, "a second page of older bars")

    def joined() -> list[list[float]] | None:
        """The bar in the making when the symbol was first traded has ended, and one that is only live after it."""
        rows = drawn(desk)
        live = [row for row in rows if time.time() * 1000 - row[0] < 150_000]
        return rows if len(live) >= 2 and time.time() * 1000 - rows[-2][0] > MINUTE_MS + SETTLED_MS else None

    rows = desk.until(joined, 180, "two live bars")
    wanted = market(run, int(rows[0][0]))
    starts = [int(row[0]) for row in rows]
    assert starts == sorted(set(starts))
    ended = [start for start in wanted if start + MINUTE_MS + SETTLED_MS < time.time() * 1000]
    assert [start for start in starts if start in set(ended)] == ended, "a hole, or a bar that there was not"
    wrong = [(row, wanted[int(row[0])]) for row in rows if int(row[0]) in set(ended) and row[1:] != wanted[int(row[0])]]
    assert wrong == []


def test_the_company_is_shown_with_what_is_known(desk: Desk) -> None:
    """Its name, numbers, reports and logo of our own origin; of what is no stock it says so."""
    opened(desk)
    placed(desk)
    text = desk.page.locator(".company").first.inner_text()
    assert "Amd " in text
    assert "AMDQ since" in text
    assert desk.page.locator(".company-filings li").count() == 8
    desk.until(lambda: desk.value("document.querySelector('.company-logo')?.naturalWidth") == 64, 10, "the logo")
    assert desk.value("new URL(document.querySelector('.company-logo').src).origin === location.origin")
    desk.page.evaluate("location.hash = 'BTC-PERP'")
    desk.until(lambda: "no stock" in "".join(desk.texts(".company-body")), 10, "a word on what is no stock")
    desk.page.evaluate("location.hash = 'NO-SUCH'")
    desk.until(lambda: desk.texts("#i-change") == ["nobody quotes this symbol"], 10, "a word on what nobody quotes")
    assert desk.page.locator("#ticket").get_attribute("data-tone") == "flat", "and not in the colour of the symbol before"


def test_a_company_that_did_not_come_is_asked_for_until_it_does(desk: Desk) -> None:
    """Without an answer the card says so and has a button, which keeps the keyboard; one that is shown stays while asking again."""
    opened(desk)
    placed(desk)
    desk.page.route("**/api/v1/company/NVDA", lambda route: route.abort("connectionrefused"))
    desk.page.evaluate("location.hash = 'NVDA'")
    again = desk.page.locator(".company").first.get_by_role("button", name="Try again")
    desk.until(again.is_visible, 15, "a button")
    again.focus()
    desk.page.keyboard.press("Enter")
    desk.until(
        lambda: desk.value("document.activeElement.textContent") == "Try again", 15, "the button once more, with the keyboard"
    )
    desk.page.unroute("**/api/v1/company/NVDA")
    desk.page.keyboard.press("Enter")
    desk.until(lambda: "Short interest" in "".join(desk.texts(".company")), 15, "the company")
    assert desk.value("document.activeElement.className") == "company-body"
    desk.complaints[:] = [one for one in desk.complaints if "status of 429" not in one]  # it was asked too often; it comes again


HOSTILE = {
    "symbol": "NVDA", "logo": True, "parts": {}, "as_of_ms": 1, "again_s": None, "events": [], "short_volume": None,
    "overview": {
        "name": "\u202eمؤسسة " + "W" * 180, "about": "x" * 4000, "industry": "<b>I</b>", "place": "א" * 90, "market_cap": 9.99e14,
        "homepage": "https://" + "h" * 60 + ".example/" + "p" * 400, "exchange": "E" * 200, "currency": "c" * 200,
    },
    "short_interest": {"settled_on": "2026-11-13", "shares": 999999999999999, "usual_volume": None, "days_to_cover": 123456.123456789},
    "splits": [{"on": "2026-01-01", "before": 0.333333333333, "after": 999999999}] * 10,
    "filings": [{"on": "2026-01-01", "form": "F" * 32, "url": "javascript:alert(1)"}] * 10,
}  # fmt: skip


@pytest.mark.parametrize("width", [1440, 390])
def test_words_of_others_stay_in_their_place(run: LocalRun, browser: Browser, width: int) -> None:
    """Names without a space, right to left, markup, endless numbers, no link that runs: nothing sticks out, nothing else turns round."""
    desk = Desk(browser, run, "dark", (width, 900), symbol=SYMBOL)
    desk.live()
    desk.page.route("**/api/v1/company/NVDA", lambda route: route.fulfill(json=HOSTILE))
    desk.page.route("**/api/v1/company/NVDA/logo", lambda route: route.abort("connectionrefused"))
    desk.tab("more")
    if not desk.page.locator(".company").count():
        placed(desk)
    desk.page.evaluate("location.hash = 'NVDA'")
    desk.tab("more")
    desk.until(lambda: "WWWW" in "".join(desk.texts(".company-name")), 15, "the company")
    assert desk.value("document.documentElement.scrollWidth <= innerWidth")
    assert desk.value("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('.company-body'))")
    inside = "[...document.querySelectorAll('.company-body *')].every(e => e.getBoundingClientRect().right <= box.right + 1)"
    assert desk.value(f"(box => {inside})(document.querySelector('.company').getBoundingClientRect())")
    assert desk.value("getComputedStyle(document.querySelector('.company-name b')).direction") == "rtl"
    assert desk.value("getComputedStyle(document.querySelector('.company-facts')).direction") == "ltr"
    assert desk.page.locator(".company a[href^=javascript], .company b b, .company img").count() == 0
    assert "123K days to cover" in "".join(desk.texts(".company-facts"))
    desk.close()
    assert desk.complaints == []


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing_grave(run: LocalRun, browser: Browser, scheme: str, width: int) -> None:
    """Wide and narrow, in the dark and in the light."""
    desk = Desk(browser, run, scheme, (width, 900), symbol=SYMBOL)
    desk.live()
    if width > 1000:
        placed(desk)
    desk.tab("more")
    if desk.page.locator(".company").count():
        desk.page.locator(".company").first.scroll_into_view_if_needed()
    desk.page.evaluate(AXE.read_text())
    grave: Any = desk.page.evaluate(GRAVE)
    desk.close()
    assert grave == []


def test_news_stand_with_their_age_beside_the_symbols(desk: Desk) -> None:
    """Of every row that had some; a click on the age shows the articles of that symbol."""
    desk.until(lambda: any(desk.texts(".grid-row:not([hidden]) .cell.opens")), 60, "a row with news")
    assert {text for text in desk.texts(".grid-row:not([hidden]) .cell.opens") if text} <= {
        "now", *(f"{n} min" for n in range(60)), *(f"{n} h" for n in range(49)),
    }  # fmt: skip
    symbol = desk.value(
        "(() => { const row = [...document.querySelectorAll('.grid-row:not([hidden])')].find(r => r.querySelector('.opens').textContent);"
        " row.querySelector('.opens').click(); return row.querySelector('.cell').textContent; })()"
    )
    listed = "[...document.querySelectorAll('.panel.news')].slice(1).some(panel => panel.querySelector('.news-row'))"
    desk.until(lambda: desk.value(listed), 20, "the symbol's news")
    assert symbol in desk.texts(".panel.news .note")
    assert desk.texts("#i-symbol") == [symbol]
    desk.page.locator(".panel.news").nth(1).get_by_role("button", name="News: menu").click()
    desk.page.get_by_role("menuitem", name="Remove").click()
    desk.until(lambda: desk.page.locator(".panel.news").count() == 1, 5, "it is gone")
    desk.page.focus("#grid")
    desk.page.keyboard.press("n")
    desk.until(lambda: desk.value(listed), 20, "the symbol's news, by a key")

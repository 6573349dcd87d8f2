"""The page as people see it: a real browser on a real `make run` with the simulator."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.live.page.browser import Desk
from tests.local_run import LocalRun
from tests.scale import everything

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("no_complaints")]

RUN = {"SYMBOLS": "300", "RATE": "1500"}
VOLUME = '[data-board="volume"] .sym'


@pytest.fixture(scope="module")
def desk(run: LocalRun, browser: Browser) -> Desk:
    """The page, open and live."""
    opened = Desk(browser, run)
    opened.live()
    return opened


def changes(desk: Desk, expression: str, seconds: float = 30) -> None:
    """Wait until a value differs from what it is now."""
    before = desk.value(expression)
    desk.until(lambda: desk.value(expression) != before, seconds, f"{expression} to change from {before!r}")


def test_prices_move(desk: Desk) -> None:
    """The grid's and the ticket's prices change on their own."""
    changes(desk, "document.querySelector('#i-last').textContent")
    changes(desk, "[...document.querySelectorAll('.grid-row .cell:nth-child(2)')].map(e => e.textContent).join()")


LIT = """(() => {
  const lit = [...document.querySelectorAll('.grid-row .lights[data-flash]')];
  const ground = (element) => getComputedStyle(element).backgroundColor;
  return lit.length ? lit.map((cell) => ground(cell) !== ground(cell.parentElement)) : null;
})()"""


def test_a_cell_that_moved_is_tinted_for_a_moment(desk: Desk) -> None:
    """Its ground differs from its row's; not for somebody who asks for less motion."""
    assert all(desk.until(lambda: desk.value(LIT)))
    desk.page.emulate_media(reduced_motion="reduce")
    assert not any(desk.until(lambda: desk.value(LIT)))
    desk.page.emulate_media(reduced_motion="no-preference")


def test_many_symbols_are_in_the_grid_but_few_elements(desk: Desk) -> None:
    """All known symbols can be scrolled to; only those in view exist."""
    desk.until(lambda: desk.value("tapeline.symbols") > 150, 60)
    desk.until(lambda: desk.value("document.querySelector('#grid').ariaRowCount == tapeline.symbols + 1"))
    assert desk.page.locator(".grid-row").count() < 60
    desk.page.eval_on_selector(".grid-scroll", "e => { e.scrollTop = e.scrollHeight }")
    desk.until(lambda: desk.value("[...document.querySelectorAll('.grid-row')].some(e => e.ariaRowIndex > 150 && e.textContent)"))
    desk.page.eval_on_selector(".grid-scroll", "e => { e.scrollTop = 0 }")


def test_a_column_sorts_both_ways(desk: Desk) -> None:
    """A click on the header sorts, a second one turns it round; assistive technology is told."""
    head = desk.page.get_by_role("button", name="Symbol", exact=True)
    first = '[aria-rowindex="2"] .cell:nth-child(1)'
    for order in ("ascending", "descending"):
        head.click()
        assert desk.page.locator(".grid-head .cell").first.get_attribute("aria-sort") == order
        symbols = desk.value("[...document.querySelectorAll('.grid-row:not([hidden])')].length")
        assert symbols
    desk.until(lambda: desk.texts(first))
    desk.page.get_by_role("button", name="Volume", exact=True).click()


def test_boards_reorder(desk: Desk) -> None:
    """Four boards have rows, and ranks change."""
    for board in ("volume", "gainers", "losers", "gappers"):
        desk.until(lambda board=board: len(desk.texts(f'[data-board="{board}"] li:not([hidden])')) > 3, 60, f"rows on {board}")
    changes(desk, f"[...document.querySelectorAll('{VOLUME}')].map(e => e.textContent).join()", 60)


def test_news_come_with_their_age(desk: Desk) -> None:
    """Headlines with symbols to choose; beside the symbols of a board stands how old their newest article is."""
    desk.until(lambda: len(desk.texts(".news .news-row")) > 3, 30, "news")
    ages = desk.texts(".news .news-age")
    assert set(ages) <= {"now", "1 h", *(f"{n} min" for n in range(1, 60))}
    assert desk.texts(".news .note")[0] == ""
    assert desk.page.locator(".news .chip").count() > 0
    column = '[data-board="gappers"] li:not([hidden]) .cell:last-child'
    desk.until(lambda: {"now", *(f"{n} min" for n in range(1, 60))} & set(desk.texts(column)), 30, "the age of a symbol's news")


def choose_a_traded_symbol(desk: Desk) -> None:
    """Choose one of the most active symbols whose chart grows: the first may be halted just now."""
    for symbol in desk.texts(VOLUME)[:6]:
        desk.page.evaluate("symbol => { location.hash = symbol }", symbol)
        desk.until(lambda: desk.value("tapeline.bars") > 0, 20, f"bars of {symbol}")
        with contextlib.suppress(AssertionError):
            bars = desk.value("tapeline.bars")
            desk.until(lambda bars=bars: desk.value("tapeline.bars") >= bars + 2, 8, "two more bars")
            return
    raise AssertionError("no chart of the six most active symbols grows")


def test_the_chart_grows(desk: Desk) -> None:
    """New one-second bars come, and one-minute bars are a key away."""
    choose_a_traded_symbol(desk)
    desk.page.keyboard.press("m")
    desk.until(lambda: "1-minute" in desk.texts("#chart-note")[0])
    desk.page.keyboard.press("1")
    desk.until(lambda: "1-second" in desk.texts("#chart-note")[0])


def test_bars_of_every_length(desk: Desk) -> None:
    """Each of them has at least the bar in the making, and says which it is."""
    for length, said in (("5s", "5-second"), ("5m", "5-minute"), ("1h", "1-hour"), ("1d", "1-day")):
        desk.page.click(f'[data-frame="{length}"]')
        desk.until(lambda said=said: said in desk.texts("#chart-note")[0] and desk.value("tapeline.bars") > 0, 20, f"{said} bars")
    desk.page.click('[data-frame="1s"]')


def test_other_boards_and_recent_activity_are_a_widget_away(desk: Desk) -> None:
    """Placed by the palette; a board's settings choose which; the activity of the chosen symbol counts its trades."""
    for widget in ("Activity", "Board"):
        desk.page.keyboard.press("Control+k")
        expect(desk.page.locator("dialog.palette")).to_be_visible()
        desk.page.keyboard.type(f"Add {widget.lower()}")
        expect(desk.page.locator("dialog.palette [aria-selected=true]")).to_contain_text(f"Add {widget.lower()}")
        desk.page.keyboard.press("Enter")
        expect(desk.page.locator("dialog.palette")).to_be_hidden()
    desk.until(
        lambda: len(desk.texts(".activity td")) == 18 and desk.texts(".activity td")[0] not in ("", "0", "—"), 20, "its trades"
    )
    desk.page.locator('[data-board="volume"] .more').last.click()
    desk.page.get_by_role("menuitem", name="Settings").click()
    desk.page.get_by_role("combobox", name="Board").select_option("trades_5m")
    desk.page.get_by_role("button", name="Apply").click()
    desk.until(lambda: len(desk.texts('[data-board="trades_5m"] li:not([hidden])')) > 3, 30, "rows of a board")
    for what in ('[data-board="trades_5m"]', ".activity"):
        desk.page.locator(f"{what} .more").click()
        desk.page.get_by_role("menuitem", name="Remove").click()


def test_key_figures_of_the_chosen_symbol(desk: Desk) -> None:
    """The day before, usual volume and float, as the market's reference has them; another symbol has others."""
    desk.page.keyboard.press("Control+k")
    expect(desk.page.locator("dialog.palette")).to_be_visible()
    desk.page.keyboard.type("Add key figures")
    desk.page.keyboard.press("Enter")
    expect(desk.page.locator("dialog.palette")).to_be_hidden()
    desk.until(lambda: len(desk.texts(".figures td")) == 12 and "—" not in desk.texts(".figures td"), 30, "every figure")
    before = desk.texts(".figures td")
    other = next(row for row in desk.texts(".grid-row:not([hidden]) :first-child") if row and row != desk.texts("#i-symbol")[0])
    desk.page.evaluate(f"location.hash = '{other}'")
    desk.until(lambda: desk.texts(".figures td")[5:] not in ([], before[5:]), 20, "another symbol's figures")
    desk.page.locator(".figures .more").click()
    desk.page.get_by_role("menuitem", name="Remove").click()


def test_alerts_come(desk: Desk) -> None:
    """All kinds appear in the list with what they say; a chip leaves one out, the last one brings all back; all of it is kept."""
    shown = "[...document.querySelectorAll('.alerts .roll-row .cell:nth-child(2)')].map(e => e.textContent)"
    desk.until(lambda: {"▲ High", "▼ Low"} <= set(desk.value(shown)), 60, "highs and lows")
    assert any("high of" in text for text in desk.texts(".alerts .roll-row .cell:nth-child(5)"))
    chips = desk.page.locator(".alerts .kinds button")
    chips.nth(0).click()
    assert "▲ High" not in desk.value(shown)
    desk.until(lambda: "▼ Low" in desk.value(shown), 5, "the lows again")
    pressed = "[...document.querySelectorAll('.alerts .kinds button')].map(e => e.ariaPressed)"
    for at in (1, 2, 3, 4):
        chips.nth(at).click()
    assert desk.value(pressed) == [*["false"] * 5, "true"]
    chips.nth(5).click()
    assert desk.value(pressed) == ["true"] * 6
    desk.until(lambda: "▲ High" in desk.value(shown), 5, "the highs again")


def test_a_click_on_a_board_chooses_the_symbol(desk: Desk) -> None:
    """Ticket, chart, prints and the address follow."""
    button = desk.page.locator('[data-board="losers"] .board-row').nth(1)
    symbol = button.locator(".sym").text_content()
    button.click(force=True)
    desk.until(lambda: desk.texts("#i-symbol") != [""])
    chosen = desk.texts("#i-symbol")[0]
    assert chosen == symbol or chosen in desk.texts('[data-board="losers"] .sym')  # ranks may change under the click
    assert desk.page.url.endswith(f"#{chosen}")
    assert desk.texts("#prints-note")[0].startswith(chosen)


def test_a_symbol_is_found_by_typing(desk: Desk) -> None:
    """`/` focuses the search, typing lists, Enter selects."""
    wanted = desk.texts(VOLUME)[2]
    desk.page.keyboard.press("/")
    desk.page.keyboard.type(wanted.lower())
    desk.until(lambda: desk.texts("#found li .sym")[:1] == [wanted])
    desk.page.keyboard.press("Enter")
    desk.until(lambda: desk.texts("#i-symbol") == [wanted])
    desk.until(lambda: desk.value("tapeline.prints") > 0, 60, f"a print of {wanted}")


def test_the_page_survives_a_restart_of_the_stream(run: LocalRun, desk: Desk) -> None:
    """While WDS is away the numbers are called stale; then the page reconnects by itself and prices move again."""
    before = desk.value("tapeline.reconnects")
    os.kill(run.pids()["wds"], signal.SIGKILL)
    desk.until(lambda: desk.value("tapeline.verdict.verdict") == "stale", 20, "stale")
    desk.until(lambda: desk.value("document.documentElement.dataset.feed") == "stale", 20, "the page to grey out")
    desk.until(lambda: desk.value("tapeline.reconnects") > before, 60, "a reconnect")
    desk.live(60)
    choose_a_traded_symbol(desk)
    changes(desk, "document.querySelector('#i-last').textContent", 60)


@pytest.mark.parametrize("scheme", ["dark", "light"] if everything() else ["dark"])
def test_nothing_overflows(browser: Browser, desk: Desk, scheme: str, tmp_path: Path) -> None:
    """In both themes and on small screens nothing is wider than the page; a picture of each is kept."""
    for view in ((1440, 900), (1100, 800), (390, 844)):
        other = Desk(browser, desk.page.url, scheme, view, cookies=desk.page.context.cookies())
        other.live()
        other.page.screenshot(path=str(tmp_path / f"{scheme}-{view[0]}.png"))
        assert other.value("document.documentElement.scrollWidth <= innerWidth")
        other.tab("chart")
        for box in (".top", ".ticket", ".facts", ".pill"):
            assert other.value(f"(e => e.scrollWidth <= e.clientWidth + 1)(document.querySelector('{box}'))"), f"{box} at {view}"
        assert other.complaints == []
        other.close()


def test_a_hidden_page_asks_for_nothing(desk: Desk) -> None:
    """A tab in the background pauses the stream, and catches up when it is shown again."""
    desk.page.evaluate("""() => {
        Object.defineProperty(document, 'hidden', { value: true, configurable: true });
        Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true });
        document.dispatchEvent(new Event('visibilitychange')); }""")

    def quiet() -> bool:
        before = desk.value("tapeline.updates")
        desk.page.wait_for_timeout(1200)
        return bool(desk.value("tapeline.updates") == before)

    desk.until(quiet, 20, "no updates while hidden")
    desk.page.evaluate("""() => {
        delete document.hidden; delete document.visibilityState;
        document.dispatchEvent(new Event('visibilitychange')); }""")
    changes(desk, "tapeline.updates")
    desk.live()

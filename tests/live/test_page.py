"""The page as people see it: a real browser on a real `make run` with the simulator, and under a measured load."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser

from service.partition import partition_of
from tests.live.browser import Desk, chromium
from tests.local_run import ROOT, LocalRun
from tests.scp.conftest import ScpProcess
from tests.scp.stand_in import BREAKS, PARTITIONS
from tests.servers import free_port

pytestmark = pytest.mark.live

FPS_MIN = 55
FPS_BUSY_MIN, CPU_MS_S_MAX = 30, 600  # measured: 350 to 450 ms/s
LOAD_SYMBOLS, LOAD_UPDATES_S = 1250, 5000
VOLUME = '[data-board="volume"] .sym'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRun]:
    """Everything on free ports, embedded, with the simulator."""
    with LocalRun(tmp_path_factory.mktemp("page") / "run", SYMBOLS="300", RATE="1500") as started:
        started.says("http://127.0.0.1:")
        yield started
        started.interrupt()
        started.ends()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the whole file."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def desk(run: LocalRun, browser: Browser) -> Desk:
    """The page, open and live."""
    opened = Desk(browser, f"http://127.0.0.1:{run.port('SCP_PORT')}/")
    opened.live()
    return opened


@pytest.fixture(autouse=True)
def no_complaints(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves an error or a breach of the security policy on the console."""
    yield
    if "desk" in request.fixturenames:
        assert request.getfixturevalue("desk").complaints == []


def changes(desk: Desk, expression: str, seconds: float = 30) -> None:
    """Wait until a value differs from what it is now."""
    before = desk.value(expression)
    desk.until(lambda: desk.value(expression) != before, seconds, f"{expression} to change from {before!r}")


class Loaded(NamedTuple):
    """A control plane's page, and the process that stands in for its stream."""

    url: str
    stream: subprocess.Popen[bytes]


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[Loaded]:
    """A real control plane whose stream is a stand-in that sends 5,000 updates a second."""
    port = free_port()
    argv = [sys.executable, "-m", "tests.scp.stand_in", str(port), str(LOAD_SYMBOLS), str(LOAD_UPDATES_S)]
    stream = subprocess.Popen(argv, cwd=ROOT)
    scp = ScpProcess(tmp_path / "run", WDS_PORT=str(port))
    yield Loaded(f"http://127.0.0.1:{scp.port}/?fps", stream)
    scp.end()
    stream.terminate()
    stream.wait(10)


# First in the file: once the `run` of the other tests is up, it takes the processors that the browser is measured on.
def test_five_thousand_updates_a_second_stay_smooth(browser: Browser, loaded: Loaded) -> None:
    """At 5,000 updates a second on 1,250 symbols, with a ladder, at least 55 frames a second are painted, measured over 5 s.

    Where others have the cores, frames measure them: then it is the processor time of the page's main thread that counts.
    """
    desk = Desk(browser, f"{loaded.url}#BTC-PERP")
    desk.live()
    desk.until(lambda: desk.page.locator("#depth").is_visible(), 20, "the ladder")
    desk.until(lambda: desk.value("tapeline.symbols") == LOAD_SYMBOLS)
    best = {"fps": 0.0, "updates_s": 0.0, "cpu_ms_s": 1e9}
    cdp = desk.page.context.new_cdp_session(desk.page)
    cdp.send("Performance.enable", {"timeDomain": "threadTicks"})

    def cpu_ms() -> float:
        return next(
            float(one["value"]) * 1000 for one in cdp.send("Performance.getMetrics")["metrics"] if one["name"] == "TaskDuration"
        )

    def smooth() -> bool:
        before, cpu_before = desk.value("[tapeline.updates, performance.now()]"), cpu_ms()
        desk.page.wait_for_timeout(5200)
        after, cpu_after = desk.value("[tapeline.updates, performance.now(), tapeline.fps]"), cpu_ms()
        seconds = (after[1] - before[1]) / 1000
        updates_s = (after[0] - before[0]) / seconds
        if updates_s > LOAD_UPDATES_S * 0.97:
            best.update(fps=max(best["fps"], after[2]), updates_s=updates_s)
            best["cpu_ms_s"] = min(best["cpu_ms_s"], (cpu_after - cpu_before) / seconds)
        busy = os.getloadavg()[0] > (os.cpu_count() or 1)
        return best["fps"] >= FPS_MIN or (busy and best["fps"] >= FPS_BUSY_MIN and best["cpu_ms_s"] <= CPU_MS_S_MAX)

    try:
        desk.until(smooth, 45, f"{FPS_MIN} frames a second")
    finally:
        print("{fps:.1f} frames/s at {updates_s:.0f} updates/s, {cpu_ms_s:.0f} ms/s of the main thread".format(**best))
        desk.close()
    assert desk.complaints == []


def greyed(desk: Desk) -> dict[str, bool]:
    """Return the symbols of the rows that exist, and whether each has lost its colour."""
    colour = "getComputedStyle(e).getPropertyValue('--up') === getComputedStyle(e).getPropertyValue('--dim')"
    rows = "[...document.querySelectorAll('.grid-row:not([hidden])')]"
    return dict(desk.value(f"{rows}.map(e => [e.firstChild.textContent, {colour}])"))


def only_the_broken(rows: dict[str, bool]) -> bool:
    return any(rows.values()) and all(grey == (partition_of(name, PARTITIONS) == BREAKS) for name, grey in rows.items())


def test_a_partition_that_stands_still_greys_out_its_own_rows(browser: Browser, loaded: Loaded) -> None:
    """The head says partly live, the partition's rows and its chosen symbol say stale and no others; then all is live again."""
    desk = Desk(browser, f"{loaded.url}#BTC-PERP")
    desk.live()
    parts = ("#ticket", "#chart-box", "#depth", "#prints-panel", ".board")
    desk.until(lambda: len(greyed(desk)) > 20 and not any(greyed(desk).values()), 20, "rows in colour")
    loaded.stream.send_signal(signal.SIGUSR1)
    desk.until(lambda: desk.texts("#feed") == ["Partly live1 of 8 partitions not read"], 20, "the head's word")
    for place in (0, 300, 0):
        desk.page.eval_on_selector(".grid-scroll", f"e => {{ e.scrollTop = {place} * 24 }}")
        desk.until(lambda: only_the_broken(greyed(desk)), 20, f"the right grey rows at {place}")
    for part in parts:
        desk.until(lambda part=part: desk.page.locator(part).first.get_attribute("data-state") == "stale", 10, part)
    desk.page.evaluate("location.hash = 'ETH-PERP'")
    for part in parts[:-1]:
        desk.until(lambda part=part: desk.page.locator(part).get_attribute("data-state") in (None, "live"), 10, part)
    loaded.stream.send_signal(signal.SIGUSR1)
    desk.live()
    desk.until(lambda: not any(greyed(desk).values()), 20, "all rows in colour again")
    desk.close()
    assert desk.complaints == []


def test_prices_move(desk: Desk) -> None:
    """The grid's and the ticket's prices change on their own."""
    changes(desk, "document.querySelector('#i-last').textContent")
    changes(desk, "[...document.querySelectorAll('.grid-row .cell:nth-child(2)')].map(e => e.textContent).join()")


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


def test_alerts_come(desk: Desk) -> None:
    """New highs and lows appear in the list."""
    desk.until(lambda: desk.texts(".alerts .roll-row"), 60, "an alert")
    assert desk.texts(".alerts .roll-row .cell:nth-child(2)")[0] in ("▲ High", "▼ Low")


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


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_nothing_overflows(browser: Browser, desk: Desk, scheme: str, tmp_path: Path) -> None:
    """In both themes and on small screens nothing is wider than the page; a picture of each is kept."""
    for view in ((1440, 900), (1100, 800), (390, 844)):
        other = Desk(browser, desk.page.url, scheme, view)
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

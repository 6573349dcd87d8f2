"""The page for its worst user: on a bad network, a slow machine, with a wrong clock, without storage, at 400 %."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.cable import Cable
from tests.live.page.browser import Desk
from tests.local_run import LocalRun
from tests.servers import free_port

pytestmark = pytest.mark.live

HOUR_MS = 3_600_000
GARBAGE = (
    "%",
    "%E0%A4%A",
    "<img src=x onerror=alert(1)>",
    "A" * 10_000,
    "../../etc/passwd",
    "__proto__",
    "constructor",
    "a b",
    "#",
)

# Types a symbol and Enter, one after the other, fifty times a second: quicker than any hand, and than a browser can be told to.
TYPE = """async n => {
  const symbols = [...document.querySelectorAll('.grid-row .cell:first-child')].map(e => e.textContent).filter(Boolean);
  const find = document.querySelector('#find');
  for (let at = 0; at < n; at++) {
    find.focus();
    find.value = symbols[at % symbols.length];
    find.dispatchEvent(new Event('input', { bubbles: true }));
    find.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }));
    await new Promise(then => setTimeout(then, 20));
  }
  return symbols[(n - 1) % symbols.length]; }"""


class SlowCable(Cable):
    """A cable that can be as slow as a telephone's third-generation network that loses a packet in twenty."""

    slow = False
    BYTES_S, LOST_SHARE, LOST_S, CHUNK_BYTES = 60_000, 0.05, 0.4, 5840

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int = 0) -> None:
        dice = random.Random(9)
        with contextlib.suppress(OSError):
            while data := await reader.read(self.CHUNK_BYTES):
                if self.slow:  # a lost packet holds back everything behind it until it was sent again
                    await asyncio.sleep(len(data) / self.BYTES_S + (self.LOST_S if dice.random() < self.LOST_SHARE else 0.0))
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@pytest.fixture(scope="module")
def cable() -> Iterator[SlowCable]:
    """The network between the browser and the stream."""
    with SlowCable(f"ws://127.0.0.1:{free_port()}/v1/stream") as laid:
        yield laid


@pytest.fixture(scope="module")
def run(cable: SlowCable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRun]:
    """Everything on free ports, with the stream behind the cable."""
    given = {"FEED": "simulator+news", "SYMBOLS": "300", "RATE": "1200"}
    given |= {"WDS_PORT": str(cable._target[1]), "WDS_PUBLIC_URL": cable.url}
    with LocalRun(tmp_path_factory.mktemp("worst") / "run", **given) as started:
        started.says("http://127.0.0.1:")
        yield started
        started.interrupt()
        started.ends()


def moves(desk: Desk, seconds: float) -> None:
    """Wait until a row in view has changed."""
    cells = "[...document.querySelectorAll('.grid-row .cell:nth-child(13)')].map(e => e.textContent).join()"
    before = desk.value(cells)
    desk.until(lambda: desk.value(cells) != before, seconds, "rows to change")


@pytest.mark.faults
def test_a_bad_network_is_only_slow(desk: Desk, cable: SlowCable) -> None:
    """At 60 kB/s with stalls the page stays connected and live, and its rows move."""
    cable.slow = True
    try:
        desk.page.wait_for_timeout(6000)
        moves(desk, 15)
        desk.until(lambda: desk.value("tapeline.verdict.verdict") == "live", 15, "live data")
        print(desk.texts("#m-age"), desk.texts("#m-updates"), desk.value("tapeline.reconnects"))
        assert desk.value("tapeline.reconnects") == 0
    finally:
        cable.slow = False
    moves(desk, 15)


@pytest.mark.faults
def test_a_slow_machine_is_only_slow(desk: Desk) -> None:
    """With a sixth of the processor the data stay live and young: what cannot be painted is not queued."""
    cdp = desk.page.context.new_cdp_session(desk.page)
    cdp.send("Emulation.setCPUThrottlingRate", {"rate": 6})
    desk.page.wait_for_timeout(4000)
    moves(desk, 15)
    desk.until(lambda: desk.texts("#m-age")[0].endswith("ms") or float(desk.texts("#m-age")[0].split()[0]) < 5, 15, "young data")
    desk.page.focus("#grid")
    chosen = desk.texts("#i-symbol")
    desk.page.keyboard.press("ArrowDown")
    desk.until(lambda: desk.texts("#i-symbol") != chosen, 5, "another symbol")
    cdp.send("Emulation.setCPUThrottlingRate", {"rate": 1})
    desk.live()


@pytest.mark.parametrize("ahead_ms", [HOUR_MS, -HOUR_MS])
def test_a_clock_that_is_an_hour_wrong_makes_no_data_old(run: LocalRun, browser: Browser, ahead_ms: int) -> None:
    """The ages of data and news are told by the pipeline's clock, whatever the browser's says."""
    desk = Desk(browser, run, script=f"const now = Date.now; Date.now = () => now() + {ahead_ms};")
    desk.live()
    ages = "document.querySelector('#m-age').textContent"
    desk.until(lambda: desk.value(ages) not in ("—", "0 ms"), 15, "an age")
    assert "min" not in desk.value(ages)
    news = ".grid-row:not([hidden]) .cell.opens"  # all of the last hour: by another clock all are "now", or of hours ago
    desk.until(lambda: any(text.endswith("min") for text in desk.texts(news)), 60, "news of some minutes ago")
    desk.close()
    assert desk.complaints == []


@pytest.mark.parametrize("fault", ["forbidden", "full"])
def test_without_storage_everything_works(run: LocalRun, browser: Browser, fault: str) -> None:
    """Forbidden or full: theme and shortcuts can be switched, they are only not remembered."""
    forbid = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } });"
    full = "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); };"
    desk = Desk(browser, run, script=full if fault == "full" else forbid)
    desk.live()
    desk.page.click("#theme")
    assert desk.value("document.documentElement.dataset.theme") == "light"
    desk.page.click("#shortcuts")
    assert desk.page.get_attribute("#shortcuts", "aria-pressed") == "false"
    desk.close()
    assert desk.complaints == []


def test_rubbish_in_the_address_is_no_symbol(run: LocalRun, browser: Browser) -> None:
    """Whatever stands after the #, the page goes live, follows a symbol of the market, and complains of nothing."""
    desk = Desk(browser, run, symbol=GARBAGE[1])
    desk.live()
    for rubbish in GARBAGE:
        desk.page.evaluate("text => { location.hash = text }", rubbish)
        desk.page.wait_for_timeout(120)
    desk.page.evaluate("location.hash = ''")
    desk.page.locator(".board-row .sym").first.click()
    desk.until(lambda: desk.value("tapeline.bars > 0"), 30, "a chart")
    assert desk.value("document.querySelector('img')") is None
    desk.close()
    assert desk.complaints == []


def test_two_hundred_symbols_typed_quickly_end_at_the_last(desk: Desk) -> None:
    """One after the other through the finder: one connection, nothing refused, and the last one's chart."""
    desk.until(lambda: desk.page.locator(".grid-row:not([hidden])").count() > 20, 20, "rows")
    last = desk.page.evaluate(TYPE, 200)
    desk.until(lambda: desk.texts("#i-symbol") == [last], 5, f"{last}, not {desk.texts('#i-symbol')}")
    desk.until(lambda: last in (desk.page.get_attribute("#chart", "aria-label") or ""), 10, "the last one's chart")
    desk.until(lambda: desk.value("tapeline.bars > 0"), 30, "its bars")
    desk.until(lambda: desk.page.url.endswith(f"#{last}"), 5, "its address")
    assert desk.value("tapeline.reconnects") == 0


# A pipeline of which a part is missing says so at length in the page's head.
PARTLY = "document.querySelector('#feed span').textContent = 'exchange not heard in 8 of 8 partitions; '.repeat(5)"


@pytest.mark.parametrize("view", [(320, 256), (844, 390), (390, 600)])
def test_a_low_window_is_scrolled(run: LocalRun, browser: Browser, view: tuple[int, int]) -> None:
    """A desk at 400 %, a phone on its side: tabs, nothing wider than the window, a chart of at least 120 px."""
    desk = Desk(browser, run, view=view)
    desk.live()
    assert desk.page.locator(".tabs").is_visible()
    for tab in ("quotes", "boards", "alerts", "chart"):
        desk.tab(tab)
        assert desk.value(f"({PARTLY}, document.documentElement.scrollWidth <= innerWidth)"), tab
        assert desk.page.locator(".tabs").bounding_box()["y"] < view[1]  # type: ignore[index]
    assert desk.value("document.querySelector('#chart').clientHeight") >= 120
    desk.close()
    assert desk.complaints == []

"""Company data and older candles of the vendor's stand-in, and of services that are slow, refuse, or say something else."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from scp.problems import Problem
from scp.reference import desk as desk_module
from scp.reference.vendor import PAGES_MAX, WAIT_S
from service.days.markets import STOCKS
from tests.scp.conftest import ScpProcess
from tests.scp.reference.conftest import KEY, Stand, desk_at, http, server
from tests.waiting import until_sync

MINUTE_MS, DAY_MS = 60_000, 86_400_000
OVERVIEW = json.dumps({"results": {"ticker": "NVDA", "name": "Nvidia", "market_cap": "much", "total_employees": 7}}).encode()


def refused(desk: Any, symbol: str = "NVDA", person: int = 1) -> Problem:
    with pytest.raises(Problem) as found:
        desk.company(symbol, person)
    return found.value


def test_a_company_is_what_the_vendor_says(stand: Stand, tmp_path: Path) -> None:
    """Every part; the second time nobody is asked; a stock that there is not is a 404, also the second time."""
    desk = desk_at(stand.url, tmp_path)
    found = desk.company("AMD", 1)
    assert found.overview is not None
    assert found.overview.name == "Amd Group Inc." or found.overview.name.startswith("Amd ")  # type: ignore[union-attr]
    assert found.overview.market_cap == pytest.approx((found.overview.shares or 0) * stand.market.day(3)["c"])
    assert found.short_interest is not None
    assert found.short_volume is not None
    assert 0 < (found.short_volume.pct or 0) < 100
    assert [one.ticker for one in found.events] == ["AMD", "AMDQ"]
    assert len(found.filings) == 8
    assert set(found.parts.values()) <= {"known", "none"}
    assert (found.logo, found.again_s) == (True, None)
    assert desk.logo("AMD", 1).kind == "image/png"
    began_s = time.monotonic()
    for _ in range(200):
        desk.company("AMD", 1)
    assert time.monotonic() - began_s < 2
    for _ in range(2):
        assert refused(desk, "NOSUCH").code == "not_known"
    assert refused(desk, "BTC-PERP").code == "not_a_stock"


@pytest.mark.parametrize(("name", "width_ms"), [("1m", MINUTE_MS), ("5m", 5 * MINUTE_MS), ("1h", 60 * MINUTE_MS)])
def test_candles_are_the_bars_of_the_market(stand: Stand, tmp_path: Path, name: str, width_ms: int) -> None:
    """Walked backwards page by page: each bar once, none missing, the same numbers as the market's own."""
    desk, now_ms = desk_at(stand.url, tmp_path), time.time_ns() // 1_000_000
    before, rows = now_ms, list[Any]()
    while len(rows) < 900:
        page = desk.candles("NVDA", name, before, 250, 1)
        rows = page.bars + rows
        assert page.next is not None
        assert page.next <= before
        before = page.next
    assert stand.market.past is not None
    wanted = stand.market.past.bars(0, width_ms, rows[0][0], now_ms // width_ms * width_ms, now_ms)
    wanted = [bar for bar in wanted if bar.start + width_ms <= now_ms]
    while wanted and wanted[-1].start > rows[-1][0]:  # has ended since
        wanted.pop()
    assert [row[0] for row in rows] == [bar.start for bar in wanted]
    assert [row[1:6] for row in rows] == [
        [bar.open / 100, bar.high / 100, bar.low / 100, bar.close / 100, bar.volume] for bar in wanted
    ]


def test_a_window_that_the_vendor_says_in_pages_is_read_to_its_end(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page once, joined without a seam; one with more pages than we read is none."""
    before = time.time_ns() // 1_000_000 // (4 * DAY_MS) * 4 * DAY_MS - 1  # a window that has ended
    whole = desk_at(stand.url, tmp_path).candles("NVDA", "1m", before, 1_000, 1)
    rows = len(whole.bars)
    assert rows > 900
    monkeypatch.setattr(desk_module, "BASE_BARS_MAX", 1_000)  # four days have at most 3 * 960
    again = desk_at(stand.url, tmp_path).candles("NVDA", "1m", before, 1_000, 1)
    assert (again.bars, again.next) == (whole.bars, whole.next)
    monkeypatch.setattr(desk_module, "BASE_BARS_MAX", 20)
    with pytest.raises(Problem) as found:
        desk_at(stand.url, tmp_path).candles("NVDA", "1m", before, 1_000, 1)
    assert "pages" in found.value.detail


@pytest.mark.parametrize("elsewhere", [True, False], ids=["another server", "the same page for ever"])
def test_a_next_page_that_leads_nowhere_is_not_followed(tmp_path: Path, elsewhere: bool) -> None:
    """The key goes to no other server, and what never ends is given up after some pages: no half answer is shown."""
    with server(lambda _: http(b"{}")) as (stranger, heard):
        leads_to = [stranger]

        def answer(path: str) -> bytes:
            page = {"results": [BAR], "next_url": f"{leads_to[-1]}/v2/aggs?cursor=x"}
            return http(b'{"results":[]}' if "splits" in path else json.dumps(page).encode())

        with server(answer) as (own, asked):
            leads_to += [] if elsewhere else [own]
            with pytest.raises(Problem) as found:
                desk_at(own, tmp_path).candles("NVDA", "1m", 1_790_000_100_000, 10, 1)
            assert found.value.code == "vendor_away"
            assert sum("/v2/aggs" in head for head in asked) == (1 if elsewhere else PAGES_MAX)
        assert heard == []


def test_days_begin_as_the_pipelines_do(stand: Stand, tmp_path: Path) -> None:
    """With the pre-market, not at midnight; today's is still being made and is not among them; there is an end."""
    desk, now_ms = desk_at(stand.url, tmp_path), time.time_ns() // 1_000_000
    page = desk.candles("AMZN", "1d", now_ms, 1_000, 1)
    starts = [row[0] for row in page.bars]
    assert all(STOCKS.day_of(int(start)).start_ms == start for start in starts[-200:] if start is not None)
    assert int(starts[-1] or 0) + DAY_MS <= now_ms
    assert len(starts) == len(set(starts)) > 450
    assert page.next is None
    closes = [row[4] for row in page.bars]
    assert max(float(x or 0) for x in closes) < 1.5 * min(float(x or 1) for x in closes), "worked over for the splits"


def test_who_is_slow_holds_nobody_for_long_and_is_heard_in_the_end(tmp_path: Path) -> None:
    """Ten seconds: the first are told to come again, further ones are turned away at once, the answer is kept when it comes."""
    with server(lambda path: 10.0) as (url, heads):
        desk, took, codes = desk_at(url, tmp_path), list[float](), list[str]()

        def ask() -> None:
            began_s = time.monotonic()
            codes.append(refused(desk).code)
            took.append(time.monotonic() - began_s)

        asking = [threading.Thread(target=ask) for _ in range(8)]
        for one in asking:
            one.start()
        for one in asking:
            one.join()
        assert sorted(set(codes)) in (["busy", "vendor_slow"], ["busy", "vendor_slow", "vendor_away"])
        assert codes.count("busy") == 6
        assert max(took) < WAIT_S + 2.5
        assert len(heads) <= 4, "each question once, four at a time"

    late = {"at": time.monotonic() + WAIT_S + 0.7}

    def answer(path: str) -> bytes:
        time.sleep(max(0.0, late["at"] - time.monotonic()))
        return http(OVERVIEW) if path.startswith("/v3/reference/tickers") else http(b'{"results":[]}')

    with server(answer) as (url, heads):
        desk = desk_at(url, tmp_path)
        late["at"] = time.monotonic() + WAIT_S + 0.7
        assert refused(desk).code == "vendor_slow"
        found = until_sync(lambda: quietly(desk), 10, "the answer that came late")
        assert found.overview.name == "Nvidia"
        assert len(heads) == 6, "asked once"


def quietly(desk: Any) -> Any:
    try:
        found = desk.company("NVDA", 1)
    except Problem:
        return None
    return found if found.again_s is None else None


def test_what_is_not_right_is_null(tmp_path: Path) -> None:
    """Fields of another kind, rows of others, a plan without some of it, an answer that is none."""
    rows = [
        {"ticker": "AMD", "settlement_date": "2027-01-01", "short_interest": 5}, {"ticker": "NVDA", "settlement_date": "soon"},
        {"ticker": "NVDA", "settlement_date": "2026-10-15", "short_interest": 7, "days_to_cover": 1.5}, 5, None,
    ]  # fmt: skip

    def answer(path: str) -> bytes:
        if path.startswith("/v3/reference/tickers"):
            return http(OVERVIEW)
        if "short-interest" in path:
            return http(json.dumps({"results": rows}).encode())
        if "filings" in path:
            return http(b"{}", 403)
        return http(b'{"results":"none"}') if "splits" in path else http(b"<html>")

    with server(answer) as (url, heads):
        found = desk_at(url, tmp_path).company("NVDA", 1)
        assert found.overview is not None
        assert (found.overview.name, found.overview.market_cap, found.overview.employees) == ("Nvidia", None, 7)
        assert found.short_interest is not None
        assert (str(found.short_interest.settled_on), found.short_interest.shares) == ("2026-10-15", 7)
        assert found.parts == {
            "overview": "known", "short_interest": "known", "short_volume": "failed", "splits": "failed", "events": "failed",
            "filings": "refused",
        }  # fmt: skip
        assert found.again_s
        assert all(f"Bearer {KEY}" in head for head in heads)
    with server(lambda _: http(OVERVIEW.replace(b"NVDA", b"AMD"))) as (url, _):
        assert desk_at(url, tmp_path).company("NVDA", 1).overview is None, "another company's answer is none"


BAR = {"t": 1_790_000_040_000, "o": 1, "h": 2, "l": 1, "c": 2, "v": 5}


@pytest.mark.parametrize(
    "answer",
    [
        {"resultsCount": 2, "results": [BAR]}, {"resultsCount": 1, "results": [BAR | {"l": 3}]}, {"results": [BAR, BAR]},
        {"results": [BAR | {"t": 5}]}, {"results": [BAR | {"c": -1}]}, {"status": "OK"}, {"results": [BAR], "ticker": "AMD"},
        {"results": [BAR], "adjusted": False}, [],
    ],
)  # fmt: skip
def test_half_or_odd_bars_are_no_bars(tmp_path: Path, answer: Any) -> None:
    """A hole in the past would be believed: a word that they are not known is better."""
    given = json.dumps(answer).encode()
    with server(lambda path: http(b'{"results":[]}') if "splits" in path else http(given)) as (url, _):
        with pytest.raises(Problem) as found:
            desk_at(url, tmp_path).candles("NVDA", "1m", 1_790_000_100_000, 10, 1)
        assert found.value.code == "vendor_away"


def test_what_was_said_is_shown_as_old_while_the_vendor_is_away(tmp_path: Path) -> None:
    """And is asked for again no more often than the breaker lets it."""
    away, said = {"now": False}, {"results": [BAR], "resultsCount": 1}

    def answer(path: str) -> bytes:
        if away["now"]:
            return http(b"", 500)
        return http(b'{"results":[]}') if "splits" in path else http(json.dumps(said).encode())

    with server(answer) as (url, heads):
        desk, clock = desk_at(url, tmp_path), {"s": 1_790_000_100.0}
        desk._vendor._now_s = lambda: clock["s"]
        first = desk.candles("NVDA", "1m", 1_790_000_100_000, 10, 1)
        assert (len(first.bars), first.stale) == (1, False)
        asked = len(heads)
        away["now"], clock["s"] = True, clock["s"] + 7_200
        for _ in range(20):
            old = desk.candles("NVDA", "1m", 1_790_000_100_000, 1, 1)
            assert (old.bars, old.stale, old.as_of_ms) == (first.bars, True, 1_790_000_100_000)
            clock["s"] += 11
        assert 0 < len(heads) - asked <= 4


def test_one_who_asks_for_everything_leaves_room_for_others(stand: Stand, tmp_path: Path) -> None:
    """Their own share is used up first; somebody else is still answered."""
    desk, codes = desk_at(stand.url, tmp_path, rest_rate=60), list[str]()
    waits: list[int] = []
    for symbol in stand.market.listed.symbols[:12]:
        try:
            desk.candles(symbol, "1d", time.time_ns() // 1_000_000, 5, 1)
        except Problem as problem:
            codes.append(problem.code)
            waits.append(int(dict(problem.more)["Retry-After"]))
    assert set(codes) == {"too_many_questions"}
    assert min(waits) > 0
    assert desk.candles("AMD", "1d", time.time_ns() // 1_000_000, 5, 2).bars


SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"


@pytest.mark.parametrize(
    ("url", "picture", "fetched"),
    [
        ("{}/logo.svg", SVG, True), ("{}/logo.png", SVG, True), ("http://127.0.0.1:9/logo.png", b"", False),
        ("{}/logo.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0\1\0\0" * 2 + b"\0" * 20, True), ("javascript:1", b"", False),
    ],
)  # fmt: skip
def test_a_logo_that_may_do_harm_is_not_shown(tmp_path: Path, url: str, picture: bytes, fetched: bool) -> None:
    """Scripts in an SVG, whatever it is called; a picture of 65,536 pixels a side; another server, which our key does not go to."""
    own = {"at": ""}

    def answer(path: str) -> bytes:
        if path.startswith("/logo"):
            return http(picture)
        return http(json.dumps({"results": {"ticker": "NVDA", "branding": {"icon_url": url.format(own["at"])}}}).encode())

    with server(answer) as (own["at"], heads):
        with pytest.raises(Problem) as found:
            desk_at(own["at"], tmp_path).logo("NVDA", 1)
        assert found.value.code == "no_logo"
        assert any("GET /logo" in head for head in heads) is fetched


def test_it_is_for_who_may_see_the_page(stand: Stand, start_scp: Any) -> None:
    """With a session or a token for `view`; the key is in no answer; without a vendor the word is that there is none."""
    scp: ScpProcess = start_scp(WDS_PORT="1", SCP_REST_URL=stand.url, SCP_REST_KEY=KEY)
    viewer = scp.person("viewer")
    found = viewer.get("/api/v1/company/NVDA")
    assert (found.status, found.body["symbol"]) == (200, "NVDA")
    assert KEY not in json.dumps(found.body)
    assert stand.url not in json.dumps(found.body)
    logo = scp.ask("/api/v1/company/NOSUCH/logo", Cookie=f"tapeline-{scp.port}={viewer.secret}")
    assert logo.status == 404
    made = viewer.change("POST", "/api/v1/me/tokens", {"name": "x", "scopes": ["view"]})
    token = str(made.body["secret"] if "secret" in made.body else made.body["token"])
    bars = scp.api("GET", "/api/v1/candles/NVDA?span=1h&limit=5", token=token)
    assert (bars.status, len(bars.body["bars"])) == (200, 5)
    assert scp.api("GET", "/api/v1/candles/NVDA?span=2h", token=token).status == 400
    assert scp.api("GET", "/api/v1/company/NVDA").status == 401
    assert viewer.get("/api/v1/company/NOSUCH").body["code"] == "not_known"


def test_without_a_vendor_that_is_said(scp: ScpProcess) -> None:
    """A 404 that says what operators set."""
    found = scp.person("viewer").get("/api/v1/candles/NVDA")
    assert (found.status, found.body["code"]) == (404, "no_vendor")

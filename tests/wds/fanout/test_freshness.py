"""What may be called live: cache, processors, partitions and sources."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mdc.away import NOTHING, SHARED, Away
from mdc.channels import KINDS, kind_of
from service.partition import partition_of
from wds.fanout.freshness import LIVE, PART_RETURNED, RETURNED, Freshness, Verdict

S = 1_000_000_000
QUOTE, BOARD, STATUS = KINDS["quote"], KINDS["board"], KINDS["status"]
P = partition_of("AAPL", 8)


def status(stale: list[int] | None = None, **sources: Any) -> bytes:
    """Return a status document's data; a source is its state, or (state, stale partitions)."""
    views = {
        name: {"state": view, "stale_partitions": []}
        if isinstance(view, str)
        else dict(zip(("state", "stale_partitions"), view, strict=True))
        for name, view in sources.items()
    }
    return json.dumps({"sources": views, "processors": {"stale_partitions": stale or [], "partitions_expected": 8}}).encode()


ALIVE = status(s="live")


def test_it_is_stale_until_the_first_sign() -> None:
    """Nothing is promised before the pipeline was heard."""
    assert Freshness(5, 0).on_time(0).state == "stale"
    assert Freshness(5, 0).of(QUOTE, "AAPL", "s").state == "stale"
    assert Freshness(5, 0).on_pipeline(ALIVE, 0) == LIVE


def test_news_alone_are_no_market() -> None:
    """Boards are not live because articles come; the list of all news hangs on no partition, those of a symbol on their source."""
    news, listener = KINDS["news"], {"feed": "news"}
    sources = {"n": {"state": "live", "listener": listener}, "s": {"state": "connecting", "listener": None}}
    fresh = Freshness(5, 0)
    data = {"sources": sources, "processors": {"stale_partitions": [], "partitions_expected": 8}}
    assert fresh.on_pipeline(json.dumps(data).encode(), 0) == Verdict("stale", "feed connecting")
    assert fresh.of(BOARD, "gainers", "").state == "stale"
    assert fresh.of(news, "AAPL", "n") == LIVE
    del sources["s"]
    assert fresh.on_pipeline(json.dumps(data).encode(), 0) == LIVE
    other = next(n for n in range(8) if n != partition_of("latest", 8))
    data["processors"] = {"stale_partitions": [other], "partitions_expected": 8}
    fresh.on_pipeline(json.dumps(data).encode(), 0)
    assert fresh.of(news, "latest", "").state == "stale"


def test_silence_and_an_absent_cache_are_told_apart() -> None:
    """Five seconds of silence: processors silent; the cache away: its reason, on every channel."""
    fresh = Freshness(5, 0)
    fresh.on_pipeline(ALIVE, 0)
    assert fresh.on_time(5 * S) == LIVE
    assert fresh.on_time(5 * S + 1) == Verdict("stale", "processors silent")
    assert fresh.of(QUOTE, "AAPL", "s") == fresh.of(STATUS, "pipeline", "") == Verdict("stale", "processors silent")
    fresh.on_pipeline(ALIVE, 6 * S)
    assert fresh.on_cache(False, "refused", 7 * S) == Verdict("stale", "cache unavailable: refused")
    assert fresh.of(BOARD, "gainers", "") == Verdict("stale", "cache unavailable: refused")


def test_a_cache_that_is_back_proves_nothing() -> None:
    """What was heard before the outage is old: live is said when the pipeline is heard again."""
    fresh = Freshness(5, 0)
    fresh.on_pipeline(ALIVE, 0)
    fresh.on_cache(False, "", 1 * S)
    assert fresh.on_cache(True, "", 2 * S) == RETURNED
    assert fresh.of(QUOTE, "AAPL", "s") == RETURNED
    assert fresh.on_pipeline(ALIVE, 3 * S) == LIVE
    assert fresh.of(QUOTE, "AAPL", "s") == LIVE


def test_a_part_of_the_cache_that_is_away_takes_only_its_own_channels() -> None:
    """In a cluster: the others stay live; what is back is live when the pipeline was heard since, the status document itself, too."""
    fresh = Freshness(5, 0)
    fresh.on_pipeline(ALIVE, 0)
    other = next(symbol for symbol in ("A", "B", "C", "D") if partition_of(symbol, 8) != P)
    assert fresh.on_away(Away(8, {P: "refused"})) == set()
    assert fresh.of(QUOTE, "AAPL", "s") == Verdict("stale", "cache unavailable: refused")
    assert fresh.of(QUOTE, other, "s") == fresh.of(BOARD, "gainers", "") == fresh.of(STATUS, "pipeline", "") == LIVE
    assert fresh.on_away(Away(8, {P: "refused", SHARED: "frozen"})) == set()
    assert fresh.of(QUOTE, other, "s") == fresh.verdict == LIVE
    for kind, name in ((BOARD, "gainers"), (STATUS, "pipeline")):
        assert fresh.of(kind, name, "") == Verdict("stale", "cache unavailable: frozen")
    assert fresh.on_away(Away(8, {P: "refused"})) == {SHARED}
    assert fresh.of(BOARD, "gainers", "") == PART_RETURNED
    before = fresh.version
    fresh.on_pipeline(ALIVE, 1 * S)
    assert fresh.version > before
    assert fresh.of(BOARD, "gainers", "") == LIVE
    assert fresh.of(QUOTE, "AAPL", "s").reason == "cache unavailable: refused"
    assert fresh.on_away(NOTHING) == {P}
    fresh.on_pipeline(ALIVE, 2 * S)
    assert fresh.of(QUOTE, "AAPL", "s") == LIVE


def test_nobody_vouches_for_what_flows_when_the_pipeline_is_silent() -> None:
    """The part that holds the status document away for longer than silence may last: nothing is called live any more."""
    fresh = Freshness(5, 0)
    fresh.on_pipeline(ALIVE, 0)
    fresh.on_away(Away(8, {SHARED: "refused"}))
    assert fresh.on_time(5 * S) == LIVE
    assert fresh.on_time(6 * S) == fresh.of(QUOTE, "AAPL", "s") == Verdict("stale", "processors silent")


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (status(s="connecting"), Verdict("stale", "feed connecting")),
        (status(s="ended"), Verdict("closed", "replay ended")),
        (status(s="ended", t="silent"), Verdict("stale", "feed silent")),
        (status(s="ended", t="live"), LIVE),
        (status(), Verdict("stale", "feed missing")),
        (status(list(range(8)), s="live"), Verdict("stale", "processors read no partition")),
        (b'{"sources":7}', Verdict("stale", "feed unreadable")),
        (b"\xff", Verdict("stale", "feed unreadable")),
    ],
)
def test_the_whole_is_live_while_any_part_is(data: bytes, verdict: Verdict) -> None:
    """One source that flows is enough for what all have in common."""
    assert Freshness(5, 0).on_pipeline(data, 0) == verdict


def test_a_channel_is_as_fresh_as_its_partition() -> None:
    """Seven of eight partitions without an owner are not called live; what many partitions feed says which are missing."""
    fresh = Freshness(5, 0)
    others = [number for number in range(8) if number != P]
    fresh.on_pipeline(status(others, s="live"), 0)
    assert fresh.of(QUOTE, "AAPL", "s") == LIVE
    assert fresh.of(STATUS, "pipeline", "") == LIVE
    assert fresh.of(BOARD, "gainers", "").reason.startswith("processors do not read partition 0")
    before = fresh.version
    fresh.on_pipeline(status([P], s="live"), 0)
    assert fresh.version > before
    assert fresh.of(QUOTE, "AAPL", "s") == Verdict("stale", f"processors do not read partition {P}")
    assert fresh.of(QUOTE, "AAPL", "").state == "stale"


def test_a_silent_source_makes_only_its_own_channels_stale() -> None:
    """The others, and what all have in common, stay live."""
    fresh = Freshness(5, 0)
    fresh.on_pipeline(status(stocks="live", crypto="silent", tape="ended"), 0)
    assert fresh.of(QUOTE, "AAPL", "stocks") == LIVE
    assert fresh.of(QUOTE, "X:BTC-USD", "crypto") == Verdict("stale", "feed crypto silent")
    assert fresh.of(QUOTE, "ESH4", "tape") == Verdict("closed", "replay ended")
    assert fresh.of(QUOTE, "EUR/USD", "forex") == Verdict("stale", "feed forex missing")
    assert fresh.of(BOARD, "gainers", "") == LIVE


def test_a_source_that_is_not_heard_in_one_partition_is_stale_there_only() -> None:
    """A worker that is subscribed but gets nothing does not look live."""
    fresh = Freshness(5, 0)
    fresh.on_pipeline(status(stocks=("live", [P]), crypto=("live", [])), 0)
    assert fresh.of(QUOTE, "AAPL", "stocks") == Verdict("stale", f"feed stocks is not heard in partition {P}")
    assert fresh.of(QUOTE, "AAPL", "crypto") == LIVE
    elsewhere = next(name for name in ("MSFT", "IBM", "F", "T") if partition_of(name, 8) != P)
    assert fresh.of(QUOTE, elsewhere, "stocks") == LIVE


def test_a_plugin_s_channels_are_stale_where_it_does_not_run() -> None:
    """With the reason, in those partitions only; a plug-in that no processor has leaves nothing live. Others are not touched."""
    spread, lost = kind_of("own:spread:A"), kind_of("ownlog:lost:A")
    data = json.loads(ALIVE)
    data["processors"]["plugins"] = {"spread": {"off": [P], "state": "paused", "error": "ValueError: no", "missed_events": 4}}
    fresh = Freshness(5, 0)
    fresh.on_pipeline(json.dumps(data).encode(), 0)
    other = next(symbol for symbol in ("A", "B", "C", "D") if partition_of(symbol, 8) != P)
    assert fresh.of(spread, "AAPL", "s") == Verdict("stale", "the plug-in spread is paused: ValueError: no")
    assert fresh.of(spread, other, "s") == fresh.of(QUOTE, "AAPL", "s") == LIVE
    assert fresh.of(lost, "AAPL", "s") == Verdict("stale", "no processor has the plug-in lost")


def test_the_same_news_change_nothing() -> None:
    """A status document a second with the same facts costs no look at the channels."""
    fresh = Freshness(5, 0)
    fresh.on_pipeline(ALIVE, 0)
    before = fresh.version
    fresh.on_pipeline(ALIVE, S)
    fresh.on_time(2 * S)
    assert fresh.version == before

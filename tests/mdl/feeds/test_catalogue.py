"""Checks that settings open the right feeds, and that what cannot run is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mdl.feeds.catalogue import open_feed, read_key
from mdl.settings import SUBSCRIPTIONS, MdlSettings
from service.errors import OperatorError
from service.settings import load


def test_each_kind_is_opened_as_it_is_set(tmp_path: Path) -> None:
    """Only a tape at max speed is lossless."""
    tape = tmp_path / "tape.ndjson"
    tape.write_text("[]\n")
    simulator = open_feed(MdlSettings(feed="simulator", symbols=3), "simulator")
    assert (simulator.name, simulator.lossless) == ("simulator", False)
    assert open_feed(MdlSettings(feed="replay", tape=str(tape), speed="max"), "replay").lossless
    assert not open_feed(MdlSettings(feed="replay", tape=str(tape), speed="10"), "replay").lossless


def test_every_feed_is_a_source_of_its_own() -> None:
    """Named after what it is unless the operator says otherwise; the vendor's after its market."""
    both = MdlSettings(feed="simulator+engine").by_source()
    assert {name: own.feed for name, own in both.items()} == {"simulator": "simulator", "exchange": "engine"}
    futures = MdlSettings(feed="massive", market="futures/cme")
    assert (futures.sources, futures.one_market) == (("futures-cme",), "futures/cme")
    markets = {name: one.one_market for name, one in both.items()}
    assert markets == {"simulator": "stocks", "exchange": ""}, "an exchange may have contracts of any market"
    named = MdlSettings(feed="massive+engine", source="options-2+exchange-b").by_source()
    assert {name: (own.feed, own.source) for name, own in named.items()} == {
        "options-2": ("massive", "options-2"),
        "exchange-b": ("engine", "exchange-b"),
    }


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"feed": "simulator+engine", "source": "a+a"}, "gives one name to two feeds"),
        ({"feed": "simulator+engine", "source": "a"}, "names 1 sources, MDL_FEED 2"),
        ({"source": "Stocks"}, "is no name of a source"),
        ({"source": "two words"}, "is no name of a source"),
        ({"source": "a" * 33}, "is no name of a source"),
        ({"feed": "massive+simulator", "source": "a+"}, "is no name of a source"),
    ],
)
def test_a_source_that_cannot_be_is_refused_in_one_line(given: dict[str, str], word: str) -> None:
    """What is wrong with the name, or with how many there are."""
    with pytest.raises(OperatorError, match=re.escape(word)) as caught:
        load(MdlSettings, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"feed": "simulator+carrier pigeon"}, "engine or news"),
        ({"feed": "engine+engine"}, "engine or news"),
        ({"feed": "simulator+"}, "engine or news"),
        ({"feed": "replay+engine", "tape": "x.gz", "speed": "max"}, "MDL_SPEED=max"),
        ({"feed": "engine", "engine_url": "ws://127.0.0.1"}, "MDL_ENGINE_URL"),
        ({"feed": "engine", "engine_depth": 0}, "MDL_ENGINE_DEPTH"),
    ],
)
def test_what_cannot_run_is_refused(given: dict[str, object], word: str) -> None:
    """Unknown kinds, one twice, a replay that would wait for the processors beside a feed that never waits."""
    with pytest.raises(OperatorError, match=re.escape(word)):
        load(MdlSettings, **given)


@pytest.mark.parametrize("market", [*SUBSCRIPTIONS, "futures/cme"])
async def test_every_market_of_the_vendor_can_be_asked_for(market: str) -> None:
    """All of the market's families unless told otherwise."""
    feed = open_feed(MdlSettings(feed="massive", market=market, api_key="k"), "massive")
    assert (feed.name, feed.market, feed.lossless) == ("massive", market, False)
    assert ",".join(feed.subscriptions) == SUBSCRIPTIONS[market.split("/")[0]]


def test_the_key_comes_from_the_variable_or_the_file(tmp_path: Path) -> None:
    """The variable first; a file that is not there yet is no key; one that cannot be read is told."""
    file = tmp_path / "key"
    assert read_key(MdlSettings(api_key_file=file)) == ""
    file.write_text(" secret\n")
    assert read_key(MdlSettings(api_key_file=file)) == "secret"
    assert read_key(MdlSettings(api_key="other", api_key_file=file)) == "other"
    with pytest.raises(OperatorError, match="MDL_API_KEY_FILE"):
        read_key(MdlSettings(api_key_file=tmp_path))


def test_settings_do_not_show_the_key() -> None:
    """Neither printed nor dumped."""
    assert "secret" not in repr(MdlSettings(api_key="secret"))

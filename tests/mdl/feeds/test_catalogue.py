"""Settings in, the right feeds out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mdl.feeds.catalogue import open_feed, open_feeds, read_key
from mdl.settings import SUBSCRIPTIONS, MdlSettings
from service.errors import OperatorError
from service.settings import load


def test_each_kind_is_opened_as_it_is_set(tmp_path: Path) -> None:
    """Only a tape at max speed is lossless."""
    tape = tmp_path / "tape.ndjson"
    tape.write_text("[]\n")
    simulator = open_feeds(MdlSettings(feed="simulator", symbols=3))
    assert (simulator.name, simulator.lossless) == ("simulator", False)
    assert open_feeds(MdlSettings(feed="replay", tape=str(tape), speed="max")).lossless
    assert not open_feeds(MdlSettings(feed="replay", tape=str(tape), speed="10")).lossless


async def test_feeds_joined_by_a_plus_run_at_once() -> None:
    """In the order given; none is lossless."""
    both = open_feeds(MdlSettings(feed="simulator+engine"))
    assert (both.name, both.lossless, [part.name for part in both.parts]) == ("simulator+engine", False, ["simulator", "engine"])


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"feed": "simulator+carrier pigeon"}, "simulator or engine"),
        ({"feed": "engine+engine"}, "simulator or engine"),
        ({"feed": "simulator+"}, "simulator or engine"),
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

"""mdp/plugins/rack.py: the plug-ins of a worker, what operators order, and how they are told."""

from __future__ import annotations

import msgspec
import pytest

from mdp.plugins.host import OFF, RUNNING
from mdp.plugins.installed import Found, Refused
from mdp.plugins.rack import Order, Rack, not_to_import, take_failures, why_off
from tests.mdp.plugins.desk import PluginDesk, Sums


def order(state: str, why: str = "why", importing: bool = False) -> bytes:
    return msgspec.json.encode(Order(state, why, "me", 1, importing))  # type: ignore[arg-type]


def test_an_order_is_followed_once() -> None:
    """Off and on again; the same word twice does nothing, so that what failed after it stays as it is."""
    desk = PluginDesk()
    desk.trade("A", 1)
    desk.flush()
    desk.rack.learn({b"sums": order("off", "slow")}, [desk.host])
    assert (desk.host.state, desk.host.fault) == (OFF, "me: slow")
    desk.trade("A", 2)
    desk.flush(100_000)
    assert desk.own("own:sums:A")["trades"] == 1
    [told] = desk.rack.view({3: [desk.host]})
    assert (told.state, told.off, told.error, told.missed_events) == ("off", [3], "me: slow", 1)
    desk.rack.learn({b"sums": order("on")}, [desk.host])
    assert desk.host.state == RUNNING
    desk.host.hold("something else")
    desk.rack.learn({b"sums": order("on")}, [desk.host])
    assert desk.host.state == OFF
    desk.rack.learn({}, [desk.host])
    assert desk.host.state == RUNNING


def test_a_partition_that_is_loaded_later_knows_the_order() -> None:
    """What ended one worker does not run for a moment in the next."""
    desk = PluginDesk()
    desk.rack.learn({b"sums": order("off", "it did not return")})
    desk.next_owner()
    assert (desk.host.state, desk.host.fault) == (OFF, "me: it did not return")
    desk.trade("A", 1)
    assert desk.host.tally.missed == 1


@pytest.mark.parametrize("body", [b"", b"tea", b"[]", b'{"state":"maybe"}', b"\xff"])
def test_an_order_that_cannot_be_read_holds_nobody(body: bytes) -> None:
    """Whatever somebody wrote into the cache, processors go on."""
    assert why_off(body) == ""
    assert not_to_import({b"sums": body}) == {}


def test_only_what_did_not_come_back_from_its_import_is_not_imported_again() -> None:
    """Others are imported, so that they can be put on without a restart."""
    held = not_to_import({b"a": order("off", "slow"), b"b": order("off", "slow", True), b"c": order("on", "", True)})
    assert held == {"b": "me: slow; restart the processors after it was put on"}


def test_the_worst_is_told() -> None:
    """One partition that is off makes the plug-in off; the refused ones are off everywhere."""
    desk, other = PluginDesk(), PluginDesk()
    other.rack = desk.rack
    other.next_owner()
    Sums.orders = {666: ValueError("no")}
    other.trade("A", 666)
    found = Found(desk.rack.found.plugins, [Refused("bad", "it is none", "3")])
    desk.rack.found = found
    bad, sums = desk.rack.view({1: [desk.host], 2: [other.host]})
    assert (bad.name, bad.state, bad.off, bad.error) == ("bad", "refused", [1, 2], "it is none")
    assert (sums.state, sums.off, sums.failures, sums.boards) == ("paused", [2], 1, ["sums"])
    assert sums.error.startswith("ValueError: no")
    [(name, failure)] = take_failures([desk.host, other.host])
    assert (name, failure.missed) == ("sums", 1)
    assert take_failures([desk.host, other.host]) == []
    assert Rack(Found([], [])).view({1: []}) == []

"""mdp/plugins/host.py: what a plug-in does, and what it cannot do to others."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from mdp.plugin import AnyTrade, Plugin
from mdp.plugins.host import BARE_MAX, OFF, PAUSE_MS, PAUSED, RUNNING, SOUND_MS, Host, Tally
from tests.mdp.plugins.desk import PluginDesk, Sum, Sums


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


def tally(desk: PluginDesk) -> Tally:
    """Return what the partition's checkpoint remembers of the first plug-in."""
    return msgspec.json.decode(desk.cache.cells[b"plugin:sums"], type=Tally)


def test_documents_reports_and_boards_reach_the_cache() -> None:
    """One document a flush, every report in order with the quote as of its event, ranked rows with the board's own columns."""
    desk = PluginDesk()
    desk.trade("A", 10, 111, 12, 111)
    desk.trade("B", 500)
    desk.flush()
    assert desk.own("own:sums:A") == {"trades": 4, "sum": 244}
    assert [said["volume"] for said in desk.cache.events("ownlog:sums:A")] == [2, 4]
    assert {"idx:own:sums/A", "idx:own:sums/B", "idx:ownlog:sums/A"} <= desk.cache.index
    share = json.loads(desk.cache.shares["board:sums"])
    assert [(rank, sym, row["sum"], row["last"]) for rank, sym, row in share] == [(500, "B", 500, 500), (244, "A", 244, 111)]
    before = desk.cache.documents["own:sums:A"]["seq"]
    desk.trade("A", 1)
    desk.flush()
    assert (desk.own("own:sums:A")["trades"], desk.cache.documents["own:sums:A"]["seq"]) == (5, before + 1)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero (desk.py:"),
        (SystemExit(3), "SystemExit: 3 (desk.py:"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (Unprintable(), "Unprintable: (it does not say)"),
        (ValueError("x" * 10_000), "ValueError: xxx"),
        (ValueError("two\nlines"), "ValueError: two lines"),
    ],
)
def test_whatever_it_raises_its_partition_goes_on(fault: BaseException, said: str) -> None:
    """The batch is taken to its end, the quote has every trade, no dead letter; the plug-in begins again from its last flush."""
    desk = PluginDesk()
    Sums.orders = {666: fault}
    desk.trade("A", 10, 20)
    desk.trade("B", 5)
    desk.flush()
    desk.trade("A", 30, 666, 40)
    desk.trade("B", 6)
    desk.flush(50)
    assert desk.own("quote:A")["trades"] == 5
    assert (desk.cache.letters, desk.partition.counts.discarded) == ([], {})
    assert (desk.host.state, desk.host.fault[: len(said)]) == (PAUSED, said)
    assert len(desk.host.fault) <= 300
    assert "\n" not in desk.host.fault
    desk.trade("A", 50)  # while it is paused
    desk.flush(PAUSE_MS)
    assert desk.host.state == RUNNING
    desk.trade("A", 60)
    desk.flush()
    assert desk.own("own:sums:A") == {"trades": 3, "sum": 90}  # 10 20 60
    assert desk.own("own:sums:B") == {"trades": 1, "sum": 5}
    assert (tally(desk).failures, tally(desk).gaps, tally(desk).missed) == (1, 1, 5)  # 30 666 40 and 6, 50
    [failure] = desk.host.failed
    assert (failure.where[:13], failure.pause_ms) == ("on_trade of A", PAUSE_MS)


def test_another_plugin_does_not_notice() -> None:
    """Two plug-ins in one partition: the one that fails takes nothing from the other."""

    class Others(Sums):
        boards = ()
        orders: dict[float, Any] = {}  # noqa: RUF012

    desk = PluginDesk(Sums, Others)
    Sums.orders = {666: ValueError("mine")}
    desk.trade("A", 10, 666, 20)
    desk.flush()
    assert desk.own("own:others:A") == {"trades": 3, "sum": 696}
    assert "own:sums:A" not in desk.cache.documents


@pytest.mark.parametrize(
    ("price", "fault", "where"),
    [
        (444, "ValueError: no document", "document of B"),
        (555, "a report must be a mapping or a struct, not list", "on_trade of B"),
        (777, "it took 300 ms of 500 ms; at most 100", "on_trade of B"),
        (333, "rank of B on sums is nan, not a finite number", "rank"),
    ],
)
def test_it_is_taken_out_for_what_it_gives_and_for_the_time_that_it_takes(price: float, fault: str, where: str) -> None:
    """Who gives no document, no object or no number, or takes too long, is treated as one that raises."""
    desk = PluginDesk()
    desk.trade("A", 1)
    desk.flush(1)
    desk.trade("B", price)
    desk.trade("A", 2)
    desk.flush(1_000 if where == "rank" else 999)
    found = (desk.host.state, desk.host.fault.partition(" (")[0], desk.host.failed[0].where.partition(" at")[0])
    assert found == (PAUSED, fault, where)
    assert desk.own("quote:A")["trades"] == 2
    if where == "rank":
        return  # what it fails at is in its checkpoint: it will fail again, until it stays off
    desk.flush(2_000)
    assert desk.host.state == RUNNING
    desk.trade("A", 3)
    desk.flush(2_000)
    assert desk.own("own:sums:A")["trades"] == 2


def test_a_machine_that_has_no_processor_for_it_is_not_its_fault() -> None:
    """Time in which the thread was ready to run and did not is not counted; what it works in the same half second is."""
    desk = PluginDesk()
    desk.trade("A", 778, 778)
    assert (desk.host.state, desk.host.fault) == (RUNNING, "")
    desk.trade("A", 777)
    assert desk.host.fault == "it took 300 ms of 500 ms; at most 100"


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (msgspec.Raw(b'{"a":'), "DecodeError"),
        ({"a": msgspec.Raw(b"tea")}, "DecodeError"),
        ({"a": "\ud800"}, "UnicodeEncodeError"),
        ({1.5: object()}, "TypeError"),
        ([], "a document must be"),
        (3, "a document must be"),
    ],
)
def test_nothing_that_readers_could_not_read_reaches_the_cache(given: Any, fault: str) -> None:
    """One document that is no JSON would spoil the update of all others that share its message."""

    class Odd(Sums):
        boards = ("odd",)

        def document(self, symbol: str, state: Sum) -> Any:
            return given

    desk = PluginDesk(Odd)
    desk.trade("A", 1)
    desk.flush()
    assert desk.host.fault.startswith(fault)
    assert desk.own("quote:A")["trades"] == 1
    assert "own:sums:A" not in desk.cache.documents


@pytest.mark.parametrize(
    ("ts", "rank", "fault"), [(10**30, 1, "a report at 1000"), (-1, 1, "a report at -1"), (5, 10**400, "OverflowError")]
)
def test_numbers_out_of_bounds_are_unusable(ts: int, rank: int, fault: str) -> None:
    """A time that no reader can hold, a rank beyond all floats; a large whole number is a rank like any other."""

    class Odd(Sums):
        def on_trade(self, state: Sum, trade: AnyTrade, effect: int) -> None:
            self.report(ts, {})

        def rank(self, board: str, symbol: str, state: Sum) -> float | None:
            return rank

    desk = PluginDesk(Odd)
    desk.trade("A", 1)
    desk.flush(999)
    assert desk.host.fault.startswith(fault)

    class Large(Sums):
        def rank(self, board: str, symbol: str, state: Sum) -> float | None:
            return 10**30

    desk = PluginDesk(Large)
    desk.trade("A", 1)
    desk.flush()
    assert [rank for rank, _, _ in json.loads(desk.cache.shares["board:sums"])] == [1e30]


def test_too_large_is_unusable() -> None:
    """Documents, states and reports have bounds: nobody fills the cache."""

    class Large(Sums):
        boards = ()

        def on_trade(self, state: Sum, trade: AnyTrade, effect: int) -> None:
            for _ in range(int(trade.price)):
                self.report(trade.ts, {})

        def document(self, symbol: str, state: Sum) -> dict[str, Any]:
            return {"x": "x" * 70_000} if symbol == "D" else {}

    desk = PluginDesk(Large)
    desk.trade("R", 10_001)
    assert desk.host.fault.startswith("more than 10000 reports between two flushes")
    desk.flush(PAUSE_MS)
    assert "ownlog:sums:R" not in desk.cache.documents
    desk.trade("D", 1)
    desk.flush(PAUSE_MS * 2)
    assert desk.host.fault.startswith("a document of 70008 bytes; at most 65536")


def test_the_pauses_grow_and_after_so_many_failures_it_stays_off() -> None:
    """1 s, 2 s, then off; `release`, as the operator's word does, lets it begin again; a sound minute forgets the failures."""
    desk = PluginDesk()
    Sums.orders = {666: ValueError("again")}
    for pause_ms in (1_000, 2_000):
        desk.trade("A", 666)
        desk.flush(pause_ms - 1)
        assert desk.host.failed[-1].pause_ms == pause_ms
        assert desk.host.state == PAUSED
        desk.flush(2 * pause_ms)
        assert desk.host.state == RUNNING
    desk.trade("A", 666)
    desk.flush(10_000_000)
    assert (desk.host.state, desk.host.fault[:22]) == (OFF, "3 failures in a row, t")
    desk.trade("A", 1)
    desk.host.release()
    desk.trade("A", 2)
    desk.flush()
    assert desk.own("own:sums:A")["trades"] == 1
    for _ in range(5):
        desk.trade("A", 666)
        desk.flush(1_001)
        desk.flush(1_001)
        desk.flush(SOUND_MS + 1)
        assert desk.host.state == RUNNING


def test_its_board_is_empty_while_it_does_not_run() -> None:
    """Rows that nobody ranks are not shown; afterwards all symbols are ranked again, also those that stood still."""
    desk = PluginDesk()
    Sums.orders = {666: ValueError("no")}
    desk.trade("A", 10)
    desk.trade("B", 20)
    desk.flush(1_001)
    desk.trade("A", 666)
    desk.flush(999)
    desk.flush(100)
    assert json.loads(desk.cache.shares["board:sums"]) == [] or desk.host.state == RUNNING
    desk.host.hold("operator: put off by hand")
    desk.flush(1_001)
    assert json.loads(desk.cache.shares["board:sums"]) == []
    desk.host.release()
    desk.flush(1_001)
    assert [sym for _, sym, _ in json.loads(desk.cache.shares["board:sums"])] == ["B", "A"]


def test_the_next_owner_goes_on_and_knows_what_a_worker_without_it_did_not_tell() -> None:
    """The same states and numbers; events that a worker without the plug-in has taken are a gap, and counted."""
    desk = PluginDesk()
    desk.trade("A", 10, 111)
    desk.flush()
    desk.next_owner()
    desk.trade("A", 20, 111)
    desk.flush()
    assert desk.own("own:sums:A") == {"trades": 4, "sum": 252}
    assert [doc["seq"] for doc in desk.cache.log if doc["ch"] == "ownlog:sums:A"] == [1, 2]
    assert (tally(desk).gaps, tally(desk).missed) == (0, 0)
    full = desk.rack
    desk.next_owner(PluginDesk(names=()).rack)  # a worker without plug-ins; their cells stop nothing, and stay
    assert desk.bad == []
    desk.trade("A", 30, 40, 50)
    desk.flush()
    desk.next_owner(full)
    desk.trade("A", 60)
    desk.flush()
    assert desk.own("own:sums:A") == {"trades": 5, "sum": 312}
    assert (tally(desk).gaps, tally(desk).missed) == (1, 3)


def test_a_state_of_another_version_begins_anew_and_nothing_else_does() -> None:
    """A cell that cannot be read is set aside like any other analyzer's; its channel goes on."""
    desk = PluginDesk()
    desk.trade("A", 10)
    desk.trade("B", 20)
    desk.flush()
    desk.cache.cells[b"own:sums:A"] = msgspec.msgpack.encode((1, b"\xc1"))
    desk.next_owner()
    assert [(bad.analyzer, bad.symbol) for bad in desk.bad] == [("own:sums", "A")]
    desk.partition.resume("own:sums", "A", 1)
    desk.trade("A", 1)
    desk.trade("B", 2)
    desk.flush()
    assert (desk.own("own:sums:A")["trades"], desk.own("own:sums:B")["trades"]) == (1, 2)
    assert len(desk.cache.letters) == 1


def test_a_new_cache_and_a_new_run_of_a_tape() -> None:
    """Everything is written again into an emptied cache; a tape that begins anew begins with new states."""
    desk = PluginDesk()
    desk.trade("A", 10, 20)
    desk.flush()
    desk.partition.rewrite(2, "e2")
    desk.cache.index.clear()
    desk.flush()
    assert desk.cache.documents["own:sums:A"]["epoch"] == "e2"
    assert "idx:own:sums/A" in desk.cache.index
    assert b"own:sums:A" in desk.cache.cells
    desk.feed({"ev": "T", "sym": "A", "p": 5, "s": 1, "t": desk.now_ms, "c": [], "x": 4, "i": "n"}, run=1)
    desk.flush()
    assert desk.own("own:sums:A") == {"trades": 1, "sum": 5}


def test_a_new_cache_has_all_states_at_once_and_the_documents_some_at_a_time() -> None:
    """The checkpoint must be whole; to ask for thousands of documents in one flush would look like a plug-in that is slow."""

    class Asked(Sums):
        boards = ()
        symbols: list[str] = []  # noqa: RUF012

        def document(self, symbol: str, state: Sum) -> dict[str, Any]:
            self.symbols.append(symbol)
            return {"trades": state.trades}

    desk = PluginDesk(Asked)
    for n in range(BARE_MAX + 5):
        desk.trade(f"S{n}", 1)
    desk.flush()
    desk.partition.rewrite(2, "e2")
    Asked.symbols.clear()
    desk.trade("S3", 2)
    desk.flush()
    assert sum(cell.startswith(b"own:sums:") for cell in desk.cache.cells) == BARE_MAX + 5
    assert len(Asked.symbols) == BARE_MAX + 1
    assert desk.own("own:sums:S3") == {"trades": 2}
    desk.flush()
    assert len(Asked.symbols) == len(set(Asked.symbols)) == BARE_MAX + 5
    assert all(desk.cache.documents[f"own:sums:S{n}"]["epoch"] == "e2" for n in range(BARE_MAX + 5))
    desk.next_owner()
    desk.trade("S4", 2)
    desk.flush()
    assert desk.own("own:sums:S4") == {"trades": 2}
    assert len(Asked.symbols) == BARE_MAX + 6


def test_a_forgotten_symbol_takes_everything_with_it() -> None:
    """State, cells, channels and rows of a symbol that is not traded any more go together."""
    desk = PluginDesk()
    desk.trade("A", 10, 111)
    desk.flush(1_001)
    for analyzer in desk.partition.analyzers:
        analyzer.forget("A")
    assert desk.host._states == desk.host._cells == {}
    desk.flush(1_001)
    assert json.loads(desk.cache.shares["board:sums"]) == []


def test_watched_symbols_leave_with_their_own_cells() -> None:
    """A flush of what is watched has the plug-in's documents and cells too, and a crash after it loses less."""
    desk = PluginDesk()
    desk.trade("A", 1)
    desk.trade("B", 1)
    desk.flush()
    desk.partition.watch([("own", "A")])
    desk.trade("A", 2)
    desk.trade("B", 2)
    flush = desk.partition.collect_watched(desk.now_ms)
    desk.cache.apply(flush, desk.partition.flush_number)
    assert (desk.own("own:sums:A")["trades"], desk.own("own:sums:B")["trades"]) == (2, 1)
    Sums.orders = {666: ValueError("no")}
    desk.trade("B", 666)
    assert desk.host.tally.missed == 2  # B's 2 and 666; A's 2 is in the checkpoint


def test_what_is_not_overridden_is_never_called_and_a_report_belongs_to_an_event() -> None:
    """A plug-in that only reads trades hears no quotes; outside of a handler there is no symbol to report on."""

    class Talkative(Sums):
        boards = ()

        def document(self, symbol: str, state: Sum) -> dict[str, Any]:
            self.report(1, {})
            return {}

    desk = PluginDesk(Talkative)
    assert desk.host.hears("on_trade")
    assert not any(desk.host.hears(name) for name in ("on_quote", "on_book", "on_source", "on_article", "on_feed_time"))
    desk.trade("A", 1)
    desk.flush()
    assert desk.host.fault.startswith("a report belongs to an event")


def test_a_plugin_that_cannot_be_made_is_tried_again() -> None:
    """An __init__ that fails is a failure like any other; who is interrupted by hand is not."""

    class Late(Sums):
        boards = ()
        tries = 0

        def __init__(self) -> None:
            Late.tries += 1
            if Late.tries < 3:
                raise OSError("not yet")

    desk = PluginDesk(Late)
    assert (desk.host.state, desk.host.failed[0].where) == (PAUSED, "its __init__")
    desk.flush(10)
    desk.flush(2_001)
    assert (desk.host.state, Late.tries) == (RUNNING, 3)
    assert desk.host.tally.gaps == 0
    Sums.orders = {666: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        desk.trade("A", 666)


def test_the_watch_says_who_is_at_work() -> None:
    """While a plug-in works its name and the time are there for the watchdog, and never in between."""
    seen: list[tuple[str, int]] = []

    class Looking(Plugin):
        State = Sum

        def on_trade(self, state: Sum, trade: AnyTrade, effect: int) -> None:
            seen.append((desk.watch.name, desk.watch.since_ns))

    desk = PluginDesk(Looking)
    assert desk.watch.since_ns == 0
    desk.trade("A", 1)
    assert seen == [("sums", 10**12)]
    assert desk.watch.since_ns == 0
    assert isinstance(desk.host, Host)

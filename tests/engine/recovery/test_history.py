"""`python -m engine history` tells every order as the exchange had it, at any index, from journal and archive, or says why not."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

from engine import __main__ as command_line
from engine.core import commands as cm
from engine.core import events as ev
from engine.core.commands import BUY, SELL
from engine.core.state import State
from engine.journal.reader import SegmentsMissing, segments
from engine.recovery.command import INDEX_MAX
from engine.recovery.history import Places, Wanted, orders
from engine.recovery.inspection import moment
from engine.recovery.order_life import OrderLife
from engine.recovery.replay import replay
from engine.recovery.snapshot import snapshot
from engine.recovery.snapshot_files import FileSnapshotStore
from service.errors import OperatorError
from tests.engine.lives import START_NS, STEP_NS, Life, journaled, life, records

ENDS = ("filled", "cancelled", "rejected")


class Done(NamedTuple):
    """How a command line ended."""

    returncode: int
    stdout: str
    stderr: str


def run(folder: Path, *arguments: str) -> Done:
    """Run the command line in this process, as `python -m engine` does in its own."""
    out, errors, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(errors), mock.patch.object(
        sys, "argv", ["engine", "history", "--folder", str(folder), *arguments]
    ):  # fmt: skip
        try:
            command_line.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, out.getvalue(), errors.getvalue())


def places(folder: Path, archive: str = "") -> Places:
    return Places(folder / "journal", folder / "snapshots", folder / archive if archive else None)


@cache
def made(folder: Path) -> list[int]:
    """Write a life into a folder; return the ids of its orders."""
    journaled(folder / "journal", life(5, 400))
    events = (event for record in records(folder / "journal") for event in ev.decode(record.payload))
    return [event.order_id for event in events if isinstance(event, ev.OrderAccepted)]


def states(folder: Path) -> Iterator[tuple[int, State]]:
    state = State()
    for record in records(folder / "journal"):
        replay(state, [record])
        yield record.command_index, state


def agrees(life: OrderLife, state: State) -> bool:
    """Return whether an order is told as the exchange has it."""
    order = state.orders.get(int(life.order_id))
    if order is None:
        return life.status in ENDS and (life.status == "filled") == (life.cum_qty == life.order_qty)
    same = (life.order_qty, life.cum_qty, life.leaves_qty) == (order.size_lots, order.filled_lots, order.leaves_lots)
    return same and (life.price, life.stop_px) == (order.price_ticks, order.stop_ticks) and life.status not in ENDS


def test_every_order_is_told_as_the_exchange_had_it_at_any_index(tmp_path: Path) -> None:
    """Amended, trailing, linked, liquidated or traded in steps: at twelve indices of a life everything agrees with the state."""
    ids = made(tmp_path)
    compared = 0
    for index, state in states(tmp_path):
        if index % 33:
            continue
        for order_id in [one for one in ids if one % 2**50 <= index][-40:]:
            (told,) = orders(places(tmp_path), Wanted(order_id), index).lives
            assert agrees(told, state), (index, told)
            compared += 1
    assert compared > 300


def one_order() -> Life:
    """Two accounts; an order that is partly filled, amended, refused a twin, and cancelled."""
    commands: list[cm.Command] = [
        cm.CreateInstrument(cm.Instrument("X", tick_size="0.5", taker_fee_ppm=1_000), 100),
        cm.Deposit(1, 10**9), cm.Deposit(2, 10**9),
        cm.PlaceOrder(1, "X", "mine", BUY, 10, 100),
        cm.PlaceOrder(2, "X", "theirs", SELL, 4, 100),
        cm.AmendOrder(1, "mine", 8, 101),
        cm.PlaceOrder(1, "X", "mine", BUY, 1, 100),
        cm.CancelOrder(1, "mine"), cm.CancelOrder(1, "mine"),
    ]  # fmt: skip
    return [(index, START_NS + index * STEP_NS, command) for index, command in enumerate(commands, 1)]


def test_a_life_is_told_to_people_and_to_programs(tmp_path: Path) -> None:
    """By id and by client id; with prices in decimals, who sent what, what was refused, and how it ended."""
    journaled(tmp_path / "journal", one_order())
    lines = run(tmp_path, "order", "4").stdout.splitlines()
    assert lines[0] == "order 4 (clOrdID 'mine') of account 1: Buy 8 X, limit 50.5, GoodTillCancel"
    assert [line.split("Z", 1)[1].strip() for line in lines[1:-1]] == [
        "accepted", "rests in the book with 10", "traded 4 at 50 as maker, 6 left, fee 0, with order 5",
        "amended: 8 in all at 50.5, enters again", "rests in the book with 4", "cancelled: Requested",
    ]  # fmt: skip
    assert lines[-1] == "cancelled (Requested): 4 of 8 traded at 50 on average; read up to index 8"
    found = json.loads(run(tmp_path, "order", "--account", "1", "--client-id", "mine", "--json").stdout)
    first, refused = found["orders"]
    assert (first["orderId"], first["avgPx"], first["steps"][2]["otherOrderId"]) == ("4", 50.0, "5")
    assert (refused["orderId"], refused["status"], refused["reason"]) == ("7", "rejected", "DuplicateClOrdID")
    assert "UnknownOrder" in refused["steps"][-1]["text"], "the second cancel came too late"
    assert run(tmp_path, "order", "7").stdout.splitlines()[0] == "order 7 (clOrdID 'mine') of account 1: X"
    early = json.loads(run(tmp_path, "order", "4", "--at", "5", "--json").stdout)
    assert (early["orders"][0]["status"], early["orders"][0]["leavesQty"], early["readTo"]) == ("open", 6, 5)


def test_the_exchange_after_a_command_is_told_to_people_and_to_programs(tmp_path: Path) -> None:
    """Markets, accounts and, of one account, its open orders; as JSON it is what `journal state` prints."""
    journaled(tmp_path / "journal", one_order())
    text = run(tmp_path, "state", "--at", "5").stdout
    assert "X: mark 50, last 50, 50 / -, 1 open orders" in text
    assert "account 1: balance 1000, +4 X" in text
    assert "order 4: buy 6 of 10 X at 50" in run(tmp_path, "state", "--at", "5", "--account", "1").stdout
    found = json.loads(run(tmp_path, "state", "--at", "5", "--json").stdout)
    assert (found["index"], found["digest"]) == (5, moment(*places(tmp_path)[:2], 5).digest)
    done = run(tmp_path, "state", "--at", "5", "--account", "9")
    assert (done.returncode, "no account 9 after command 5" in done.stderr) == (3, True)


def test_the_archive_is_a_part_of_the_history(tmp_path: Path) -> None:
    """Segments that were moved there, or copied and not yet removed, are read; without them it is said what is missing."""
    ids = made(tmp_path)
    first, middle, last = (ids[at] for at in (0, len(ids) // 2, -1))
    whole = {one: orders(places(tmp_path), Wanted(one)).text for one in (first, middle, last)}
    digest = moment(*places(tmp_path)[:2], 100).digest
    archive = tmp_path / "archive"
    archive.mkdir()
    paths = segments(tmp_path / "journal")
    for path in paths[: len(paths) // 2]:
        path.rename(archive / path.name)
    (archive / paths[-2].name).write_bytes(paths[-2].read_bytes())
    assert {one: orders(places(tmp_path, "archive"), Wanted(one)).text for one in whole} == whole
    assert moment(*places(tmp_path, "archive")[:2], 100, archive).digest == digest
    with pytest.raises(OperatorError, match="may have come before"):
        orders(places(tmp_path), Wanted(first))
    with pytest.raises(OperatorError, match="name theirs with --archive"):
        moment(*places(tmp_path)[:2], 100)
    assert orders(places(tmp_path), Wanted(last)).text.splitlines()[-1] == whole[last].splitlines()[-1]
    (archive / paths[len(paths) // 2 - 1].name).unlink()
    with pytest.raises(SegmentsMissing, match="one between is missing"):
        orders(places(tmp_path, "archive"), Wanted(None, 1, "x"))


def test_prices_of_an_order_need_no_more_than_the_records_after_it(tmp_path: Path) -> None:
    """The contract is known from a snapshot, or found on the way, when the segments before the order are away."""
    exchange = journaled(tmp_path / "journal", one_order()[:3], segment_bytes_max=1)
    record = records(tmp_path / "journal")[-1]
    files = snapshot(exchange.state, record.command_index, record.chain, record.time_ns, record.time_ns)
    FileSnapshotStore(tmp_path / "snapshots").write_generation(files)
    journaled(tmp_path / "journal", one_order()[3:], exchange, segment_bytes_max=1)
    for path in segments(tmp_path / "journal"):
        if int(path.stem) < 4:
            path.unlink()
    assert orders(places(tmp_path), Wanted(4)).lives[0].avg_px == 50.0


def test_what_cannot_be_told_says_why(tmp_path: Path) -> None:
    """No such order, an index beyond the end, no journal, no archive, half a name; one line each."""
    journaled(tmp_path / "journal", one_order())
    for arguments, code, says in (
        (("order", "3"), 3, "There is no order 3 up to index 9"),
        (("order", "999"), 3, "There is no order 999 up to index 9"),
        (("order", "--account", "2", "--client-id", "mine"), 3, "no order 'mine' of account 2"),
        (("order", "4", "--at", "50"), 3, "The journal ends at index 9, and 50 is asked for"),
        (("state", "--at", "50"), 3, "The journal ends at index 9"),
        (("order", str(INDEX_MAX + 1)), 2, "is no index"),
        (("order", "--account", "1"), 2, "name the order by its id, or by --account and --client-id"),
        (("order", "4", "--account", "1"), 2, "name the order by its id"),
        (("--archive", str(tmp_path / "none"), "order", "4"), 3, "There is no archive in"),
    ):
        done = run(tmp_path, *arguments)
        assert (done.returncode, done.stdout) == (code, ""), arguments
        assert says in done.stderr
        assert "Traceback" not in done.stderr
    assert "There is no journal" in run(tmp_path / "nowhere", "state", "--at", "1").stderr

"""The command lines that read an exchange's history: `journal` and `history`, also while the engine writes on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.recovery import history, inspection
from engine.recovery.history import Places, Wanted

INDEX_MAX = 2**63 - 1


def journal_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `journal` takes."""
    _folders(parser)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("verify", help="read and check every record; exit code 3 names the first index in doubt")
    dump = commands.add_parser("dump", help="print one JSON object a record")
    dump.add_argument("--from", type=index, default=0, dest="first", metavar="INDEX")
    dump.add_argument("--to", type=index, dest="last", metavar="INDEX")
    state = commands.add_parser("state", help="print everything in the exchange after one command")
    state.add_argument("--at", type=index, required=True, metavar="INDEX")


def history_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `history` takes."""
    _folders(parser)
    commands = parser.add_subparsers(dest="what", required=True)
    order = commands.add_parser("order", help="what became of an order, from its command to its end")
    order.add_argument("order_id", type=index, nargs="?", metavar="ORDER_ID", help="its id; or --account and --client-id")
    order.add_argument("--account", type=int, metavar="NUMBER")
    order.add_argument("--client-id", metavar="CLORDID", help="the id that its owner gave it")
    order.add_argument("--at", type=index, metavar="INDEX", help="as it was after that command; without it as it is now")
    state = commands.add_parser("state", help="markets and accounts after one command")
    state.add_argument("--at", type=index, required=True, metavar="INDEX")
    state.add_argument("--account", type=int, metavar="NUMBER", help="of that account only, with its open orders")
    for one in (order, state):
        one.add_argument("--json", action="store_true", help="one JSON object instead of lines for people")
    order.set_defaults(check=lambda given: _named(order, given))


def index(text: str) -> int:
    """Return an index of the command line.  Raises: argparse.ArgumentTypeError."""
    if not text.isdecimal() or int(text) > INDEX_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no index; write a whole number, 0 or more")
    return int(text)


def journal(places: Places, given: argparse.Namespace) -> Iterator[str]:
    """Yield the lines that `journal` prints.  Raises: as `inspection`."""
    if given.what == "verify":
        yield json.dumps(inspection.verify(*places))
    elif given.what == "state":
        yield inspection.state_at(places.journal, places.snapshots, given.at, places.archive).decode()
    else:
        for line in inspection.dump(places.journal, given.first, given.last, places.archive):
            yield line.decode()


def told(places: Places, given: argparse.Namespace) -> Iterator[str]:
    """Yield the lines that `history` prints.  Raises: as `inspection` and `history`."""
    if given.what == "order":
        found = history.orders(places, Wanted(given.order_id, given.account or 0, given.client_id or ""), given.at)
        yield msgspec.json.encode({"readTo": found.read_to, "orders": found.lives}).decode() if given.json else found.text
        return
    moment = inspection.moment(places.journal, places.snapshots, given.at, places.archive)
    if given.json:
        yield msgspec.json.encode(history.shown(moment, given.account)).decode()
    else:
        yield history.told(moment, given.account)


def _folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, help="what ENGINE_DIR is for the engine; by default that")
    parser.add_argument(
        "--archive", type=Path, help="the folder of archived segments; by default ENGINE_ARCHIVE_DIR, unless --folder is given"
    )


def _named(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    by_name = given.account is not None and given.client_id is not None
    if (given.order_id is not None) == by_name or (given.order_id is not None and (given.account or given.client_id)):
        parser.error("name the order by its id, or by --account and --client-id")

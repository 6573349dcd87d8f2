"""Compares the database with the exchange: balances, positions and open orders, one JSON line a difference.

python -m engine oms reconcile

An account is compared when the database has every message up to the command that the exchange's answer is of, and none that
changed the account after it; while it trades on it is asked again. Nothing is changed on either side.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from engine.oms import database as oms_database
from engine.oms.consumer import GatewayUnavailable, OmsSettings, Stores, opening_of
from engine.oms.database import Book, Database, DatabaseUnavailable
from engine.oms.money import text
from engine.oms.tables import Gap
from service.errors import OperatorError

DIFFERENT_EXIT = 1
UNABLE_EXIT = 3
ROUNDS_MAX = 20  # that an account which goes on trading is asked again
WAIT_S_MAX = 30.0  # for the OMS to come as far as the exchange
WAIT_S = 0.2


class Difference(NamedTuple):
    """What the exchange says, and what the database says; None where one of them knows nothing."""

    what: str  # balance, position, order
    account: int
    key: str  # of a position its symbol, of an order its id
    exchange: list[int] | None
    database: list[int] | None


class Present(NamedTuple):
    """What the exchange says of one account after command `at_index`."""

    at_index: int
    account: int
    figures: dict[tuple[str, str], list[int]]


class Kept(NamedTuple):
    """What the database says of one account, and the index of the last message that changed any of it."""

    newest: int
    figures: dict[tuple[str, str], list[int]]


NOTHING = Kept(-1, {("balance", ""): [0]})  # of an account that no message was about


async def run(settings: OmsSettings, tell: Callable[[str], None] = print) -> int:
    """Compare once; tell each difference and a summary; return how many there are.

    Raises: OperatorError when exchange or database are away, or the OMS does not come as far as the exchange.
    """
    database, stores = oms_database.connect(settings.database), Stores(settings)
    try:
        found, accounts = await compare(database, stores)
    except (GatewayUnavailable, DatabaseUnavailable) as error:
        raise OperatorError(f"Cannot compare: {error}", "Start what is away, then compare again", UNABLE_EXIT) from None
    except Gap as error:
        raise OperatorError(f"Cannot compare: {error}", "Set OMS_STORE to the store that the OMS follows", UNABLE_EXIT) from None
    finally:
        await stores.close()
        await database.close()
    for one in found:
        tell(json.dumps({**one._asdict()}))
    tell(json.dumps({"accounts": accounts, "differences": len(found)}))
    return len(found)


async def compare(database: Database, stores: Stores) -> tuple[list[Difference], int]:
    """Return the differences, and how many accounts were compared."""
    if not await database.opened(stores.name):
        raise OperatorError(
            f"The database has no balances of store {stores.name!r} yet",
            "Run python -m engine oms with these settings once; it takes them from the exchange",
            UNABLE_EXIT,
        )
    numbers = [one.account for one in await stores.openings()]
    accounts, found = len(numbers), []
    for _ in range(ROUNDS_MAX):
        presents = [present_of(await stores.account(number)) for number in numbers]
        kept = kept_in(await _caught_up(database, await stores.last_item()))
        ready = [one for one in presents if kept.get(one.account, NOTHING).newest <= one.at_index]
        found += [difference for one in ready for difference in differences(one, kept.get(one.account, NOTHING))]
        numbers = sorted(set(numbers) - {present.account for present in ready})
        if not numbers:
            return found, accounts
    what = f"{len(numbers)} accounts trade on and on, {numbers[0]} among them"
    raise OperatorError(f"Cannot compare: {what}", "Suspend trading for a moment, then compare again", UNABLE_EXIT)


def present_of(view: Any) -> Present:
    """Return what an account's view says."""
    opening = opening_of(view)
    figures = {("balance", ""): [opening.balance]}
    figures |= {("position", text(symbol)): list(held) for symbol, held in opening.positions.items()}
    figures |= {("order", str(one["orderId"])): [int(one["leavesQty"])] for one in view["openOrders"]}
    return Present(opening.at_index, opening.account, figures)


def differences(present: Present, kept: Kept) -> list[Difference]:
    """Return where exchange and database disagree on one account."""
    keys = sorted(present.figures.keys() | kept.figures.keys())
    return [
        Difference(what, present.account, key, present.figures.get((what, key)), kept.figures.get((what, key)))
        for what, key in keys
        if present.figures.get((what, key)) != kept.figures.get((what, key))
    ]


def kept_in(book: Book) -> dict[int, Kept]:
    """Return what the database says, by account; a closed position is none."""
    found: dict[int, Kept] = {}
    for account, balance, _, index in book.balances:
        _keep(found, account, ("balance", ""), [balance], index)
    for account, symbol, quantity, cost, index in book.positions:
        _keep(found, account, ("position", symbol), [quantity, cost] if quantity else None, index)
    for order_id, account, quantity, index in book.orders:
        _keep(found, account, ("order", order_id), [quantity], index)
    return found


def _keep(found: dict[int, Kept], account: int, key: tuple[str, str], figures: list[int] | None, index: int) -> None:
    kept = found.get(account, NOTHING)
    added = {} if figures is None else {key: figures}
    found[account] = Kept(max(kept.newest, index), kept.figures | added)


async def _caught_up(database: Database, last_item: int) -> Book:
    """Return the database once it has all messages that the store had.  Raises: OperatorError when it does not come so far."""
    for _ in range(round(WAIT_S_MAX / WAIT_S)):
        book = await database.book()
        if book.last_index >= last_item:
            return book
        await asyncio.sleep(WAIT_S)
    what = f"The database ends at message {book.last_index}, the store at {last_item}"
    raise OperatorError(what, "Start python -m engine oms, or wait for it", UNABLE_EXIT)

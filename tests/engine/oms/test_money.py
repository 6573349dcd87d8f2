"""Balances and positions: the database has what the exchange has after the same messages, wherever it begins."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.core import commands as cm
from engine.core.accounts import Ledger
from engine.core.exchange import Exchange
from engine.oms.database import Book, Database, connect
from engine.oms.money import Opening, filled
from engine.oms.tables import Changes, Progress, decode
from engine.stores.message_builder import MessageBuilder
from tests.engine.core.test_accounts import random_command
from tests.engine.oms.ground import FIRST, NOW_NS, frames, query, sqlite_url

Held = dict[int, tuple[int, dict[str, tuple[int, int]]]]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database of each kind."""
    return sqlite_url(tmp_path) if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """Begun at the first message."""
    made = connect(url)
    assert await made.progress("oms") is None
    await made.begin("oms", FIRST)
    yield made
    await made.close()


class Life:
    """A random exchange: its messages, and what its accounts had after each."""

    def __init__(self, seed: int, count: int) -> None:
        dice, exchange = random.Random(seed), Exchange(MessageBuilder)
        self.messages: list[bytes] = []
        self.held: list[Held] = []
        self.indices: list[int] = []
        exchange.decide(1, NOW_NS, cm.CreateStore("oms"))
        for index in range(FIRST, count):
            command = random_command(dice, index)
            if index < FIRST + 2:
                command = cm.CreateInstrument(cm.Instrument("AB"[index - FIRST], taker_fee_ppm=600, maker_fee_ppm=-100), 100)
            exchange.decide(index, NOW_NS + index, command)
            if exchange.message:
                self.messages.append(exchange.message)
                self.held.append(held_by(exchange.state.ledger))
                self.indices.append(index)

    def openings(self, at: int) -> list[Opening]:
        return [Opening(number, self.indices[at], *held) for number, held in self.held[at].items()]


def held_by(ledger: Ledger) -> Held:
    return {
        number: (account.balance_units, {s: (p.lots, p.cost_units) for s, p in account.positions.items()})
        for number, account in ledger.accounts.items()
    }


def kept_in(book: Book) -> Held:
    held: Held = {row[0]: (row[1], {}) for row in book.balances}
    for account, symbol, quantity, cost, _ in book.positions:
        if quantity:
            held[account][1][symbol] = (quantity, cost)
    return held


async def write(database: Database, messages: list[bytes], step: int = 83) -> None:
    progress = await database.progress("oms")
    assert progress is not None
    for first in range(0, len(messages), step):
        changes = Changes(progress)
        for message in messages[first : first + step]:
            changes.add(decode(message))
        assert not changes.messages or await database.write("oms", changes)
        progress = Progress(FIRST, changes.last_index)


def nonzero(held: Held) -> Held:
    return {number: one for number, one in held.items() if one != (0, {})}


async def test_the_database_has_the_money_of_the_exchange(database: Database) -> None:
    """From the first message on: every balance, FEES and INSURANCE too, every position with its cost; transactions all there."""
    life = Life(5, 900)
    await database.open("oms", [])
    await write(database, life.messages)
    assert nonzero(kept_in(await database.book())) == nonzero(life.held[-1])


async def test_a_database_that_begins_late_takes_its_openings_from_the_exchange(database: Database) -> None:
    """Openings may be newer than the first messages that come: what they have already is not counted twice."""
    life = Life(6, 900)
    first, opened = 250, 300
    await database.open("oms", life.openings(opened))
    assert await database.opened("oms")
    start = Changes(Progress(life.indices[first] + 1, life.indices[first]))
    for message in life.messages[first + 1 :]:
        start.add(decode(message))
    start.after_index = FIRST - 1
    assert await database.write("oms", start)
    assert nonzero(kept_in(await database.book())) == nonzero(life.held[-1])


async def test_an_older_database_is_brought_up_to_date(url: str) -> None:
    """One with the three tables that there were before: opened twice, all is there that was, and the new tables are."""
    old = (
        "CREATE TABLE Orders (orderId TEXT PRIMARY KEY, clOrdID TEXT NOT NULL, account BIGINT NOT NULL, symbol TEXT NOT NULL, "
        "side TEXT NOT NULL, orderType TEXT NOT NULL, timeInForce TEXT NOT NULL, price DOUBLE PRECISION, stopPrice DOUBLE PRECISION, "
        "quantity BIGINT NOT NULL, openQuantity BIGINT NOT NULL, orderState TEXT NOT NULL, filledQuantity BIGINT NOT NULL, "
        "filledCost BIGINT NOT NULL, averagePrice DOUBLE PRECISION NOT NULL, lastUpdateTime TEXT NOT NULL, rejectionType TEXT, "
        "cancelReason TEXT, messageIndex BIGINT NOT NULL)",
        "CREATE TABLE MessageIndex (storeId TEXT PRIMARY KEY, firstIndex BIGINT NOT NULL, lastIndex BIGINT NOT NULL)",
        "INSERT INTO MessageIndex VALUES ('oms', 2, 1)",
        "INSERT INTO Orders VALUES ('7', 'a', 1, 'A', 'Buy', 'Limit', 'Day', 1.5, NULL, 5, 5, 'New', 0, 0, 0, 't', NULL, NULL, 7)",
    )
    run_all(url, old)
    for _ in range(2):
        database = connect(url)
        assert await database.progress("oms") == Progress(2, 1)
        await database.close()
    database = connect(url)
    assert not await database.opened("oms")
    await database.open("oms", [Opening(1, 1, 10, {"A": (2, 200)})])
    await write(database, frames(3, 60))
    assert len((await database.book()).balances) > 1
    await database.close()
    rows, _ = query(url, "SELECT clOrdID FROM Orders WHERE orderId = '7'")
    assert rows == [("a",)] or rows[0][0] != ""


def run_all(url: str, statements: tuple[str, ...]) -> None:
    connection: Any
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    else:
        import psycopg

        connection = psycopg.connect(url, autocommit=True)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_a_fill_is_what_the_ledger_makes_of_it() -> None:
    """Opening, adding, closing a part, turning: quantity and cost as the exchange has them, to the last unit."""
    dice, ledger = random.Random(1), Ledger()
    ledger.add_contract(cm.Instrument("X"), 100)
    held = (0, 0)
    for _ in range(2_000):
        lots = dice.choice((-1, 1)) * dice.randint(1, 20)
        value = lots * dice.randint(90, 110)
        ledger.fill("X", 1, lots, value)
        held = filled(*held, lots, value)
        position = ledger.accounts[1].positions.get("X")
        assert held == ((position.lots, position.cost_units) if position else (0, 0))

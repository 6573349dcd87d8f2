"""Bots on the real gateway in this process: they open the market, keep it going through refusals and restarts, and leave nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from engine.bots import runner as bots
from engine.bots.runner import Bots, BotsSettings
from engine.bots.traders import LEVELS, ORDERS_MAX
from engine.core import events as ev
from engine.core.commands import Resume, Suspend
from engine.journal.reader import read
from service.errors import OperatorError
from service.run import Shutdown
from service.settings import load
from tests.engine.gateway.ground import Ground, exchange
from tests.engine_process import TOKEN
from tests.servers import free_port
from tests.waiting import until

ACCOUNTS = range(1001, 1013)


@asynccontextmanager
async def trading(url: str, **settings: Any) -> AsyncIterator[Bots]:
    """Run the bots until the block ends; what they raise comes out."""
    shutdown = Shutdown()
    made = Bots(load(BotsSettings, **{"engine_url": url, "rate": 400, "api_token": SecretStr(TOKEN), **settings}), shutdown)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        if task.done():
            task.result()
        shutdown.ask()
        async with asyncio.timeout(10):
            await task


def levels(ground: Ground, symbol: str) -> int:
    """Return how many levels the thinner side of a book has."""
    market = ground.sequencer.state.markets.get(symbol)
    return min(len(list(market.book.levels(side))) for side in (0, 1)) if market else 0


def all_events(folder: Path) -> Iterator[ev.AnyEvent]:
    for record in read(folder):
        yield from ev.decode(record.payload)


async def test_bots_open_a_market_and_leave_nothing(tmp_path: Path) -> None:
    """From an empty exchange to twenty levels a side on two contracts; at the end no order of theirs is left."""
    async with exchange(tmp_path) as ground:
        async with trading(ground.url) as market:
            await until(lambda: all(levels(ground, s) >= LEVELS for s in ("BTC-PERP", "ETH-PERP")), 30)
            assert market.ready() == []
            assert all(len(ground.sequencer.state.ledger.accounts[a].orders) <= ORDERS_MAX for a in ACCOUNTS)
            assert all(ground.sequencer.state.ledger.accounts[a].deadline_ns for a in ACCOUNTS), "no dead-man timer"
        assert not ground.sequencer.state.orders
        ground.sequencer.state.ledger.audit()
    kinds = [type(event) for event in all_events(tmp_path)]
    refused = sum(kind in (ev.OrderRejected, ev.CancelRejected, ev.CommandRejected) for kind in kinds)
    assert refused < 0.05 * sum(kind is ev.OrderAccepted for kind in kinds)
    assert kinds.count(ev.Traded) > 10


async def test_bots_go_on_where_the_market_stands(tmp_path: Path) -> None:
    """A second run of the same seed uses no client id again, keeps the contracts and begins at the mark."""
    async with exchange(tmp_path) as ground:
        for _ in range(2):
            trades = ground.sequencer.state.trades
            async with trading(ground.url):
                await until(lambda before=trades: ground.sequencer.state.trades > before + 20, 30)  # type: ignore[misc]
    names = [(e.order.account, e.order.cl_ord_id) for e in all_events(tmp_path) if isinstance(e, ev.OrderAccepted)]
    assert len(set(names)) == len(names) > 40
    assert len({name.rsplit("-", 2)[0] for _, name in names}) == 2
    assert not [e for e in all_events(tmp_path) if isinstance(e, ev.OrderRejected) and e.reason == "DuplicateClOrdID"]
    assert sum(isinstance(e, ev.InstrumentCreated) for e in all_events(tmp_path)) == 2
    assert sum(isinstance(e, ev.Transferred) for e in all_events(tmp_path)) == len(ACCOUNTS)


async def test_bots_wait_out_a_suspension(tmp_path: Path) -> None:
    """Refused orders are no end: when trading goes on, so do they, and they say meanwhile what they wait for."""
    async with exchange(tmp_path) as ground, trading(ground.url) as market:
        await until(lambda: ground.sequencer.state.trades > 20, 30)
        await ground.sequencer.submit(Suspend("manual"))
        await until(lambda: any("TradingSuspended" in reason for reason in market.ready()), 10)
        before = ground.sequencer.state.trades
        await ground.sequencer.submit(Resume("manual"))
        await until(lambda: ground.sequencer.state.trades > before + 20, 30)
        await until(lambda: market.ready() == [], 10)


async def test_bots_outlive_the_engine(tmp_path: Path) -> None:
    """Gone and back on the same port: they go on, and what they believe of their orders is what the exchange says."""
    port = free_port()
    async with trading(f"http://127.0.0.1:{port}") as market:
        for life in range(3):
            async with _on_port(tmp_path, port) as ground:
                before = ground.sequencer.state.trades
                await until(lambda g=ground, b=before: g.sequencer.state.trades > b + 20, 30, f"life {life}")  # type: ignore[misc]
            await until(lambda: market.ready() != [], 10)
    names = [(e.order.account, e.order.cl_ord_id) for e in all_events(tmp_path) if isinstance(e, ev.OrderAccepted)]
    assert len(set(names)) == len(names)


async def test_bots_begin_again_on_an_exchange_that_forgot_them(tmp_path: Path) -> None:
    """An engine with an empty disk has neither contracts nor accounts: they are made again."""
    port = free_port()
    async with trading(f"http://127.0.0.1:{port}"):
        for life in ("first", "second"):
            folder = tmp_path / life
            await asyncio.to_thread(folder.mkdir)
            async with _on_port(folder, port) as ground:
                await until(lambda g=ground: g.sequencer.state.trades > 20, 30)  # type: ignore[misc]


@asynccontextmanager
async def _on_port(folder: Path, port: int) -> AsyncIterator[Ground]:
    """Run an engine on a port that stays the same over its lives."""
    ground = Ground(folder)
    ground.gateway.port = port
    await ground.gateway.start()
    try:
        yield ground
    finally:
        await ground.http.aclose()
        await ground.gateway.stop()
        await ground.sequencer.close()


async def test_a_bot_without_money_gets_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When too little is free, a deposit comes."""
    monkeypatch.setattr(bots, "MONEY_UNITS_MIN", 6 * 10**12)
    async with exchange(tmp_path) as ground, trading(ground.url):
        await until(lambda: all(_balance(ground, account) > 6 * 10**12 for account in ACCOUNTS), 30)


async def test_a_deposit_whose_answer_was_lost_is_done_once(tmp_path: Path) -> None:
    """The account looks as before when it is asked again: the same key, the same answer, the money once."""
    async with exchange(tmp_path) as ground:
        await ground.market()
        first, again = bots._deposit(7, "new"), bots._deposit(7, "new")
        answers = []
        for request in (first, again):
            headers = {"Idempotency-Key": request.key}
            answers.append(
                await ground.http.request(request.method, ground.url + request.path, json=request.body, headers=headers)
            )
        assert answers[0].content == answers[1].content
        assert _balance(ground, 7) == bots.MONEY_UNITS
        assert bots._deposit(7, bots.MONEY_UNITS).key != first.key


def _balance(ground: Ground, account: int) -> int:
    found = ground.sequencer.state.ledger.accounts.get(account)
    return found.balance_units if found else 0


async def test_a_refused_token_ends_with_what_to_do(tmp_path: Path) -> None:
    """At the start, and with the right one they trade."""
    async with exchange(tmp_path, token="secret") as ground:
        with pytest.raises(OperatorError, match="BOTS_API_TOKEN") as stopped:
            async with trading(ground.url, api_token=SecretStr("wrong")) as market:
                await until(lambda: market._gateway._http.closed, 10)
        assert stopped.value.exit_code == 3
        async with trading(ground.url, api_token=SecretStr("secret")):
            await until(lambda: ground.sequencer.state.trades > 5, 30)


async def test_the_rate_is_kept(tmp_path: Path) -> None:
    """Fifty a second are not a hundred, and not twenty."""
    async with exchange(tmp_path) as ground, trading(ground.url, rate=50):
        await until(lambda: ground.sequencer.state.trades > 0, 30)
        loop = asyncio.get_running_loop()
        before, began_s = _sent(), loop.time()
        await until(lambda: loop.time() - began_s > 2, 5)
        rate = (_sent() - before) / (loop.time() - began_s)
    assert 25 < rate < 60


def _sent() -> float:
    samples = [sample for metric in bots.COMMANDS.collect() for sample in metric.samples if sample.name.endswith("_total")]
    return sum(sample.value for sample in samples)


async def test_a_stop_while_the_engine_is_away_is_quick(tmp_path: Path) -> None:
    """Nobody to say goodbye to: the timer of the exchange does it."""
    began_s = asyncio.get_running_loop().time()
    async with trading(f"http://127.0.0.1:{free_port()}") as market:
        await until(lambda: any("ConnectionRefusedError" in reason for reason in market.ready()), 10)
    assert asyncio.get_running_loop().time() - began_s < 5


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a URL that is checked."""
    monkeypatch.setenv("ENGINE_URL", "http://engine:8181/")
    monkeypatch.setenv("BOTS_SEED", "11")
    monkeypatch.setenv("BOTS_RATE", "2.5")
    settings = load(BotsSettings)
    assert (settings.engine_url, settings.seed, settings.rate) == ("http://engine:8181", 11, 2.5)
    monkeypatch.setenv("BOTS_RATE", "0")
    with pytest.raises(OperatorError, match="BOTS_RATE"):
        load(BotsSettings)


async def test_the_admin_port_answers(tmp_path: Path) -> None:
    """Health and metrics as every component has them."""
    shutdown, port = Shutdown(), free_port()
    async with exchange(tmp_path) as ground:
        settings = load(
            BotsSettings, engine_url=ground.url, rate=200, admin_port=port, run_dir=tmp_path, api_token=SecretStr(TOKEN)
        )
        task = asyncio.create_task(bots.run(settings, shutdown))

        async def ready() -> bool:
            with contextlib.suppress(OSError, Exception):
                return (await ground.http.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
            return False

        await until(ready, 20)
        assert "tapeline_bots_commands_total" in (await ground.http.get(f"http://127.0.0.1:{port}/metrics")).text
        shutdown.ask()
        async with asyncio.timeout(10):
            await task

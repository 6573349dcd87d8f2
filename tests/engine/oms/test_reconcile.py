"""The reconciliation as operators call it: agreement, one line a difference, and what keeps it from comparing."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from engine.oms import reconcile
from engine.oms.consumer import OmsSettings
from service.errors import OperatorError
from service.settings import load
from tests.engine.gateway.ground import exchange
from tests.engine.oms.ground import query, sqlite_url
from tests.engine.oms.test_consumer import Consumer
from tests.engine.oms.test_money import run_all
from tests.engine_process import TOKEN
from tests.stack import ROOT
from tests.waiting import until


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database of each kind."""
    return sqlite_url(tmp_path) if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


async def test_database_and_exchange_agree_until_somebody_meddles(tmp_path: Path, url: str) -> None:
    """Orders, fills, a bracket; begun when accounts had money already. Each thing that is changed by hand is one line."""
    async with exchange(tmp_path / "journal") as ground:
        await ground.market(1, 2)
        await ground.order(1, "old", "Buy", 4, 100)
        await ground.order(2, "met", "Sell", 4, 100)
        consumer = Consumer(ground, url, api_token=SecretStr(TOKEN))
        settings = load(OmsSettings, engine_url=ground.url, database_url=url, api_token=SecretStr(TOKEN))
        exits: dict[str, Any] = {"takeProfit": {"clOrdID": "p", "price": 105}, "stopLoss": {"clOrdID": "l", "stopPx": 95}}
        try:
            await until(lambda: not consumer.oms.faults["engine"])  # it has joined, so that the openings are in
            await ground.order(1, "entry", "Buy", 10, 100, **exits)
            await ground.order(2, "other", "Sell", 6, 100)
            lines: list[str] = []
            assert await reconcile.run(settings, lines.append) == 0
            assert json.loads(lines[-1]) == {"accounts": 4, "differences": 0}
            positions, _ = query(url, "SELECT account, quantity FROM Positions ORDER BY account")
            assert positions == [(1, 10), (2, -10)]
        finally:
            await consumer.stop()
        run_all(url, ("UPDATE Balances SET balance = balance + 1 WHERE account = 1", "DELETE FROM Positions WHERE account = 2"))
        lines.clear()
        assert await reconcile.run(settings, lines.append) == 2
        told = [json.loads(line) for line in lines]
        assert [(one["what"], one["account"]) for one in told[:-1]] == [("balance", 1), ("position", 2)]
        assert (told[0]["database"][0] - told[0]["exchange"][0], told[1]["database"]) == (1, None)
        if url.startswith("sqlite"):
            await check_command(ground.url, url)


async def check_command(engine_url: str, url: str) -> None:
    """The command ends with 1 and prints the same lines."""
    environment = {**os.environ, "OMS_ENGINE_URL": engine_url, "OMS_DATABASE_URL": url, "OMS_API_TOKEN": TOKEN}
    command = [sys.executable, "-m", "engine", "oms", "reconcile"]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == reconcile.DIFFERENT_EXIT, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["differences"] == 2


async def test_what_cannot_be_compared_says_why(tmp_path: Path) -> None:
    """An engine that is away, and a database that no OMS has opened."""
    settings = load(OmsSettings, engine_url="http://127.0.0.1:9", database_url=sqlite_url(tmp_path))
    with pytest.raises(OperatorError, match="no balances of store 'oms' yet") as refused:
        await reconcile.run(settings)
    assert refused.value.exit_code == reconcile.UNABLE_EXIT
    run_all(sqlite_url(tmp_path), ("INSERT INTO Opened VALUES ('oms')",))
    with pytest.raises(OperatorError, match="Cannot compare"):
        await reconcile.run(settings)

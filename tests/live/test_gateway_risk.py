"""Orders over HTTP with ENGINE_RISK: the real engine, the real risk service and the real RabbitMQ between them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.risk.rules import TIMEOUT, UNAVAILABLE
from tests.engine.orders.ground import delete
from tests.engine_process import OPERATOR, EngineProcess
from tests.stack import ROOT, _die_with_parent
from tests.waiting import until

pytestmark = pytest.mark.live

BTC = {"symbol": "BTC-PERP", "tickSize": "0.5", "lotSize": "0.001", "markPrice": 50_000}
TIMEOUT_MS = 300


def started(folder: Path, url: str) -> subprocess.Popen[bytes]:
    """Start the sample risk service: five contracts at the most."""
    settings = {"ENGINE_ORDERS_URL": url, "RISK_POSITION_LOTS_MAX": "5", "RISK_ADMIN_PORT": "0"}
    environment = {"PATH": "/usr/bin:/bin", "RUN_DIR": str(folder), **settings}
    with (folder / "risk.log").open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "engine", "risk"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment,
            preexec_fn=_die_with_parent,
        )  # fmt: skip


async def test_nothing_passes_a_silent_risk_service_and_everything_goes_on_when_it_is_back(
    tmp_path: Path, rabbitmq_url: str
) -> None:
    """Rejected at the timeout, then at once while the breaker is open; half-open lets the service answer, limits hold."""
    await delete(rabbitmq_url)
    engine = EngineProcess(
        tmp_path, ENGINE_ORDERS_URL=rabbitmq_url, ENGINE_RISK="true", ENGINE_RISK_TIMEOUT_MS=str(TIMEOUT_MS)
    )  # fmt: skip
    engine.start()
    engine.ready()
    async with httpx.AsyncClient(base_url=engine.url, headers=OPERATOR, timeout=10, trust_env=False) as http:
        assert (await http.put("/Instrument", json=BTC)).status_code in (200, 201)
        assert (await http.post("/Account/1/Deposit", json={"amount": 10**12})).status_code < 300
        asked = 0

        async def place(lots: int = 1) -> httpx.Response:
            nonlocal asked
            asked += 1
            body = {"account": 1, "symbol": "BTC-PERP", "clOrdID": f"r{asked}", "side": "Buy", "orderQty": lots, "price": 50_000}
            return await http.post("/Order", json=body)

        def why(answer: httpx.Response) -> str:
            problem: dict[str, Any] = answer.json()
            assert (answer.status_code, problem["code"]) == (422, "RiskRejected"), answer.text
            return str(problem["detail"])

        began_s = time.monotonic()
        assert why(await place()).startswith(TIMEOUT)
        assert time.monotonic() - began_s >= TIMEOUT_MS / 1_000
        said = [why(await place()) for _ in range(6)]
        assert said[-1].startswith(UNAVAILABLE), "the breaker is open"
        assert (await http.delete("/Order/All?account=1")).status_code == 200, "a cancel takes no risk"
        assert (await http.get("/Account/1")).json()["openOrders"] == []

        service = started(tmp_path, rabbitmq_url)

        async def passed() -> bool:
            return (await place()).status_code == 201

        await until(passed, 30, "the breaker closes again", every_s=0.2)
        assert (await place(2)).status_code == 201
        assert why(await place(4)).startswith("position_limit")
        assert (await place(1)).status_code == 201
    service.send_signal(signal.SIGTERM)
    assert service.wait(20) == 0
    assert engine.end(signal.SIGTERM) == 0

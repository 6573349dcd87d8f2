"""The real process: what it refuses to start on, a disk that refuses in mid-service, and a clean end."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import ssl
import time
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import websockets

from engine.access.key_file import KeyFile
from engine.core.events import OrderAccepted, decode
from engine.journal.format import ENTRY, HEADER, PREFACE
from engine.journal.reader import read, segments
from engine.serve import Engine
from engine.settings import EngineSettings
from service.run import Shutdown
from tests.clusters.certificates import certified
from tests.engine_process import OPERATOR, EngineProcess
from tests.servers import free_port
from tests.waiting import until

BTC = {"symbol": "BTC-PERP", "tickSize": "0.5", "lotSize": "0.001", "markPrice": 50_000}
LIMIT_BYTES = 60_000


def order(name: str) -> dict[str, object]:
    return {"account": 1, "symbol": "BTC-PERP", "clOrdID": name, "side": "Buy", "orderQty": 1, "price": 50_000,
            "timeInForce": "ImmediateOrCancel"}  # fmt: skip


async def market(http: httpx.AsyncClient) -> None:
    """List a contract, open a rich account."""
    assert (await http.put("/Instrument", json=BTC)).status_code in (200, 201)
    assert (await http.post("/Account/1/Deposit", json={"amount": 10**12})).status_code < 300


async def test_a_standby_that_still_reads_its_journal_says_so(tmp_path: Path) -> None:
    """Its admin port answers and its heartbeat goes out before there is a sequencer to ask."""
    engine = Engine(EngineSettings(folder=tmp_path), AsyncExitStack(), Shutdown())
    assert engine._not_ready() == ["standby: it reads its journal"]
    assert engine._vitals().more == {"role": "standby"}


async def test_a_disk_that_refuses_loses_nothing_and_service_resumes(tmp_path: Path) -> None:
    """The kernel refuses to let files grow: 503 with what happened, not ready; with room everything acknowledged is there."""
    engine = EngineProcess(tmp_path)
    engine.start()
    engine.ready()
    assert engine.process is not None
    pid = engine.process.pid
    async with httpx.AsyncClient(base_url=engine.url, headers=OPERATOR, timeout=10, trust_env=False) as http:
        await market(http)
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (LIMIT_BYTES, hard))
        taken, refusal = [], None
        for number in range(5_000):
            answer = await http.post("/Order", json=order(f"a{number}"))
            if answer.status_code != 201:
                refusal = answer
                break
            taken.append(answer.json()["clOrdID"])
        assert refusal is not None
        assert refusal.status_code == 503
        assert refusal.headers["content-type"].startswith("application/problem+json")
        assert refusal.headers["retry-after"]
        assert refusal.json()["code"] == "JournalUnavailable"
        again = await http.post("/Order", json=order("again"))
        assert again.json()["code"] == "JournalUnavailable"
        assert "File too large" in again.json()["detail"]
        (reason,) = (await until(lambda: engine.readiness().get("reasons"), 5))[:1]
        assert "File too large" in reason
        assert (await http.get("/OrderBook?symbol=BTC-PERP")).status_code == 503, "nothing is shown that the disk may not have"
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        await until(lambda: engine.readiness().get("ready"), 20)
        for name in ("again", "more"):
            assert (await http.post("/Order", json=order(name))).status_code == 201
        taken += ["again", "more"]
    assert engine.end(signal.SIGTERM) == 0
    events = [event for record in read(tmp_path / "engine" / "journal") for event in decode(record.payload)]
    assert [event.order.cl_ord_id for event in events if isinstance(event, OrderAccepted)] == taken


async def test_a_damaged_journal_halts_with_the_index(tmp_path: Path) -> None:
    """One flipped bit in the middle: exit code 3, the index and the way out in one line; nothing is changed on the disk."""
    engine = EngineProcess(tmp_path)
    engine.start()
    engine.ready()
    async with httpx.AsyncClient(base_url=engine.url, headers=OPERATOR, timeout=10, trust_env=False) as http:
        await market(http)
        for number in range(20):
            await http.post("/Order", json=order(f"a{number}"))
    assert engine.end(signal.SIGTERM) == 0
    (path,) = segments(tmp_path / "engine" / "journal")
    content = bytearray(path.read_bytes())
    records = list(read(path.parent))
    sizes = [HEADER.size + ENTRY.size + len(r.payload) + len(r.message) + 1 for r in records[:10]]  # each a group by itself
    offset = PREFACE.size + sum(sizes) + HEADER.size + ENTRY.size + 3
    content[offset] ^= 1
    path.write_bytes(content)
    engine.start()
    assert engine.process is not None
    assert await asyncio.to_thread(engine.process.wait, 20) == 3
    last = engine.log.strip().splitlines()[-1]
    assert f"damaged at index {records[10].command_index}" in last
    assert "Redis stream" in last
    assert path.read_bytes() == content


async def test_one_folder_has_one_engine_and_one_port_one_gateway(tmp_path: Path) -> None:
    """The second one says what to do and leaves the first alone."""
    first = EngineProcess(tmp_path)
    first.start()
    first.ready()
    (tmp_path / "other").mkdir()
    for settings, said in (
        ({"ENGINE_DIR": str(tmp_path / "engine")}, "Another engine has"),
        ({"ENGINE_PORT": str(first.port)}, "set ENGINE_PORT to a free one"),
        ({"ENGINE_RISK": "true"}, "Set ENGINE_ORDERS_URL"),
    ):
        second = EngineProcess(tmp_path / "other", **settings)
        second.start()
        assert second.process is not None
        assert await asyncio.to_thread(second.process.wait, 20) in (2, 3)
        assert said in second.log.strip().splitlines()[-1]
        assert "Traceback" not in second.log
    async with httpx.AsyncClient(base_url=first.url, headers=OPERATOR, trust_env=False) as http:
        assert (await http.get("/Instrument")).status_code == 200
    assert first.end(signal.SIGTERM) == 0


async def test_time_alone_expires_orders_and_runs_out_timers(tmp_path: Path) -> None:
    """Without another command: a GTD order goes at its time, a CancelAllAfter cancels."""
    engine = EngineProcess(tmp_path)
    engine.start()
    engine.ready()
    async with httpx.AsyncClient(base_url=engine.url, headers=OPERATOR, timeout=10, trust_env=False) as http:
        await market(http)
        resting = {**order("timer"), "timeInForce": "GoodTillCancel"}
        assert (await http.post("/Order", json=resting)).status_code == 201
        assert (await http.put("/Order/CancelAllAfter?account=1&timeoutMillis=300")).status_code == 200

        async def gone() -> bool:
            return (await http.get("/Order?account=1&clOrdID=timer")).status_code == 404

        await until(gone, 10)
    assert engine.end(signal.SIGTERM) == 0


@pytest.mark.live
async def test_readiness_knows_risk_and_streams(tmp_path: Path, rabbitmq_url: str) -> None:
    """A Redis that is not there, a risk service that does not answer: both are said, with what they mean."""
    redis = f"redis://127.0.0.1:{free_port()}/0"
    settings = {
        "ENGINE_ORDERS_URL": rabbitmq_url,
        "ENGINE_RISK": "true",
        "ENGINE_RISK_TIMEOUT_MS": "50",
        "ENGINE_STREAMS_URL": redis,
    }
    engine = EngineProcess(tmp_path, **settings)
    engine.start()
    await until(lambda: any("streams: Redis at" in reason for reason in engine.readiness().get("reasons", [])), 30)
    async with httpx.AsyncClient(base_url=engine.url, headers=OPERATOR, timeout=10, trust_env=False) as http:
        await market(http)

        async def told() -> bool:
            refused = await http.post("/Order", json=order(f"r{time.monotonic_ns()}"))
            assert refused.json()["code"] == "RiskRejected", refused.text
            return any(reason.startswith("risk: ") for reason in engine.readiness()["reasons"])

        await until(told, 30, "readiness tells of the risk service")
    assert engine.end(signal.SIGTERM) == 0


async def test_an_exchange_without_keys_makes_its_first_one(tmp_path: Path) -> None:
    """Never open: the log says where the key is, which works until it is withdrawn, from another process, within a second."""
    engine = EngineProcess(tmp_path, ENGINE_API_TOKEN="")
    engine.start()
    engine.ready()
    path = tmp_path / "engine" / "operator.key"
    assert str(path) in engine.log
    key = path.read_text().strip()
    assert key not in engine.log
    assert path.stat().st_mode & 0o777 == 0o600
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=engine.url, timeout=10, trust_env=False) as http:
        assert (await http.get("/Instrument")).status_code == 200
        assert (await http.get("/Account")).status_code == 401
        assert (await http.get("/Account", headers=headers)).status_code == 200
        KeyFile(tmp_path / "engine" / "keys.json").withdraw(key.split("_")[1], time.time_ns())

        async def refused() -> bool:
            return (await http.get("/Account", headers=headers)).status_code == 401

        await until(refused, 10)
    assert engine.end(signal.SIGTERM) == 0


def test_keys_and_certificates_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    """At the start: what is wrong with which file, and what to do."""
    (tmp_path / "keys.json").write_text("{")
    (tmp_path / "pem").write_text("no certificate")
    files = {"ENGINE_TLS_CERT": str(tmp_path / "pem"), "ENGINE_TLS_KEY": str(tmp_path / "pem")}
    for settings, said in (
        ({"ENGINE_KEYS_FILE": str(tmp_path / "keys.json")}, "Mend or restore it"),
        (files, "Set ENGINE_TLS_CERT and ENGINE_TLS_KEY to a PEM chain and its key"),
        ({"ENGINE_TLS_CERT": str(tmp_path / "pem")}, "go together"),
        ({"ENGINE_API_TOKEN": "short"}, "at least 16"),
    ):
        engine = EngineProcess(tmp_path, **settings)
        engine.start()
        assert engine.process is not None
        assert engine.process.wait(30) in (2, 3)
        assert said in engine.log.strip().splitlines()[-1], engine.log
        assert "Traceback" not in engine.log


async def test_the_gateway_speaks_tls(tmp_path: Path) -> None:
    """With a certificate of its own, over HTTP and WebSocket; who speaks plain gets nothing."""
    certificate, key = certified(tmp_path)
    engine = EngineProcess(tmp_path, ENGINE_TLS_CERT=str(certificate), ENGINE_TLS_KEY=str(key))
    engine.start()
    engine.ready()
    trusted = ssl.create_default_context(cafile=str(certificate))
    url = f"https://127.0.0.1:{engine.port}"
    async with httpx.AsyncClient(base_url=url, headers=OPERATOR, timeout=10, trust_env=False, verify=trusted) as http:
        await market(http)
        async with websockets.connect(
            f"wss://127.0.0.1:{engine.port}/v1/trade", additional_headers=OPERATOR, ssl=trusted
        ) as socket:
            await socket.send(json.dumps({"op": "place", **order("tls")}))
            assert json.loads(await socket.recv())["results"][0]["status"] == 201
    async with httpx.AsyncClient(base_url=engine.url, timeout=10, trust_env=False) as http:
        with pytest.raises(httpx.TransportError):
            await http.get("/Instrument")
    assert engine.end(signal.SIGTERM) == 0

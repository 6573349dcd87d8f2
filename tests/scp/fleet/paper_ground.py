"""An exchange with a contract, a control plane on it, traders with accounts, and a reader of a paper account's stream."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import urllib.request
from pathlib import Path
from typing import Any

from tests.engine_process import OPERATOR, TOKEN, EngineProcess
from tests.scp.conftest import Person, ScpProcess
from tests.waiting import until_sync

BTC = {"symbol": "BTC-PERP", "tickSize": "0.5", "lotSize": "0.001", "lotTickUnits": 500}
TERMS = {"initialMargin": 0.05, "maintenanceMargin": 0.025, "priceBand": 0.1, "orderQtyMax": 500_000, "markPrice": 50_000}
ORDERS = "/api/v1/paper/orders"
STREAM = "/api/v1/paper/stream"


def exchange_in(folder: Path) -> EngineProcess:
    """Return an exchange with a contract, and nobody on it."""
    engine = EngineProcess(folder)
    engine.start()
    engine.ready()
    put(engine, "/Instrument", BTC | TERMS)
    return engine


def plane_of(engine: EngineProcess, folder: Path) -> ScpProcess:
    """Return a control plane that has an operator's key of an exchange."""
    started = ScpProcess(folder, SCP_ENGINE_URL=engine.url, SCP_ENGINE_TOKEN=TOKEN, WDS_PORT="1")
    assert started.admin
    return started


def put(engine: EngineProcess, path: str, body: Any) -> None:
    """Tell the exchange something as its operator."""
    headers = {**OPERATOR, "Content-Type": "application/json"}
    asked = urllib.request.Request(engine.url + path, json.dumps(body).encode(), headers, method="PUT")
    urllib.request.urlopen(asked, timeout=10).close()


def opened(plane: ScpProcess) -> Person:
    """Return a trader with an open account."""
    trader = plane.person("trader")
    assert trader.get("/api/v1/paper").body["account"] is None
    desk = trader.change("POST", "/api/v1/paper/account")
    assert desk.status == 200, desk.body
    assert desk.body["money"] == {"balance": 1e6, "equity": 1e6, "initial_margin": 0.0, "available": 1e6}
    return trader


def order(trader: Person, side: str, qty: int, price: float | None, key: str) -> Any:
    """Place an order."""
    body = {"symbol": "BTC-PERP", "side": side, "qty": qty, "price": price}
    return trader.change("POST", ORDERS, body, Idempotency_Key=key)


class Pushed:
    """A page that is pushed its paper account: every event in the sequence in which it came."""

    def __init__(self, trader: Person) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", trader.scp.port, timeout=30)
        self._http.request("GET", STREAM, headers={"Cookie": f"tapeline-{trader.scp.port}={trader.secret}"})
        self._socket = self._http.sock
        self.answer = self._http.getresponse()
        self.status = self.answer.status
        self.events: list[tuple[str, int | None, Any]] = []
        self.ended = threading.Event()
        if self.status == 200:
            threading.Thread(target=self._read, daemon=True).start()
        else:
            self.problem = json.load(self.answer)

    @property
    def desk(self) -> dict[str, Any]:
        """The account as it was pushed last, empty before that."""
        return next((data for kind, _, data in reversed(self.events) if kind == "desk"), {})

    @property
    def away(self) -> bool:
        """Whether the last word is that it may be old."""
        return next((kind == "away" for kind, *_ in reversed(self.events) if kind in ("desk", "away")), True)

    def until(self, what: Any, seconds: float = 20) -> None:
        """Wait until `what(desk)` is true."""
        until_sync(lambda: self.desk and what(self.desk), seconds, f"the push: {self.events[-2:]}")

    def close(self) -> None:
        """Go away."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        fields: dict[str, str] = {}
        try:
            while line := self.answer.readline():
                text = line.decode().rstrip("\n")
                if text:
                    name, _, value = text.partition(": ")
                    fields[name] = value
                elif "event" in fields:
                    seq = int(fields["id"]) if "id" in fields else None
                    self.events.append((fields["event"], seq, json.loads(fields["data"])))
                    fields = {}
                else:
                    fields = {}
        except (OSError, ValueError, http.client.HTTPException, AttributeError):
            pass
        self.ended.set()

"""Starts a real exchange behind its gateway on a real port, and sends the requests of tests and benchmarks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from engine.access.key_file import KeyFile
from engine.access.key_watch import KeyWatch
from engine.access.keys import Role, ranges
from engine.access.register import Register
from engine.gateway.app import Doors, GatewayServer
from engine.journal.journal import open_journal
from engine.journal.sequencer import Sequencer
from engine.recovery.replay import recover
from engine.standby.leader import Standbys
from engine.stores.message_builder import MessageBuilder
from engine.stores.message_log import MessageLog
from engine.stores.watch import StoreWatch
from service.clock import Clock, SystemClock
from tests.engine.lives import rebuilt
from tests.engine_process import TOKEN

BTC = {"symbol": "BTC-PERP", "tickSize": "0.5", "lotSize": "0.001", "markPrice": 100, "takerFee": 0.0005, "makerFee": -0.0001}
MONEY = 1_000_000_000


class Ground:
    """One engine: sequencer, messages, watch, gateway."""

    def __init__(
        self, folder: Path, token: str = TOKEN, clock: Clock | None = None, frames_max: int = 65_536, doors: Doors | None = None,
        sync_s: float = 0.0, snapshots: Path | None = None,
    ) -> None:  # fmt: skip
        self.snapshots = snapshots or folder.with_name(f"{folder.name}-snapshots")
        if snapshots is None:
            state, opened = rebuilt(folder, probing=False)
        else:
            state, opened = recover(folder, snapshots).state, open_journal(folder)
        self.folder = folder
        self.sequencer = Sequencer(state, opened, lambda: rebuilt(folder, probing=False), MessageBuilder, clock, sync_s=sync_s)
        self.messages = MessageLog(folder, frames_max=frames_max)
        self.messages.restore(list(state.stores.values()), self.sequencer.committed_index, self.sequencer.last_message_index)
        self.sequencer.on_commit(self.messages.on_commit)
        self.watch = StoreWatch(self.sequencer, self.messages, clock or SystemClock())
        self.keys = operators(folder.with_name(f"{folder.name}-keys"), token, clock)
        self.deposed: list[int] = []  # later terms that were heard of
        self.standbys = Standbys(
            self.sequencer,
            folder,
            self.snapshots,
            self.keys.file.path,
            clock or SystemClock(),
            lambda why: self.deposed.append(why.term),
        )
        self.standbys.sync = sync_s > 0
        self.gateway = GatewayServer(
            self.sequencer, self.messages, "127.0.0.1", 0, self.keys, clock, doors=doors, standbys=self.standbys
        )
        self.http = httpx.AsyncClient(timeout=30, trust_env=False, headers={"Authorization": f"Bearer {token}"})
        self.nobody = httpx.AsyncClient(timeout=30, trust_env=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.gateway.port}"

    def key(self, role: Role, accounts: str = "", **more: Any) -> dict[str, str]:
        """Make a key; return the header that shows it."""
        _, text = self.keys.file.create(self.keys.clock.wall_ns(), role, accounts=ranges(accounts), **more)
        self.keys.look()
        return {"Authorization": f"Bearer {text}"}

    @property
    def digest(self) -> str:
        return self.sequencer.state.digest()

    async def ask(self, method: str, path: str, status: int | None = 200, **body: Any) -> Any:
        """Return the JSON of an answer whose status must be `status`; keyword arguments are the JSON body."""
        answer = await self.http.request(method, self.url + path, json=body or None)
        assert status is None or answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        if answer.status_code >= 400:
            assert answer.headers["content-type"].startswith("application/problem+json"), answer.headers
            problem = answer.json()
            assert problem["status"] == answer.status_code
            assert {"type", "title", "detail", "code"} <= problem.keys()
        return answer.json()

    async def order(self, account: int, cl_ord_id: str, side: str, qty: int, price: float | str | None, **more: Any) -> Any:
        """Place an order in BTC-PERP."""
        terms = {"account": account, "symbol": "BTC-PERP", "clOrdID": cl_ord_id, "side": side, "orderQty": qty}
        return await self.ask("POST", "/Order", 201, **terms, **({} if price is None else {"price": price}), **more)

    async def market(self, *accounts: int) -> None:
        """List the contract and give money to accounts."""
        await self.ask("PUT", "/Instrument", **BTC)
        for account in accounts:
            await self.ask("POST", f"/Account/{account}/Deposit", amount=MONEY)


def operators(folder: Path, token: str = TOKEN, clock: Clock | None = None) -> KeyWatch:
    """Return the keys of a gateway that knows one operator, by a token."""
    keys = KeyWatch(KeyFile(folder / "keys.json"), Register(token, sockets_max=0), clock or SystemClock())
    keys.open(has_token=True)
    return keys


@asynccontextmanager
async def exchange(folder: Path, **more: Any) -> AsyncIterator[Ground]:
    """Run an engine until the block ends; the same folder again is the same engine after a restart."""
    ground = Ground(folder, **more)
    await ground.gateway.start()
    watching = asyncio.create_task(ground.watch.run())
    try:
        yield ground
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await ground.http.aclose()
        await ground.nobody.aclose()
        await ground.gateway.stop()
        await ground.sequencer.close()


def order_body(account: Any, cl_ord_id: Any, **more: Any) -> dict[str, Any]:
    """Return the body of a small order that rests."""
    return {"account": account, "symbol": "BTC-PERP", "clOrdID": cl_ord_id, "side": "Buy", "orderQty": 1, "price": 99, **more}


async def asked(ground: Ground, headers: dict[str, str], method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Return status and JSON of an answer; who asks is in the headers alone."""
    answer = await ground.nobody.request(method, ground.url + path, json=body, headers=headers)
    return answer.status_code, answer.json() if answer.content and "json" in answer.headers["content-type"] else None

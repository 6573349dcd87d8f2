"""Runs the trading bots, which keep the market alive through the exchange's gateway like anybody else.

python -m engine bots

They list the contracts and bring money when that is missing, go on through refusals, suspensions and restarts of the engine,
and begin again on one that has forgotten them. Their orders go when they go: cancelled at a stop, by the exchange's timer when
they die.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Any

import msgspec
import structlog
from pydantic import Field, SecretStr, field_validator

from engine.bots.connections import Connections
from engine.bots.market import FAIR_TICKS, LISTED
from engine.bots.requests import NS_PER_MS, Request, listing_of, reply_of, request_of, sight_of, ticks_of
from engine.bots.traders import Ask, Director, Fate, Look, Reply, Trader
from engine.core.commands import CancelAllAfter, Command
from service import metrics
from service.admin import AdminServer
from service.errors import OperatorError
from service.heartbeat import Heartbeat, Vitals
from service.run import Shutdown, backoff_s
from service.settings import ComponentSettings, admin_token, check_url, shown

log = structlog.get_logger()

HTTP_S_MAX = 5.0
GOODBYE_S_MAX = 3.0
UNDER_WAY_MAX = 32
SAY_EVERY_S = 30.0
LATE_S_MAX = 0.5  # further behind we do not catch up: the market would come in bursts
MONEY_UNITS, MONEY_UNITS_MIN = 5 * 10**12, 10**12  # five million at a time, when less than one is free
PAUSE_CODES = ("EngineBusy", "JournalUnavailable", "TradingSuspended")
UNKNOWN_CODES = ("UnknownSymbol", "UnknownAccount")  # the exchange began anew

COMMANDS = metrics.counter("bots", "commands", "Commands sent", ["kind"])
REFUSED = metrics.counter("bots", "refused_commands", "Commands that the exchange refused", ["code"])
LOST = metrics.counter("bots", "lost_commands", "Commands of which nobody knows what became")
REPLY = metrics.histogram("bots", "reply_ms", "Time from a command to its reply")


class BotsSettings(ComponentSettings):
    """What `python -m engine bots` reads."""

    engine_url: str = Field("http://127.0.0.1:8181", validation_alias="ENGINE_URL", description="the engine's gateway")
    seed: int = Field(7, validation_alias="BOTS_SEED", description="the same seed decides the same on the same replies")
    rate: float = Field(50.0, gt=0, le=5_000, validation_alias="BOTS_RATE", description="commands a second, at most")
    first_account: int = Field(
        1001, ge=1, le=10**9, validation_alias="BOTS_ACCOUNT", description="the first of the bots' 12 account numbers"
    )
    dead_ms: int = Field(
        30_000,
        ge=1_000,
        le=86_400_000,
        validation_alias="BOTS_DEAD_MS",
        description="when they die their orders go after so long",
    )
    api_token: SecretStr | None = Field(None, validation_alias="BOTS_API_TOKEN", description="an operator's key")
    admin_port: int = Field(9108, ge=0, le=65535, validation_alias="BOTS_ADMIN_PORT", description="0 = a free one")

    @field_validator("engine_url")
    @classmethod
    def _gateway(cls, value: str) -> str:
        return check_url(value, ("http", "https"), "http://127.0.0.1:8181").rstrip("/")


class EngineAway(Exception):
    """The gateway did not answer, or not now."""


class GatewayClient:
    """The exchange's gateway as the bots use it."""

    def __init__(self, settings: BotsSettings) -> None:
        token = settings.api_token
        headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        self._http = Connections(settings.engine_url, headers, HTTP_S_MAX)

    async def send(self, request: Request) -> tuple[int, Any]:
        """Return status and JSON of the answer.  Raises: EngineAway, OperatorError when our token is refused."""
        body = None if request.body is None else msgspec.json.encode(request.body)
        try:
            status, answer = await self._http.request(request.method, request.path, request.parameters, body, request.key)
        except OSError as error:
            raise EngineAway(f"{type(error).__name__} {error}".strip()) from None
        if status in (401, 403):
            raise OperatorError(
                f"The engine refuses our token ({status})",
                "Set BOTS_API_TOKEN to a key: python -m engine keys create --role operator",
                3,
            )
        with contextlib.suppress(msgspec.DecodeError):
            return status, msgspec.json.decode(answer)
        return status, {}

    async def call(self, request: Request) -> Any:
        """Return the JSON of an answer that must be good.  Raises: EngineAway, OperatorError."""
        status, found = await self.send(request)
        what = f"{request.method} {request.path}: {found}"
        if status >= 500 or status == 429:
            raise EngineAway(what)
        if status >= 400:
            raise OperatorError(f"The engine refused {what}", "Run engine and bots of the same release", 3)
        return found

    def close(self) -> None:
        self._http.close()


class Bots:
    """The market's people. `run()` until `shutdown`."""

    def __init__(self, settings: BotsSettings, shutdown: Shutdown) -> None:
        self.fault = "not connected"
        self._settings = settings
        self._shutdown = shutdown
        self._gateway = GatewayClient(settings)
        self._tick_sizes: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused = False  # the engine is away, busy or suspended
        self._forgotten = False  # the engine does not know our contracts or accounts
        self._failure: BaseException | None = None  # of a task: ends us
        self._said = ("", 0.0)  # the last warning, and when

    def ready(self) -> list[str]:
        """Return what keeps us from trading."""
        return [f"engine: {self.fault}"] if self.fault else []

    def vitals(self) -> Vitals:
        """Return what the heartbeat tells."""
        counted = {"commands": COMMANDS, "refused_commands": REFUSED, "lost_commands": LOST}
        return Vitals({name: metrics.total(counter) for name, counter in counted.items()})

    async def run(self) -> None:
        """Trade until the stop.  Raises: OperatorError."""
        try:
            while not self._shutdown.asked:
                director = await self._begin()
                if director is not None:
                    await self._drive(director)
        finally:
            await self._settle()
            await self._leave()
            self._gateway.close()

    # Before the market opens

    async def _begin(self) -> Director | None:
        """Make sure of contracts and money, however long the engine is away; None when the stop was asked for."""
        attempt = 0
        while not self._shutdown.asked:
            try:
                director = await self._set_up()
            except EngineAway as error:
                self._away(str(error))
            else:
                self.fault, self._forgotten = "", False
                return director
            await self._shutdown.sleep(backoff_s(attempt, random.random()))
            attempt += 1
        return None

    async def _set_up(self) -> Director:
        settings, fair_ticks = self._settings, {}
        for instrument in LISTED:
            await self._gateway.send(listing_of(instrument, FAIR_TICKS[instrument.symbol]))  # it may exist, with other terms
            (found,) = await self._gateway.call(Request("GET", "/Instrument", {"symbol": instrument.symbol}))
            self._tick_sizes[instrument.symbol] = found["tickSize"]
            fair_ticks[instrument.symbol] = ticks_of(found["tickSize"], found["markPrice"])
        index, dead_ns = 0, settings.dead_ms * NS_PER_MS
        for account in self._accounts():
            await self._fund(account)
            await self._gateway.call(_cancel_all(account))  # what another run has left
            index = int((await self._gateway.call(request_of(CancelAllAfter(account, dead_ns), {})))["messageIndex"])
        run = f"{settings.seed}-{index}"  # a timer is a journaled command: no later run gets this index
        log.info("bots_begin", run=run, fair_ticks=fair_ticks)
        return Director(settings.seed, run, fair_ticks, settings.first_account, time.monotonic_ns(), dead_ns)

    def _accounts(self) -> range:
        traders = Director(0, "", {instrument.symbol: 1 for instrument in LISTED}, 0, 0).traders
        return range(self._settings.first_account, self._settings.first_account + len(traders))

    async def _fund(self, account: int) -> None:
        status, found = await self._gateway.send(Request("GET", f"/Account/{account}", {}))
        if status == 404 or found.get("available", MONEY_UNITS) < MONEY_UNITS_MIN:
            await self._gateway.call(_deposit(account, found.get("balance", "new")))

    # The market

    async def _drive(self, director: Director) -> None:
        """Send commands at the rate until the stop, or until the engine has forgotten us."""
        interval_s, due_s = 1 / self._settings.rate, time.monotonic()
        attempt = 0
        while not self._shutdown.asked and not self._forgotten:
            if self._failure is not None:
                raise self._failure
            if self._paused:
                self._paused = False
                await self._shutdown.sleep(max(0.2, backoff_s(attempt, random.random())))
                attempt += 1
                director.look_again()
            elif not self.fault:
                attempt = 0
            self._turn(director)
            now_s = time.monotonic()
            due_s = max(due_s + interval_s, now_s - LATE_S_MAX)
            if due_s > now_s:
                await self._shutdown.sleep(due_s - now_s)
            else:
                await asyncio.sleep(0)

    def _turn(self, director: Director) -> None:
        """Send the next command, and any looks that come before it: they change nothing and are not counted."""
        while len(self._tasks) < UNDER_WAY_MAX:
            ask = director.next(time.monotonic_ns())
            if ask is None:
                return
            looking = isinstance(ask.command, Look)
            task = asyncio.create_task(self._look(director, ask.trader) if looking else self._send(director, ask))
            self._tasks.add(task)
            task.add_done_callback(self._done)
            if not looking:
                return

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failure = self._failure or failure

    async def _send(self, director: Director, ask: Ask) -> None:
        """Send a command and let its bot hear what became of it."""
        assert isinstance(ask.command, Command)
        began_s, reply = time.monotonic(), Reply(Fate.LOST)
        COMMANDS.labels(type(ask.command).__name__).inc()
        try:
            request = request_of(ask.command, self._tick_sizes, ask.trader.symbol if ask.trader else "")
            status, body = await self._gateway.send(request)
            reply = reply_of(status, body)
            REPLY.observe((time.monotonic() - began_s) * 1_000)
            self._heed(ask.command, reply)
        except EngineAway as error:
            self._away(str(error))
        finally:
            if reply.fate is Fate.LOST:
                LOST.inc()
            director.on_reply(ask, reply)

    def _heed(self, command: Command, reply: Reply) -> None:
        if reply.code in UNKNOWN_CODES:
            self._forgotten = True
        elif reply.code in PAUSE_CODES or reply.fate is Fate.LOST:
            self._away(reply.code)
        else:
            self.fault = ""
        if reply.fate is Fate.REFUSED:
            REFUSED.labels(reply.code).inc()
            log.debug("bots_refused", code=reply.code, command=str(command))

    def _away(self, why: str) -> None:
        now_s, (said, at_s) = time.monotonic(), self._said
        if why != said or now_s - at_s > SAY_EVERY_S:
            log.warning("bots_wait", reason=why, fix="Start the engine, or let it trade again")
            self._said = (why, now_s)
        self.fault = why
        self._paused = True

    async def _look(self, director: Director, trader: Trader | None) -> None:
        """Let a bot see its account, and bring money when little is left."""
        assert trader is not None
        try:
            status, body = await self._gateway.send(Request("GET", f"/Account/{trader.account}", {}))
        except EngineAway as error:
            self._away(str(error))
        else:
            if status == 200:
                sight = sight_of(body, trader.symbol, self._tick_sizes[trader.symbol])
                director.on_look(trader, sight.orders, sight.position_lots)
                if sight.available_units < MONEY_UNITS_MIN:
                    with contextlib.suppress(EngineAway, OperatorError):
                        await self._gateway.call(_deposit(trader.account, body["balance"]))
                return
            self._forgotten = self._forgotten or status == 404
            self._away(f"GET /Account: {status}")
        trader.busy = False

    async def _settle(self) -> None:
        """Let what is under way arrive: an order that comes after the last cancel would stay."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GOODBYE_S_MAX)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _leave(self) -> None:
        """Take all orders along; what cannot be reached now is left to the exchange's timer."""
        cancels = [self._gateway.call(_cancel_all(account)) for account in self._accounts()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S_MAX):
                await asyncio.gather(*cancels, return_exceptions=True)


def _cancel_all(account: int) -> Request:
    return Request("DELETE", "/Order/All", {"account": str(account)})


def _deposit(account: int, balance: int | str) -> Request:
    """Return the deposit for an account with this balance: whose answer is lost, it is done once although it is asked again."""
    return Request("POST", f"/Account/{account}/Deposit", {}, {"amount": MONEY_UNITS}, f"bots-{account}-{balance}")


async def run(settings: BotsSettings, shutdown: Shutdown) -> None:
    """Run the bots with their admin port until `shutdown`.  Raises: OperatorError."""
    log.info("bots_settings", **shown(settings))
    bots = Bots(settings, shutdown)
    admin = AdminServer(
        "bots", settings.admin_host, settings.admin_port, admin_token(settings), bots.ready, names=settings.host_names,
        drain=shutdown.ask,
    )  # fmt: skip
    await admin.start()
    heartbeat = Heartbeat("bots", settings, admin.port, bots.ready, bots.vitals)
    await heartbeat.start()
    log.info("bots_started", admin_port=admin.port)
    try:
        await bots.run()
    finally:
        await heartbeat.stop()
        await admin.stop()

"""Follows a message store into SQL tables: the order management system's view of the exchange, complete and exactly once.

python -m engine oms

Messages go into the database several at a time when we are behind, with their index in the same transaction; the store is purged
only up to what is committed, so that nothing is lost when this process, the database or the engine dies at any moment. What
comes twice is ignored. What is missing stops us: rows after a gap would look complete and not be.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import urlencode

import httpx
import structlog
from pydantic import Field, SecretStr, field_validator
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from engine.oms import database as oms_database
from engine.oms.database import Database, DatabaseUnavailable
from engine.oms.money import Opening
from engine.oms.tables import Changes, Gap, NotAMessage, Progress, StoredMessage, decode
from service import metrics
from service.admin import AdminServer
from service.clock import SystemClock
from service.errors import OperatorError
from service.heartbeat import Heartbeat, Vitals
from service.run import Shutdown, backoff_s
from service.settings import ComponentSettings, admin_token, check_url, shown

log = structlog.get_logger()
T = TypeVar("T")

ACCOUNTS_PAGE = 1_000
QUEUE_FRAMES = 1_000  # received and not yet written; then the engine waits, not our memory
FRAME_BYTES_MAX = 64 << 20
HTTP_S_MAX = 5.0
CLOSE_S_MAX = 2.0
KEY_FIX = "python -m engine keys create --role market-data"
NO_KEY = (4401, 4403)  # close codes: our key was withdrawn, or is for other stores
TRY_AGAIN = (1011, 1012, 1013, 4429)  # close codes: a fault of the engine, too many consumers
GAP_EXIT = 4
GAP_FIX = (
    "Keep this database as it is and follow on with a new one and a new store (OMS_DATABASE_URL, OMS_STORE). "
    "A store belongs to one consumer: nothing else may purge or delete it"
)
STEP_FIX = "Run engine and oms of the same release"

MESSAGES = metrics.counter("oms", "messages", "Messages committed to the database")
DUPLICATES = metrics.counter("oms", "duplicate_messages", "Messages that were in the database already")
TRADES = metrics.counter("oms", "trades", "Trades committed to the database")
TRANSACTIONS = metrics.counter("oms", "transactions", "Transactions committed")
FAULTS = metrics.counter("oms", "database_faults", "Database calls that failed and were tried again")
LAST = metrics.gauge("oms", "last_index", "Index of the last message committed")
PURGED = metrics.gauge("oms", "purged_index", "Index up to which the store was purged")
LAG = metrics.gauge("oms", "lag_ms", "Age of the last message when it was committed")


class OmsSettings(ComponentSettings):
    """What `python -m engine oms` reads."""

    engine_url: str = Field("http://127.0.0.1:8181", validation_alias="OMS_ENGINE_URL", description="the engine's gateway")
    store: str = Field("oms", max_length=64, validation_alias="OMS_STORE", description="message store of our own")
    database_url: str = Field(
        "", validation_alias="OMS_DATABASE_URL", description="sqlite:///path or postgresql://…; empty = RUN_DIR/oms.sqlite"
    )
    api_token: SecretStr | None = Field(None, validation_alias="OMS_API_TOKEN", description="key for the gateway, market-data")
    batch_max: int = Field(500, ge=1, le=10_000, validation_alias="OMS_BATCH_MAX", description="messages a transaction, at most")
    purge_ms: int = Field(1_000, ge=10, validation_alias="OMS_PURGE_MS", description="between purges of the store")
    admin_port: int = Field(9107, ge=0, le=65535, validation_alias="OMS_ADMIN_PORT", description="0 = a free one")

    @field_validator("engine_url")
    @classmethod
    def _gateway(cls, value: str) -> str:
        return check_url(value, ("http", "https"), "http://127.0.0.1:8181").rstrip("/")

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.run_dir / 'oms.sqlite'}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_token.get_secret_value()}"} if self.api_token else {}


class GatewayUnavailable(Exception):
    """The engine is away, busy or restarting: waiting mends it."""


class Stopped(Exception):
    """The stop was asked for while the database was away."""


class Stores:
    """The engine's message-store calls. Each raises GatewayUnavailable, or OperatorError for a refusal."""

    def __init__(self, settings: OmsSettings) -> None:
        self.name = settings.store.strip('"')
        self.parameter = self.name or '""'  # the default store's way to say its name
        self._http = httpx.AsyncClient(
            base_url=settings.engine_url, headers=settings.headers, timeout=HTTP_S_MAX, trust_env=False
        )

    async def find(self) -> int | None:
        """Return the index after which our store begins, None when there is no such store."""
        stores = await self._call("GET", "/MessageStore/")
        return next((int(store["firstItemIndex"]) for store in stores if store["storeId"] == self.name), None)

    async def create(self) -> int:
        """Make our store; return the index after which it begins."""
        return int((await self._call("PUT", "/MessageStore", storeId=self.parameter))["firstItemIndex"])

    async def purge(self, index: int) -> None:
        """Let the engine forget everything up to `index`."""
        await self._call("DELETE", "/MessageStore/Purge", storeId=self.parameter, messageIndex=str(index))

    async def openings(self) -> list[Opening]:
        """Return what the exchange says of each account now, each as of its own command. Cost: one call an account."""
        found, after = [], -2
        while page := await self._call("GET", "/Account", after=str(after), limit=str(ACCOUNTS_PAGE)):
            found += [opening_of(await self.account(one["account"])) for one in page]
            after = page[-1]["account"]
        return found

    async def account(self, number: int) -> Any:
        """Return an account as the gateway shows it."""
        return await self._call("GET", f"/Account/{number}")

    async def last_item(self) -> int:
        """Return the index of the newest message in our store.  Raises: Gap when there is no such store."""
        stores = await self._call("GET", "/MessageStore/")
        for store in stores:
            if store["storeId"] == self.name:
                return int(store["lastItemIndex"])
        raise Gap(f"the engine has no store {self.name!r}")

    async def close(self) -> None:
        await self._http.aclose()

    async def _call(self, method: str, path: str, **parameters: str) -> Any:
        try:
            answer = await self._http.request(method, path, params=parameters)
        except httpx.HTTPError as error:
            raise GatewayUnavailable(f"{type(error).__name__} {error}".strip()) from None
        if answer.status_code >= 500 or answer.status_code == 429:
            raise GatewayUnavailable(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        if answer.status_code in (401, 403):
            raise _no_token(answer.status_code)
        if answer.is_error:
            raise OperatorError(f"The engine refused {method} {path}: {answer.text[:300]}", STEP_FIX, 3)
        return answer.json() if answer.content else None


def opening_of(view: Any) -> Opening:
    """Return what an account's view says of its money."""
    positions = {one["symbol"]: (int(one["qty"]), int(one["entryValue"])) for one in view["positions"]}
    return Opening(int(view["account"]), int(view["messageIndex"]), int(view["balance"]), positions)


def _no_token(status: int) -> OperatorError:
    return OperatorError(f"The engine refuses our token ({status})", f"Set OMS_API_TOKEN to a key: {KEY_FIX}", 3)


class Oms:
    """One consumer. `run()` until `shutdown`; then what was received is written and the store purged a last time."""

    def __init__(self, settings: OmsSettings, database: Database, shutdown: Shutdown) -> None:
        self.faults = {"engine": "not connected", "database": "not opened"}  # what keeps us from being ready
        self._settings = settings
        self._database = database
        self._shutdown = shutdown
        self._stores = Stores(settings)
        self._progress: Progress | None = None
        self._lag_ms = 0
        self._purged_index = 0
        self._clock = SystemClock()

    def ready(self) -> list[str]:
        """Return what keeps us from being ready."""
        return [f"{what}: {fault}" for what, fault in self.faults.items() if fault]

    def vitals(self) -> Vitals:
        """Return what the heartbeat tells."""
        counted = {name: metrics.total(counter) for name, counter in (("messages", MESSAGES), ("trades", TRADES))}
        index = self._progress.last_index if self._progress is not None else None
        return Vitals(counted, self._lag_ms, more={"store": self._stores.name, "last_index": index})

    async def run(self) -> None:
        """Follow the store until the stop.  Raises: OperatorError for a gap and for what only an operator mends."""
        purging = asyncio.create_task(self._purge_on())
        try:
            with contextlib.suppress(Stopped):
                await self._follow()
        except (Gap, NotAMessage) as error:
            raise OperatorError(f"Store {self._stores.name!r}: {error}", _fix(error), GAP_EXIT) from None
        finally:
            purging.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await purging
            await self._purge()
            await self._stores.close()
            await self._database.close()

    async def _follow(self) -> None:
        attempt = 0
        while not self._shutdown.asked:
            before = self._progress
            try:
                await self._session()
            except InvalidStatus as refusal:
                status = refusal.response.status_code
                if status in (400, 401, 403, 422):
                    raise _refused(status, refusal.response.body) from None
                self._disconnected(f"the gateway answers {status}")
            except (GatewayUnavailable, ConnectionClosed, InvalidHandshake, OSError) as error:
                if self._shutdown.asked:
                    return
                self._disconnected(f"{type(error).__name__} {error}".strip())
            attempt = 0 if self._progress != before else attempt + 1
            await self._shutdown.sleep(backoff_s(attempt, random.random()))

    def _disconnected(self, why: str) -> None:
        self.faults["engine"] = why
        log.warning("oms_disconnected", reason=why, fix="Start the engine; nothing is lost meanwhile")

    async def _session(self) -> None:
        """Follow the store over one connection."""
        progress = self._progress = await self._stand()
        query = urlencode({"storeId": self._stores.parameter, "lastSeen": progress.last_index})
        url = f"ws{self._settings.engine_url.removeprefix('http')}/joined?{query}"
        async with connect(
            url,
            additional_headers=self._settings.headers,
            max_size=FRAME_BYTES_MAX,
            close_timeout=CLOSE_S_MAX,
            proxy=None,
            compression=None,
        ) as socket:
            self.faults["engine"] = ""
            log.info("oms_joined", store=self._stores.name, last_index=progress.last_index)
            queue: asyncio.Queue[StoredMessage | None] = asyncio.Queue(QUEUE_FRAMES)
            reading = asyncio.create_task(_read(socket, queue))
            closing = asyncio.create_task(self._close_on_stop(socket))
            try:
                while batch := await self._batch(queue):
                    await self._store(batch)
                await reading
            finally:
                for task in (reading, closing):
                    task.cancel()
                await asyncio.gather(reading, closing, return_exceptions=True)

    async def _close_on_stop(self, socket: ClientConnection) -> None:
        await self._shutdown.wait()
        await socket.close()

    async def _stand(self) -> Progress:
        """Return where the database stands; begin a new one where our store begins."""
        name = self._stores.name
        progress = await self._retried(lambda: self._database.progress(name))
        begins = await self._stores.find()
        if progress is None:
            after = await self._stores.create() if begins is None else begins
            await self._retried(lambda: self._database.begin(name, after + 1))
            log.info("oms_begins", store=name, after_index=after)
            progress = Progress(after + 1, after)
        elif begins is None:
            raise Gap(f"the engine has no such store any more, and the database follows it since message {progress.first_index}")
        if not await self._retried(lambda: self._database.opened(name)):
            openings = await self._stores.openings()
            await self._retried(lambda: self._database.open(name, openings))
            log.info("oms_opened", store=name, accounts=len(openings))
        return progress

    async def _batch(self, queue: asyncio.Queue[StoredMessage | None]) -> list[StoredMessage]:
        """Return what has been received, at least one message; nothing when the connection has ended."""
        frame = await queue.get()
        batch = [] if frame is None else [frame]
        while batch and len(batch) < self._settings.batch_max and not queue.empty():
            frame = queue.get_nowait()
            if frame is None:
                queue.put_nowait(None)  # for the next call; who put it there puts nothing more
                break
            batch.append(frame)
        return batch

    async def _store(self, frames: list[StoredMessage]) -> None:
        """Commit messages, however long the database is away.  Raises: Gap, after what is before it; Stopped."""
        attempt = 0
        while True:
            assert self._progress is not None, "a session begins where the database stands"
            changes, gap = _collect(self._progress, frames)
            if not changes.messages or await self._written(changes):
                break
            # The answer may have been lost, or another writer was here: only the database knows where it stands.
            await self._pause(attempt)
            self._progress = await self._retried(lambda: self._database.progress(self._stores.name))
            attempt += 1
        if changes.messages:
            self._progress = Progress(changes.first_index, changes.last_index)
            self._count(changes)
        if gap is not None:
            raise gap
        DUPLICATES.inc(len(frames) - changes.messages)

    async def _pause(self, attempt: int) -> None:
        if await self._shutdown.sleep(backoff_s(attempt, random.random())):
            raise Stopped

    async def _written(self, changes: Changes) -> bool:
        try:
            written = await self._database.write(self._stores.name, changes)
        except DatabaseUnavailable as error:
            self._lost_database(error)
            return False
        self.faults["database"] = ""
        if not written:
            log.warning("oms_other_writer", store=self._stores.name, fix="Run one oms on a database")
        return written

    def _count(self, changes: Changes) -> None:
        MESSAGES.inc(changes.messages)
        TRADES.inc(len(changes.trades))
        TRANSACTIONS.inc()
        LAST.set(changes.last_index)
        self._lag_ms = max(0, self._clock.wall_ns() // 1_000_000 - changes.time_ms())
        LAG.set(self._lag_ms)

    async def _retried(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what the database answers, however long it takes.  Raises: Stopped, OperatorError."""
        attempt = 0
        while True:
            try:
                answer = await work()
            except DatabaseUnavailable as error:
                self._lost_database(error)
                await self._pause(attempt)
                attempt += 1
            else:
                self.faults["database"] = ""
                return answer

    def _lost_database(self, error: DatabaseUnavailable) -> None:
        FAULTS.inc()
        self.faults["database"] = str(error)
        log.warning("oms_database_unavailable", error=str(error), fix="Mend the database; the engine keeps the messages")

    # The store forgets what is committed

    async def _purge_on(self) -> None:
        while not await self._shutdown.sleep(self._settings.purge_ms / 1_000):
            await self._purge()

    async def _purge(self) -> None:
        """Purge up to what is committed; a purge that fails is made up for by the next one."""
        progress = self._progress
        if progress is None or progress.last_index < max(progress.first_index, self._purged_index + 1):
            return
        try:
            await self._stores.purge(progress.last_index)
        except GatewayUnavailable as error:
            log.warning("oms_purge_failed", index=progress.last_index, error=str(error))
        except OperatorError as error:  # a store that is gone ends the next session, with what to do
            log.error("oms_purge_refused", index=progress.last_index, error=str(error))
        else:
            self._purged_index = progress.last_index
            PURGED.set(progress.last_index)


async def _read(socket: ClientConnection, queue: asyncio.Queue[StoredMessage | None]) -> None:
    """Put frames into the queue, and None when there are no more.

    Raises: Gap, NotAMessage, ConnectionClosed, GatewayUnavailable.
    """
    try:
        while True:
            frame = await socket.recv(decode=False)
            try:
                await queue.put(decode(frame))
            except Gap as word:
                code = await _close_code(socket)
                if code in TRY_AGAIN:
                    raise GatewayUnavailable(str(word)) from None
                if code in NO_KEY:
                    raise _no_token(code) from None
                raise
    except Exception:  # not when we are cancelled: nobody makes room in the queue then
        await queue.put(None)
        raise


async def _close_code(socket: ClientConnection) -> int | None:
    """Return the code after the engine's last word: it says whether coming again may help."""
    with contextlib.suppress(ConnectionClosed, TimeoutError):
        async with asyncio.timeout(CLOSE_S_MAX):
            await socket.recv()
    return socket.close_code


def _collect(progress: Progress, frames: list[StoredMessage]) -> tuple[Changes, Gap | None]:
    """Return the rows of messages, up to a gap."""
    changes = Changes(progress)
    try:
        for frame in frames:
            changes.add(frame)
    except Gap as gap:
        return changes, gap
    return changes, None


def _fix(error: Exception) -> str:
    return GAP_FIX if isinstance(error, Gap) else STEP_FIX


def _refused(status: int, body: bytes | bytearray) -> OperatorError:
    if status in (401, 403):
        return _no_token(status)
    return OperatorError(f"The engine refuses us ({status}): {body.decode(errors='replace')[:300]}", GAP_FIX, GAP_EXIT)


async def run(settings: OmsSettings, shutdown: Shutdown) -> None:
    """Run the consumer with its admin port until `shutdown`.  Raises: OperatorError."""
    log.info("oms_settings", **shown(settings))
    oms = Oms(settings, oms_database.connect(settings.database), shutdown)
    admin = AdminServer(
        "oms", settings.admin_host, settings.admin_port, admin_token(settings), oms.ready, names=settings.host_names,
        drain=shutdown.ask,
    )  # fmt: skip
    await admin.start()
    heartbeat = Heartbeat("oms", settings, admin.port, oms.ready, oms.vitals)
    await heartbeat.start()
    log.info("oms_started", admin_port=admin.port)
    try:
        await oms.run()
    finally:
        await heartbeat.stop()
        await admin.stop()

"""HTTP routes of message stores, and `/joined`: the WebSocket on which a consumer gets one text message a command index.

A consumer that cannot be served is told why in one message that is a JSON string, then the socket is closed. A slow one costs
one batch of memory: sending waits for its socket, and what it has not taken is read from the journal later.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Annotated, Any

import msgspec
import structlog
from litestar import WebSocket, delete, get, put, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.openapi.spec import Example
from litestar.params import QueryParameter
from litestar.types import ControllerRouterHandler, Scope

from engine.access.keys import Caller
from engine.access.register import Register, TooManySockets
from engine.core.commands import ConfigureStore, CreateStore, DeleteStore, PurgeStore
from engine.core.events import RejectReason
from engine.core.exchange import AGE_MS_MAX
from engine.core.state import Store
from engine.core.units import WHOLE_MAX
from engine.gateway.bodies import DeletedView, PurgeableView, PurgeView, StoreView
from engine.gateway.door import caller_of
from engine.gateway.orders import OrderDesk
from engine.gateway.problems import Refused, problems, rejected
from engine.gateway.sessions.private_streams import STORE as PRIVATE
from engine.journal.reader import JournalDamaged
from engine.journal.sequencer import Sequencer
from engine.stores.message_log import MessageLog, Purged, Reader, StoreGone
from engine.stores.rules import PREFIX, age_ms, first_item, gap, start, store_of
from engine.stores.watch import holdings
from service.clock import Clock

CONSUMERS_MAX = 256
TURN_FRAMES = 64
# Why a feed ended: 4400 bad parameters, 4401 the key was withdrawn, 4403 another key's store, 4404 no such store,
# 4410 messages are missing, 4429 too many, 1011 our fault
BAD, WITHDRAWN, FOREIGN, UNKNOWN, GONE, TOO_MANY, FAULT = 4400, 4401, 4403, 4404, 4410, 4429, 1011
LATER = 1013  # the journal takes nothing now: come again
INDEX = re.compile(r"\d{1,18}")

StoreQuery = Annotated[
    str,
    QueryParameter(
        name="storeId",
        max_length=64,
        description='the store; nothing or `""` (%22%22) is the default one',
        examples=[Example(value="oms")],
    ),
]
IndexQuery = Annotated[
    int,
    QueryParameter(name="messageIndex", ge=0, le=WHOLE_MAX, description="the last message that was processed; it is purged, too"),
]
AgeQuery = Annotated[
    int,
    QueryParameter(
        name="maximumUnpurgedItemAgeMillis",
        ge=1,
        le=AGE_MS_MAX,
        description="from this age of its oldest message on the store suspends trading; six hours when it is created",
    ),
]
ForceQuery = Annotated[bool, QueryParameter(name="force", description="delete it although it holds messages or has consumers")]

log = structlog.get_logger()


class StoreDesk:
    """What stores hold, and the commands that change them."""

    def __init__(self, sequencer: Sequencer, messages: MessageLog, desk: OrderDesk, clock: Clock, register: Register) -> None:
        self.register = register
        self.messages = messages
        self.desk = desk
        self._sequencer = sequencer
        self._clock = clock

    @property
    def last_index(self) -> int:
        return self._sequencer.committed_index

    @property
    def refusal(self) -> str:
        """Why the state may be ahead of the journal; empty when it is not."""
        return self._sequencer.refusal

    def store(self, store_id: str) -> Store:
        """Raises: Refused."""
        store = self._sequencer.state.stores.get(store_id)
        if store is None:
            raise rejected(RejectReason.UNKNOWN_STORE)
        return store

    def views(self) -> list[StoreView]:
        """Return all stores. Cost: O(stores × (consumers + log messages))."""
        state, now_ns = self._sequencer.state, self._clock.wall_ns()
        found = []
        for held in holdings(state, self.messages):
            store = state.stores[held.store_id]
            first = first_item(store)
            view = StoreView(
                store_id=held.store_id, first_item_index=first,
                last_item_index=max(first, self.messages.message_index) if held.messages else first, item_count=held.messages,
                oldest_item_age_millis=age_ms(held, now_ns), maximum_unpurged_item_age_millis=held.age_ms_max,
                suspended=PREFIX + held.store_id in state.suspended, consumers=self.consumers(held.store_id),
            )  # fmt: skip
            found.append(view)
        return found

    def view(self, store_id: str) -> StoreView:
        """Return one store.  Raises: Refused."""
        self.store(store_id)
        return next(view for view in self.views() if view.store_id == store_id)

    def consumers(self, store_id: str) -> int:
        """Return how many consumers are connected."""
        return sum(reader.store_id == store_id for reader in self.messages.readers)

    async def delete(self, caller: Caller, store_id: str, force: bool) -> DeletedView:
        """Forget a store.  Raises: Refused while it is in use, unless `force`."""
        view = self.view(store_id)
        if not force and (view.item_count or view.consumers):
            raise Refused(
                409, "StoreInUse",
                f"The store holds {view.item_count} messages and has {view.consumers} consumers; force=true deletes it anyway.",
            )  # fmt: skip
        return await self.desk.answer(caller, DeleteStore(store_id), lambda outcome: DeletedView(outcome.index, store_id))

    def purgeable(self, store_id: str, message_index: int) -> PurgeableView:
        """Return what a purge up to an index would take.  Raises: Refused."""
        store, index = self.store(store_id), min(message_index, self.last_index)
        return PurgeableView(self.last_index, store_id, max(index, store.purged_index), self.messages.count(store_id, index))

    async def purge(self, caller: Caller, store_id: str, message_index: int) -> PurgeView:
        """Acknowledge the messages up to an index.  Raises: Refused."""
        upto, store = message_index, self._sequencer.state.stores.get(store_id)
        if store is not None and message_index <= self.last_index:
            upto = self.messages.last_message(message_index, store.purged_index)
        return await self.desk.answer(
            caller, PurgeStore(store_id, upto),
            lambda outcome: PurgeView(outcome.index, store_id, self.store(store_id).purged_index),
            ("purge", store_id, message_index),
        )  # fmt: skip


def readable(caller: Caller, store_id: str) -> str:
    """Return a store's name.  Raises: Refused when it is none of the caller's."""
    name = store_of(store_id)
    if not caller.may_read(name):
        raise Refused(403, "ForeignStore", f"The message store {name[:64]!r} is none of this key's.")
    return name


def routes(stores: StoreDesk) -> list[ControllerRouterHandler]:
    """Return the handlers of message stores."""

    @get("/MessageStore", responses=problems(), tags=["stores"], summary="The message stores and what they hold")
    async def message_stores(scope: Scope) -> list[StoreView]:
        caller = caller_of(scope)
        return [view for view in stores.views() if caller.may_read(view.store_id)]

    @put(
        "/MessageStore",
        responses=problems(422),
        tags=["stores"],
        summary="Create a message store; one that exists stays as it is",
    )
    async def create(scope: Scope, store_id: StoreQuery = "") -> StoreView:
        name = readable(caller_of(scope), store_id)
        return await stores.desk.answer(caller_of(scope), CreateStore(name), lambda _: stores.view(name))

    @delete("/MessageStore", status_code=200, responses=problems(404, 409), tags=["stores"], summary="Delete a message store")
    async def remove(scope: Scope, store_id: StoreQuery = "", force: ForceQuery = False) -> DeletedView:
        return await stores.delete(caller_of(scope), store_of(store_id), force)

    @delete(
        "/MessageStore/Purge",
        status_code=200,
        responses=problems(404),
        tags=["stores"],
        summary="Acknowledge messages up to an index",
    )
    async def purge(message_index: IndexQuery, scope: Scope, store_id: StoreQuery = "") -> PurgeView:
        name = readable(caller_of(scope), store_id)
        return await stores.purge(caller_of(scope), name, message_index)

    @get("/MessageStore/Purge", responses=problems(404), tags=["stores"], summary="How many messages a purge would take")
    async def purgeable(message_index: IndexQuery, scope: Scope, store_id: StoreQuery = "") -> PurgeableView:
        return stores.purgeable(readable(caller_of(scope), store_id), message_index)

    @put(
        "/MessageStore/Suspension",
        responses=problems(404, 422),
        tags=["stores"],
        summary="From which age on a store suspends trading",
    )
    async def suspension(maximum_unpurged_item_age_millis: AgeQuery, scope: Scope, store_id: StoreQuery = "") -> StoreView:
        command = ConfigureStore(store_of(store_id), maximum_unpurged_item_age_millis)
        return await stores.desk.answer(caller_of(scope), command, lambda _: stores.view(store_of(store_id)))

    @websocket("/joined")
    async def joined(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        if stores.refusal:
            await socket.close(LATER)
        else:
            await _serve(socket, stores)

    return [message_stores, create, remove, purge, purgeable, suspension, joined]


async def _serve(socket: WebSocket[Any, Any, Any], stores: StoreDesk) -> None:
    """Send frames until the consumer goes, or cannot be served."""
    caller = caller_of(socket.scope)
    reader = _admit(socket, stores, caller)
    if not isinstance(reader, Reader):
        await _explain(socket, *reader)
        return
    pump = asyncio.create_task(_pump(socket, reader))
    try:
        place = stores.register.enter(caller, pump.cancel)
    except TooManySockets as error:
        pump.cancel()
        reader.close()
        await _explain(socket, TOO_MANY, str(error))
        return
    listening = asyncio.create_task(_listen(socket))
    try:
        await asyncio.wait((pump, listening), return_when=asyncio.FIRST_COMPLETED)
    finally:
        withdrawn = pump.cancelled()
        stores.register.leave(place)
        reader.close()
        for task in (pump, listening):
            task.cancel()
        await asyncio.gather(pump, listening, return_exceptions=True)
    if withdrawn:
        await _explain(socket, WITHDRAWN, "The key was withdrawn or has expired.")
    elif not pump.cancelled() and (why := pump.result()) is not None:
        await _explain(socket, *why)


def _admit(socket: WebSocket[Any, Any, Any], stores: StoreDesk, caller: Caller) -> Reader | tuple[int, str]:
    """Return a consumer's reader, or the code and the text to send it away with."""
    query = socket.query_params
    name, seen = store_of(query.get("storeId", "")), query.get("lastSeen", "")
    if seen and not INDEX.fullmatch(seen):
        return BAD, f"lastSeen={seen[:40]} is no message index; leave it out to get everything that is stored."
    if not caller.may_read(name):
        return FOREIGN, f"The message store {name[:64]!r} is none of this key's."
    try:
        store = stores.store(name)
    except Refused as error:
        return UNKNOWN, f"There is no message store {name[:64]!r}. {error.detail}"
    if sum(reader.store_id != PRIVATE for reader in stores.messages.readers) >= CONSUMERS_MAX:
        return TOO_MANY, f"There are {CONSUMERS_MAX} consumers already; this gateway takes no more."
    after = start(store, int(seen) if seen else None, stores.last_index)
    return (GONE, after) if isinstance(after, str) else stores.messages.reader(name, after)


async def _pump(socket: WebSocket[Any, Any, Any], reader: Reader) -> tuple[int, str] | None:
    """Send frame by frame; return why that ended when the consumer is still there."""
    send = socket.send
    try:
        while True:
            for at, frame in enumerate(await reader.next()):
                await send({"type": "websocket.send", "bytes": None, "text": frame.data.decode()})
                if at % TURN_FRAMES == 0:
                    await asyncio.sleep(0)  # sending never waits while the socket takes everything; others want to be served
    except Purged as error:
        return GONE, gap(reader.store_id, reader.seen, error.purged_index)
    except StoreGone:
        return UNKNOWN, f"The message store {reader.store_id!r} was deleted."
    except JournalDamaged as error:
        log.error("joined_failed", store=reader.store_id, error=str(error))
        return FAULT, "The engine cannot read its journal; its log says why."
    except (WebSocketDisconnect, OSError):
        return None


async def _listen(socket: WebSocket[Any, Any, Any]) -> None:
    """Take whatever a consumer says (nothing is asked of it) until it goes."""
    with contextlib.suppress(WebSocketDisconnect):
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass


async def _explain(socket: WebSocket[Any, Any, Any], code: int, text: str) -> None:
    with contextlib.suppress(WebSocketDisconnect, OSError):
        await socket.send({"type": "websocket.send", "bytes": None, "text": msgspec.json.encode(text).decode()})
        await socket.close(code)

"""Serves `/v1/trade`: one caller's orders and private stream over one WebSocket.

What arrives is submitted in its sequence without waiting for what was asked before, so that the orders of a batch, and of
messages that follow each other, share a write of the disk. Answers go out in the same sequence. A caller that does not read
is not read either.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from math import ceil
from typing import Any

import msgspec
from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.types import ControllerRouterHandler

from engine.access.register import Register, TooManySockets
from engine.core.commands import CancelAll, CancelOrder
from engine.core.events import CancelReason
from engine.core.linked import canceled
from engine.gateway.bodies import CanceledView, OrderView
from engine.gateway.door import Rates, caller_of
from engine.gateway.orders import OrderDesk, own
from engine.gateway.problems import Refused, problem_view
from engine.gateway.sessions.private_streams import PrivateStreams
from engine.gateway.sessions.trade_frames import (
    ASKED,
    ENCODER,
    Amend,
    Answer,
    Asked,
    Batch,
    Cancel,
    CancelEvery,
    Failed,
    Id,
    Order,
    Ping,
    Place,
    Result,
    Said,
    Subscribe,
    Subscribed,
    Unsubscribe,
)  # fmt: skip
from engine.gateway.views import Views
from engine.journal.reader import JournalDamaged
from engine.journal.sequencer import EngineBusy, EngineUnavailable
from engine.stores.message_log import Purged, Reader, StoreGone

UNDER_WAY_MAX = 32  # messages that were submitted and not yet answered
LATE_S_MAX = 1.0
WITHDRAWN, TOO_MANY = 4401, 4429


class TradeDesk:
    """What all sessions share."""

    def __init__(self, desk: OrderDesk, views: Views, streams: PrivateStreams, register: Register, rates: Rates) -> None:
        self.desk = desk
        self.views = views
        self.streams = streams
        self.register = register
        self.rates = rates


def routes(trade: TradeDesk) -> list[ControllerRouterHandler]:
    """Return the handler of the WebSocket."""

    @websocket("/v1/trade")
    async def v1_trade(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        session = Session(socket, trade)
        try:
            place = trade.register.enter(session.caller, session.withdraw)
        except TooManySockets as error:
            await socket.close(TOO_MANY, str(error)[:120])
            return
        try:
            await session.run()
        finally:
            trade.register.leave(place)

    return [v1_trade]


class Session:
    """One WebSocket: a task that reads and submits, one that answers, and one that sends the private stream."""

    def __init__(self, socket: WebSocket[Any, Any, Any], trade: TradeDesk) -> None:
        self.caller = caller_of(socket.scope)
        self._socket = socket
        self._trade = trade
        self._answers: asyncio.Queue[tuple[Asked | None, Any]] = asyncio.Queue(UNDER_WAY_MAX)
        self._streaming: asyncio.Task[None] | None = None
        self._reader: Reader | None = None
        self._withdrawn = False
        self._tasks: list[asyncio.Task[None]] = []

    def withdraw(self) -> None:
        """End: the key does not count any more."""
        self._withdrawn = True
        for task in self._tasks:
            task.cancel()

    async def run(self) -> None:
        """Serve until the caller goes, or its key does."""
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._answer())]
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._unsubscribe()
            for task in self._tasks:
                task.cancel()
            found = await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._withdrawn:
            with contextlib.suppress(WebSocketDisconnect, OSError):
                await self._socket.close(WITHDRAWN, "The key was withdrawn or has expired.")
        for error in found:
            if isinstance(error, Exception) and not isinstance(error, WebSocketDisconnect | OSError):
                raise error

    # What is asked

    async def _read(self) -> None:
        while True:
            message: Any = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            try:
                asked = ASKED.decode(text if text is not None else message.get("bytes") or b"")
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                await self._answers.put(
                    (None, Failed(id="", problem=problem_view(400, "BadRequest", f"Not as documented: {error}")))
                )
                continue
            await self._handle(asked)

    async def _handle(self, asked: Asked) -> None:
        if isinstance(asked, Ping):
            await self._answers.put((asked, Said(type="pong", id=asked.id)))
        elif isinstance(asked, Subscribe | Unsubscribe):
            await self._answers.put((asked, None))
        else:
            orders = asked.orders if isinstance(asked, Batch) else [asked]
            wait_s = self._trade.rates.orders_wait_s(self.caller, len(orders))
            if wait_s:
                what = f"This key sends more orders than it may (ENGINE_ORDERS_PER_S); again in {ceil(wait_s)} s."
                await self._answers.put((asked, [_refused(429, "TooManyRequests", what)] * len(orders)))
                await asyncio.sleep(min(wait_s, LATE_S_MAX))
                return
            await self._answers.put((asked, [await self._begin(order) for order in orders]))

    async def _begin(self, order: Order) -> Any:
        """Submit one order; return its result, or a task that will have it."""
        desk, caller = self._trade.desk, self.caller
        try:
            match order:
                case Place() if desk.has_risk:
                    return Result(201, order=await desk.place(caller, order))
                case Place():
                    command = desk.placing(caller, order)
                    return command, desk.send(caller, command)
                case Amend():
                    found = await desk.find(caller, order.account, order.cl_ord_id)
                    if desk.has_risk:
                        return Result(200, order=await desk.amend(caller, order))
                    amending = desk.amending(found, order)
                    return asyncio.create_task(_done(desk.changed(found, desk.send(caller, amending))))
                case Cancel():
                    found = await desk.find(caller, order.account, order.cl_ord_id)
                    sent = desk.send(caller, CancelOrder(order.account, order.cl_ord_id))
                    return asyncio.create_task(_done(desk.changed(found, sent)))
                case CancelEvery():
                    own(caller, order.account)
                    return asyncio.create_task(self._cancel_all(order))
        except (Refused, EngineBusy, EngineUnavailable) as error:
            return _problem(error)

    async def _cancel_all(self, order: CancelEvery) -> Result:
        try:
            outcome = await self._trade.desk.carry_out(self.caller, CancelAll(order.account, order.symbol))
        except (Refused, EngineBusy, EngineUnavailable) as error:
            return _problem(error)
        return Result(200, canceled=CanceledView(outcome.index, canceled(outcome.events, CancelReason.REQUESTED)))

    # What is answered

    async def _answer(self) -> None:
        while True:
            asked, found = await self._answers.get()
            if isinstance(asked, Subscribe):
                await self._subscribe(asked)
            elif isinstance(asked, Unsubscribe):
                self._unsubscribe()
                await self._send(Said(type="unsubscribed", id=asked.id))
            elif isinstance(found, list):
                assert asked is not None
                results = [one if isinstance(one, Result) else await self._result(one) for one in found]
                await self._send(Answer(id=asked.id, results=results))
            else:
                await self._send(found)

    async def _result(self, begun: Any) -> Result:
        if isinstance(begun, asyncio.Task):
            task: asyncio.Task[Result] = begun
            return await task
        command, sent = begun
        try:
            outcome = sent.result() if sent.done() else await sent
            return Result(201, order=self._trade.desk.placed(command, outcome))
        except (Refused, EngineBusy, EngineUnavailable) as error:
            return _problem(error)

    async def _send(self, what: msgspec.Struct) -> None:
        text = ENCODER.encode(what).decode()
        await self._socket.send({"type": "websocket.send", "bytes": None, "text": text})

    # What happens to the accounts

    async def _subscribe(self, asked: Subscribe) -> None:
        self._unsubscribe()
        try:
            for account in asked.accounts:
                own(self.caller, account)
            reader = await self._trade.streams.open(asked.last_seq)
        except (Refused, EngineBusy, EngineUnavailable, StoreGone) as error:
            await self._send(Failed(id=asked.id, problem=_view(error)))
            return
        self._reader, seq, views = reader, reader.position, self._trade.views
        known = self._trade.desk.state.ledger.accounts
        shown = [] if asked.last_seq is not None else [views.account(one) for one in asked.accounts if one in known]
        await self._send(Subscribed(id=asked.id, seq=seq, accounts=shown))
        self._streaming = asyncio.create_task(self._stream(reader, frozenset(asked.accounts), seq, asked.id))

    async def _stream(self, reader: Reader, accounts: frozenset[int], seq: int, name: Id) -> None:
        streams = self._trade.streams
        try:
            while True:
                for frame in await reader.next():
                    update = streams.update(frame, accounts, seq)
                    if update is not None:
                        await self._send(update)
                        seq = update.seq
                await asyncio.sleep(0)
        except (Purged, StoreGone, JournalDamaged):
            gone = problem_view(410, "MessagesGone", "What followed is not kept any more; subscribe again, without lastSeq.")
            with contextlib.suppress(WebSocketDisconnect, OSError):
                await self._send(Failed(id=name, problem=gone))
        except (WebSocketDisconnect, OSError):
            return
        finally:
            reader.close()

    def _unsubscribe(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._streaming is not None:
            self._streaming.cancel()
            self._streaming = None


async def _done(changing: Awaitable[OrderView]) -> Result:
    try:
        return Result(200, order=await changing)
    except (Refused, EngineBusy, EngineUnavailable) as error:
        return _problem(error)


def _problem(error: Exception) -> Result:
    view = _view(error)
    return Result(view.status, problem=view)


def _view(error: Exception) -> Any:
    if isinstance(error, Refused):
        return problem_view(error.status, error.code, error.detail, error.order_id)
    return problem_view(503, getattr(error, "code", "MessagesGone"), str(error))


def _refused(status: int, code: str, detail: str) -> Result:
    return Result(status, problem=problem_view(status, code, detail))

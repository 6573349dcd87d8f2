"""The WebSocket on which a standby copies the journal, a view of the replication, and the wait for the standby before answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from litestar import WebSocket, get, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.types import ControllerRouterHandler

from engine.access.register import Register, TooManySockets
from engine.core.units import iso
from engine.gateway.bodies import ReplicationView, StandbyView
from engine.gateway.door import caller_of
from engine.gateway.problems import problem_bytes, problems
from engine.journal.sequencer import EngineUnavailable, Sequencer
from engine.standby.follower import Follower
from engine.standby.frames import Unreadable
from engine.standby.leader import Standbys
from service.origin import ASGI, Message, Receive, Send

WITHDRAWN, TOO_MANY, GONE, UNREADABLE = 4401, 4429, 1001, 4400
log = structlog.get_logger()


class ReplicationDesk:
    """What the routes need; `follower` returns the standby's end while the engine is one."""

    def __init__(
        self, sequencer: Sequencer, standbys: Standbys | None, follower: Callable[[], Follower | None], register: Register
    ) -> None:
        self.sequencer = sequencer
        self.standbys = standbys
        self.register = register
        self._follower = follower

    def view(self) -> ReplicationView:
        """Return how leader and standby are doing."""
        own, follower, standbys = self.sequencer, self._follower(), self.standbys
        view = ReplicationView(
            role="standby" if own.leader else "leader", term=own.term, index=own.committed_index,
            replication="sync" if standbys is not None and standbys.sync else "async", problem="" if own.leader else own.refusal,
        )  # fmt: skip
        if own.leader and follower is not None:
            view.leader, view.problem = own.leader, follower.problem
            view.missing_commands, view.heard_millis_ago = follower.missing, follower.heard_ms_ago
        elif standbys is not None and (one := standbys.standby) is not None:
            view.standby = StandbyView(one.name, iso(one.since_ns), one.index, standbys.lag_commands, standbys.lag_ms)
        return view


def routes(desk: ReplicationDesk) -> list[ControllerRouterHandler]:
    """Return the handlers of the replication."""

    @get("/Replication", responses=problems(), tags=["controls"], summary="Who leads, who follows, and how far behind")
    async def replication() -> ReplicationView:
        return desk.view()

    @websocket("/v1/replication")
    async def v1_replication(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        if desk.standbys is None:
            await socket.close(GONE)
            return
        serving = asyncio.current_task()
        assert serving is not None
        ended = asyncio.create_task(desk.standbys.serve(_Channel(socket)))
        try:
            place = desk.register.enter(caller_of(socket.scope), ended.cancel)
        except TooManySockets as error:
            ended.cancel()
            await socket.close(TOO_MANY, str(error)[:120])
            return
        code, why = GONE, ""
        try:
            await asyncio.wait({ended})
            if not ended.cancelled() and (fault := ended.exception()) is not None:
                if not isinstance(fault, OSError | TimeoutError | Unreadable):
                    raise fault
                code, why = (UNREADABLE if isinstance(fault, Unreadable) else GONE), str(fault)
                log.warning("standby_connection_ended", why=why or type(fault).__name__)
        finally:
            ended.cancel()
            desk.register.leave(place)
        try:
            await socket.close(code, why[:120])
        except (WebSocketDisconnect, OSError, RuntimeError):
            return  # it went by itself

    return [replication, v1_replication]


class _Channel:
    """A WebSocket of the gateway as leader and standby see one."""

    def __init__(self, socket: WebSocket[Any, Any, Any]) -> None:
        self._socket = socket

    async def send(self, message: str | bytes) -> None:
        """Raises: OSError."""
        text, content = (message, None) if isinstance(message, str) else (None, message)
        try:
            await self._socket.send({"type": "websocket.send", "bytes": content, "text": text})
        except WebSocketDisconnect as error:
            raise OSError("the standby went") from error

    async def receive(self) -> str:
        """Raises: OSError."""
        try:
            message: Any = await self._socket.receive()
        except WebSocketDisconnect as error:
            raise OSError("the standby went") from error
        if message["type"] == "websocket.disconnect":
            raise OSError("the standby went")
        return str(message.get("text") or "")


class Settled:
    """An ASGI application that answers only what the standby has: the state may be one group ahead of it."""

    def __init__(self, behind: Any, sequencer: Sequencer) -> None:
        self._behind: ASGI = behind
        self._sequencer = sequencer

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._behind(scope, receive, send)
            return
        refused = False

        async def later(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and self._sequencer.unsettled:
                try:
                    await self._sequencer.settled()
                except EngineUnavailable as error:
                    refused = True
                    await _refuse(send, error)
            if not refused:
                await send(message)

        await self._behind(scope, receive, later)


async def _refuse(send: Send, error: EngineUnavailable) -> None:
    body = problem_bytes(503, error.code, str(error))
    headers = [
        (b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body)), (b"retry-after", b"2"),
    ]  # fmt: skip
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})

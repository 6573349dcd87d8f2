"""Puts the exchange's HTTP and WebSocket application together and serves it on its port.

Everything that changes something is a command: it is answered when the journal has it. Handlers run on the sequencer's loop
and read its state between two groups; nothing here blocks.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from itertools import chain
from typing import Any

import uvicorn
from litestar import Litestar, Router
from litestar.handlers import HTTPRouteHandler

from engine.gateway import accounts, controls, docs, idempotency, markets, orders, stores
from engine.gateway.problems import BODY_BYTES_MAX, problem_of, require_journal, require_token
from engine.gateway.views import Views
from engine.journal.sequencer import Sequencer
from engine.risk.checker import RiskChecker
from engine.stores.message_log import MessageLog
from service.admin import bind
from service.clock import Clock, SystemClock
from service.origin import SameOrigin

PING_S, PONG_S = 20.0, 300.0  # a consumer that works off what it was sent answers late; one that is gone never does
KEEP_ALIVE_S = 75


def app(
    sequencer: Sequencer, messages: MessageLog, api_token: str = "", clock: Clock | None = None, risk: RiskChecker | None = None
) -> Litestar:
    """Return the application. `messages` is fed by the sequencer; with `api_token` every request and WebSocket needs it.

    With `risk` every order is asked about before it goes to the engine.
    """
    clock = clock or SystemClock()
    views = Views(sequencer, messages, clock)
    desk = orders.OrderDesk(sequencer, views, risk)
    consumers = stores.StoreDesk(sequencer, messages, desk, clock)
    shown = (markets.routes(views, desk), accounts.routes(views, desk), controls.routes(views, desk))
    handlers = [*orders.routes(desk), *chain(*shown), *stores.routes(consumers)]
    changing = [one for one in handlers if isinstance(one, HTTPRouteHandler) and "GET" not in one.http_methods]
    keyed = Router("/", route_handlers=changing, guards=[idempotency.read_key], parameters={"idempotency_key": idempotency.HEADER_PARAMETER})
    return Litestar(
        [keyed, *(one for one in handlers if one not in changing)],
        guards=[*([require_token(api_token)] if api_token else []), require_journal(sequencer)],
        exception_handlers={Exception: problem_of},
        request_max_body_size=BODY_BYTES_MAX,
        openapi_config=docs.config(bool(api_token)),
        plugins=[docs.PriceSchema()],
        logging_config=None,
    )


class GatewayServer:
    """The application on its port. Port 0 takes a free one; `.port` tells which.

    `names` are further host names by which it is addressed; web pages of other origins get nothing.
    """

    def __init__(
        self, sequencer: Sequencer, messages: MessageLog, host: str, port: int, api_token: str = "", clock: Clock | None = None,
        risk: RiskChecker | None = None, names: Iterable[str] = (),
    ) -> None:  # fmt: skip
        self.host = host
        self.port = port
        application = SameOrigin(app(sequencer, messages, api_token, clock, risk), names, json_only=True)
        self._server = uvicorn.Server(config(application))
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen.  Raises: OperatorError when the port is taken."""
        sock = bind(self.host, self.port, "ENGINE_PORT")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections have it from here, whatever the loop does
        self.port = sock.getsockname()[1]
        self._task = asyncio.create_task(self._server._serve(sockets=[sock]))  # serve() would take the signals over

    async def stop(self) -> None:
        """Take no more connections, answer what was asked, send every consumer a close frame (1012)."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


def config(application: Any) -> uvicorn.Config:
    """Return how the application is served. Nothing is compressed: frames go out as they are."""
    return uvicorn.Config(
        application,
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=BODY_BYTES_MAX,
        ws_per_message_deflate=False,
        ws_ping_interval=PING_S,
        ws_ping_timeout=PONG_S,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=2,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
    )

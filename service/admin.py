"""Serves health, metrics and control to operators. Calls that change something need the bearer token."""

from __future__ import annotations

import asyncio
import hmac
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import structlog
import uvicorn
from litestar import Litestar, Response, get, post, put
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException
from litestar.handlers import BaseRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.params import JSONBody
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from service import logs, metrics
from service.errors import OperatorError
from service.origin import SameOrigin
from service.tasks import Tasks

ANSWERED_S = 0.05
Ready = Callable[[], list[str]]
Drain = Callable[[], None]
log = structlog.get_logger()


class LogLevel(Struct, forbid_unknown_fields=True):
    """The level from which on events are logged."""

    level: Literal["debug", "info", "warning", "error"]


class AdminServer:
    """The admin port of one component.

    `ready` returns what keeps it from being ready, in words; an empty list is ready. `routes` are Litestar handlers;
    those that change something carry `guards=[require_admin]`. Port 0 takes a free one; `.port` tells which. `names` are further
    host names by which it is addressed: web pages of other origins get nothing (service/origin.py). `drain` asks the component to
    hand over and to end with 0, by `POST /drain`; whoever supervises it starts it again.
    """

    def __init__(
        self,
        component: str,
        host: str,
        port: int,
        token: str,
        ready: Ready,
        routes: Sequence[ControllerRouterHandler] = (),
        names: Iterable[str] = (),
        drain: Drain | None = None,
    ) -> None:
        self.component = component
        self.host = host
        self.port = port
        own = [_log_level(), *([_drain(drain)] if drain is not None else [])]
        self._app = SameOrigin(_app(component, token, ready, [*own, *routes]), names)
        self._server: uvicorn.Server | None = None
        self._tasks = Tasks(f"{component} admin")
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen.  Raises: OperatorError when the port is taken."""
        sock = bind(self.host, self.port, f"{self.component.upper()}_ADMIN_PORT")
        self.port = sock.getsockname()[1]
        config = uvicorn.Config(self._app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # service.run owns the signals
        self._task = self._tasks.start("port", self._serve(self._server, sock), ends=True)

    async def stop(self) -> None:
        """Close the port."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task

    async def _serve(self, server: uvicorn.Server, sock: socket.socket) -> None:
        await server._serve(sockets=[sock])  # serve() would take the signals over
        if not server.should_exit:
            raise RuntimeError("nobody had asked it to")


def bind(host: str, port: int, variable: str, reuse_port: bool = False) -> socket.socket:
    """Return a listening socket.  Raises: OperatorError naming the taken port and the variable that moves it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        what = f"cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}"
        raise OperatorError(what, f"Stop what holds the port, or set {variable} to a free one") from None
    sock.setblocking(False)
    return sock


def require_admin(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Guard of every call that changes something: `Authorization: Bearer <admin token>`, compared in constant time."""
    given = connection.headers.get("authorization", "")
    if not hmac.compare_digest(given.encode(), f"Bearer {connection.app.state.admin_token}".encode()):
        raise NotAuthorizedException("Send the admin token: Authorization: Bearer <RUN_DIR/admin.token or ADMIN_TOKEN>")


def _log_level() -> ControllerRouterHandler:
    @put("/log-level", guards=[require_admin], sync_to_thread=False)
    def log_level(data: JSONBody[LogLevel]) -> LogLevel:
        before = logs.level()
        logs.set_level(data.level)
        log.warning("log_level_changed", before=before, after=data.level)
        return data

    return log_level


def _drain(drain: Drain) -> ControllerRouterHandler:
    @post("/drain", guards=[require_admin], status_code=202, sync_to_thread=False)
    def drain_and_end() -> dict[str, str]:
        log.warning("drain_asked_for")
        asyncio.get_running_loop().call_later(ANSWERED_S, drain)  # the answer leaves first
        return {"status": "draining"}

    return drain_and_end


def _app(component: str, token: str, ready: Ready, routes: Sequence[ControllerRouterHandler]) -> Litestar:
    @get("/livez", sync_to_thread=False)
    def livez() -> dict[str, str]:
        return {"status": "alive"}

    @get("/readyz", sync_to_thread=False)
    def readyz() -> Response[dict[str, Any]]:
        reasons = ready()
        body = {"ready": not reasons, "reasons": reasons}
        return Response(body, status_code=503 if reasons else 200)

    @get("/metrics", sync_to_thread=False, media_type="text/plain; version=0.0.4; charset=utf-8")
    def metrics_text() -> bytes:
        return metrics.exposition()

    app = Litestar(
        [livez, readyz, metrics_text, *routes],
        openapi_config=OpenAPIConfig(title=f"Tapeline {component} admin", version="1", path="/docs"),
        logging_config=None,
    )
    app.state.admin_token = token
    return app

"""Puts the exchange's HTTP and WebSocket application together and serves it on its port.

Everything that changes something is a command: it is answered when the journal has it. Handlers run on the sequencer's loop
and read its state between two groups; nothing here blocks.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from litestar import Litestar, Router
from litestar.handlers import HTTPRouteHandler
from litestar.types import ControllerRouterHandler

from engine.access.key_watch import KeyWatch
from engine.gateway import accounts, controls, docs, idempotency, markets, orders, past, replication, stores
from engine.gateway import keys as key_routes
from engine.gateway.connections import ConnectionLimits, guarded
from engine.gateway.door import Door, DoorLimits, Rates
from engine.gateway.history import History
from engine.gateway.order_entry import OrderEntry
from engine.gateway.problems import BODY_BYTES_MAX, problem_of, require_journal
from engine.gateway.replication import ReplicationDesk, Settled
from engine.gateway.sessions import trade
from engine.gateway.sessions.private_streams import PrivateStreams
from engine.gateway.views import Views
from engine.journal.sequencer import Sequencer
from engine.risk.checker import RiskChecker
from engine.standby.follower import Follower
from engine.standby.leader import Standbys
from engine.stores.message_log import MessageLog
from service.admin import bind
from service.clock import Clock, SystemClock
from service.errors import OperatorError
from service.origin import SameOrigin
from service.tasks import Tasks

PING_S, PONG_S = 20.0, 300.0  # a consumer that works off what it was sent answers late; one that is gone never does
KEEP_ALIVE_S = 75


class Doors(NamedTuple):
    """What stands between the port and the routes; `tls` are the files of certificate and key."""

    orders: DoorLimits = DoorLimits()
    connections: ConnectionLimits = ConnectionLimits()
    names: Iterable[str] = ()  # further host names by which the gateway is addressed
    tls: tuple[Path, Path] | None = None


class GatewayServer:
    """The application on its port, for those who have a key. Port 0 takes a free one; `.port` tells which.

    `messages` is fed by the sequencer. With `risk` every order is asked about before it goes to the engine. `standbys` serves a
    standby, `follower` returns what follows the leader while this engine is one.
    """

    def __init__(
        self, sequencer: Sequencer, messages: MessageLog, host: str, port: int, keys: KeyWatch, clock: Clock | None = None,
        risk: RiskChecker | None = None, doors: Doors | None = None, standbys: Standbys | None = None,
        follower: Callable[[], Follower | None] = lambda: None,
    ) -> None:  # fmt: skip
        doors, clock = doors or Doors(), clock or SystemClock()
        self.host = host
        self.port = port
        self.streams = PrivateStreams(sequencer, messages, clock)
        rates = Rates(doors.orders, clock)
        views = Views(sequencer, messages, clock)
        desk = orders.OrderDesk(sequencer, views, risk)
        self.application = app(
            [
                *orders.routes(desk), *markets.routes(views, desk), *accounts.routes(views, desk), *controls.routes(views, desk),
                *past.routes(views, History(messages.folder, lambda: sequencer.committed_index)),
                *stores.routes(stores.StoreDesk(sequencer, messages, desk, clock, keys.register)),
                *trade.routes(trade.TradeDesk(desk, views, self.streams, keys.register, rates)),
                *key_routes.routes(key_routes.KeyDesk(keys, clock)),
                *replication.routes(ReplicationDesk(sequencer, standbys, follower, keys.register)),
            ],
            sequencer,
        )  # fmt: skip
        origin = SameOrigin(None, doors.names, json_only=True)
        door = Door(Settled(self.application, sequencer), origin, keys.register, rates, clock)
        self._server = uvicorn.Server(config(door, doors, OrderEntry(door, desk, sequencer)))
        self._task: asyncio.Task[None] | None = None
        self._tasks = Tasks("gateway")

    async def start(self) -> None:
        """Listen.  Raises: OperatorError when the port is taken."""
        self._server.config.load()  # reads the certificate
        sock = bind(self.host, self.port, "ENGINE_PORT")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections have it from here, whatever the loop does
        self.port = sock.getsockname()[1]
        self._tasks.start("private streams", self.streams.run())
        self._task = asyncio.create_task(self._server._serve(sockets=[sock]))  # serve() would take the signals over

    async def stop(self) -> None:
        """Take no more connections, answer what was asked, send every consumer a close frame (1012)."""
        await self._tasks.close()
        self._server.should_exit = True
        if self._task is not None:
            await self._task


def app(routes: Sequence[ControllerRouterHandler], sequencer: Sequencer) -> Litestar:
    """Return the application of these routes, which answers nothing while the state is in doubt."""
    changing = [one for one in routes if isinstance(one, HTTPRouteHandler) and "GET" not in one.http_methods]
    keyed = Router(
        "/", route_handlers=changing, guards=[idempotency.read_key], parameters={"idempotency_key": idempotency.HEADER_PARAMETER}
    )
    return Litestar(
        [keyed, *(one for one in routes if one not in changing)],
        guards=[require_journal(sequencer)],
        exception_handlers={Exception: problem_of},
        request_max_body_size=BODY_BYTES_MAX,
        openapi_config=docs.config(),
        plugins=[docs.PriceSchema()],
        logging_config=None,
    )


def config(application: Any, doors: Doors | None = None, entry: OrderEntry | None = None) -> uvicorn.Config:
    """Return how the application is served, and plain orders beside it. Nothing is compressed: frames go out as they are."""
    doors = doors or Doors()
    return uvicorn.Config(
        application,
        http=guarded(doors.connections, entry),
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
        proxy_headers=False,  # an X-Forwarded-For that anybody may write would be the address that is counted
        ssl_certfile=doors.tls[0] if doors.tls else None,
        ssl_keyfile=doors.tls[1] if doors.tls else None,
    )


def check_tls(certificate: Path, key: Path) -> None:
    """Raises: OperatorError when the files do not make a certificate that can be served."""
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password=_no_passphrase)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        what = f"TLS cannot be served with {certificate} and {key}: {error}"
        raise OperatorError(what, "Set ENGINE_TLS_CERT and ENGINE_TLS_KEY to a PEM chain and its key", 2) from None


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase")

"""Runs the vendor server with its admin port, through which tests and rehearsals inject faults."""

from __future__ import annotations

from typing import Any, Literal

import structlog
from litestar import get, post
from litestar.params import JSONBody
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from mdl.feeds.catalogue import open_feed
from mdl.settings import VendorSettings
from mdl.vendor.stand_in import VendorServer
from service.admin import AdminServer, require_admin
from service.errors import OperatorError
from service.run import Shutdown
from service.settings import admin_token, shown

log = structlog.get_logger()


class Fault(Struct, forbid_unknown_fields=True):
    """`drop` cuts all connections; `refuse` and `pause` last until `heal`; `garbage` sends `text` as a data frame."""

    kind: Literal["drop", "refuse", "pause", "garbage", "heal"]
    text: str = "not JSON"


async def run(settings: VendorSettings, shutdown: Shutdown) -> None:
    """Serve until `shutdown`.  Raises: OperatorError."""
    if settings.feed not in ("simulator", "replay"):
        source = "the vendor" if settings.feed == "massive" else settings.feed
        raise OperatorError(f"the vendor server cannot be fed by {source}", "Set MDL_FEED=simulator or MDL_FEED=replay")
    server = VendorServer(settings, open_feed(settings, settings.feed))
    admin = AdminServer(
        "mdl_vendor",
        settings.admin_host,
        settings.vendor_admin_port,
        admin_token(settings),
        lambda: _unready(server),
        _routes(server),
        settings.host_names,
    )
    await server.start()
    try:
        await admin.start()
        log.info("vendor_server_started", listening=server.port, **shown(settings))
        await shutdown.wait()
        await admin.stop()
    finally:
        await server.stop()


def inflict(server: VendorServer, fault: Fault) -> None:
    """Do to the clients what vendors do."""
    if fault.kind == "drop":
        server.drop_clients()
    elif fault.kind == "garbage":
        server.inject(fault.text)
    elif fault.kind == "heal":
        server.refusing = server.paused = False
    else:
        server.refusing |= fault.kind == "refuse"
        server.paused |= fault.kind == "pause"


def _unready(server: VendorServer) -> list[str]:
    return ["refusing connections on request"] if server.refusing else []


def _routes(server: VendorServer) -> list[ControllerRouterHandler]:
    @get("/clients", sync_to_thread=False)
    def clients() -> list[dict[str, Any]]:
        return [
            {
                "market": client.session.market, "authenticated": bool(client.session.key),
                "subscriptions": client.session.wants.count, "waiting_bytes": client.bytes, "waiting_s": client.age_s(),
            }
            for client in server.clients
        ]  # fmt: skip

    @post("/fault", guards=[require_admin], status_code=200)
    async def fault(data: JSONBody[Fault]) -> dict[str, Any]:
        inflict(server, data)
        return {"refusing": server.refusing, "paused": server.paused, "clients": len(server.clients)}

    return [clients, fault]

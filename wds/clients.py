"""Lets operators see who is connected to this worker, and send a client off, over the admin port."""

from __future__ import annotations

from typing import Annotated, Any, Protocol

from litestar import get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.types import ControllerRouterHandler
from msgspec import UNSET, Struct

from service.admin import require_admin
from wds.protocol import DRAINING, FORBIDDEN
from wds.transport.roster import Roster

LIST_MAX = 1000
Limit = Annotated[int, QueryParameter(name="limit", ge=1, le=LIST_MAX, description="how many")]
After = Annotated[str, QueryParameter(name="after", max_length=64, description="`next` of the page before")]


class Kick(Struct, forbid_unknown_fields=True):
    """How a client is sent off: for good (4003), or to come back a little later (4200)."""

    come_back: bool = False


class Worker(Protocol):
    """What the routes need of a worker."""

    roster: Roster

    def now_ns(self) -> int: ...

    def settle(self) -> None: ...


def routes(worker: Worker) -> list[ControllerRouterHandler]:
    """Return the admin port's handlers."""

    @get("/clients", guards=[require_admin], sync_to_thread=False)
    def clients(limit: Limit = 200, after: After = "") -> dict[str, Any]:
        return listed(worker, limit, after)

    @post("/clients/{conn:str}/kick", guards=[require_admin], status_code=200, sync_to_thread=False)
    def kick(conn: FromPath[str], data: JSONBody[Kick]) -> dict[str, Any]:
        for connection in worker.roster:
            session = connection.session
            if session is not None and session.conn == conn and not session.closed:
                before = connection.describe(worker.now_ns())
                connection.bye(DRAINING if data.come_back else FORBIDDEN, None if data.come_back else UNSET)
                worker.settle()
                return before
        raise NotFoundException(f"There is no client {conn[:64]!r} on this worker")

    return [clients, kick]


def listed(worker: Worker, limit: int, after: str) -> dict[str, Any]:
    """Return a page of clients in the order of their ids, which are drawn at random: `{clients, next, total}`."""
    open_ = {c.session.conn: c for c in worker.roster if c.session is not None and not c.session.closed}
    names = sorted(name for name in open_ if name > after)
    now_ns = worker.now_ns()
    return {
        "clients": [open_[name].describe(now_ns) for name in names[:limit]],
        "next": names[limit - 1] if len(names) > limit else None,
        "total": len(open_),
    }

"""Opens the WebSocket on which one engine copies another one's journal."""

from __future__ import annotations

import asyncio
from socket import getaddrinfo
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from engine.standby import frames
from engine.standby.frames import Refusal

CONNECT_S = 5.0


class Leader(NamedTuple):
    """Whom to follow: its gateway's address (http or https) and a key of the role replica or operator."""

    url: str
    key: str

    @property
    def ws_url(self) -> str:
        parts = urlsplit(self.url)
        path = f"{parts.path.rstrip('/')}{frames.PATH}"
        return parts._replace(scheme="wss" if parts.scheme == "https" else "ws", path=path, query="", fragment="").geturl()


class Refused(Exception):
    """The leader sends nothing, and says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


class Line:
    """Connections to one engine; the caller bounds their time."""

    def __init__(self, leader: Leader) -> None:
        self.leader = leader
        self._found: asyncio.Future[Any] | None = None  # the leader's name, being looked up

    async def connected(self) -> ClientConnection:
        """Return a connection.  Raises: OSError, TimeoutError, WebSocketException.

        The name is looked up first, by one thread at a time: a look-up that outlives the caller's patience, as it does while a
        container of that name is gone, would end in a future that nobody reads, which the loop reports as an error each time.
        """
        if self._found is None or self._found.done():
            at = urlsplit(self.leader.url)
            self._found = asyncio.get_running_loop().run_in_executor(None, getaddrinfo, at.hostname, at.port)
            self._found.add_done_callback(lambda found: found.cancelled() or found.exception())
        await asyncio.shield(self._found)
        headers = {"Authorization": f"Bearer {self.leader.key}"}
        return await connect(
            self.leader.ws_url, additional_headers=headers, max_size=frames.MESSAGE_BYTES_MAX, compression=None,
            open_timeout=CONNECT_S, close_timeout=1, ping_interval=None, proxy=None,
        )  # fmt: skip


def said_by(error: InvalidStatus) -> str:
    """Return what a refused handshake means."""
    status = error.response.status_code
    if status in (401, 403):
        return f"the leader does not take the key ({status}): ENGINE_FOLLOW_KEY is one of its keys, role replica or operator"
    return f"the leader answers {status}; ENGINE_FOLLOW is the address of its gateway"

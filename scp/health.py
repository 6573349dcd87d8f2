"""Probes WDS and serves readiness from a loop in a thread of its own, so that gunicorn's threads stay free for pages."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import signal
import threading
from typing import Any

import structlog
from litestar import Response, get

from scp.announce import Announcer
from scp.control import Control
from scp.desk import PAGE, minted
from scp.gate import requests
from scp.security.stream_keys import StreamKeys
from scp.settings import ScpSettings
from scp.store.database import StoreUnavailable
from service import metrics
from service.admin import AdminServer
from service.heartbeat import Heartbeat, Vitals
from service.settings import admin_token

GOODBYE_S = 2.0
PROBE_S = 2.0  # between probes, and how long one may take

log = structlog.get_logger()


class Health:
    """The admin port and the probe behind /readyz."""

    def __init__(self, settings: ScpSettings, control: Control, announcer: Announcer) -> None:
        self._settings = settings
        self._control = control
        self._announcer = announcer
        self._store_fault: str | None = None
        self._heartbeat: Heartbeat | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wds_fault: str | None = "WDS was not asked yet"

    def start(self) -> None:
        """Serve the admin port from a daemon thread, which ends with the process."""
        named = contextvars.copy_context()  # log lines of the thread keep the component's name
        threading.Thread(target=lambda: named.run(asyncio.run, self._serve()), name="admin", daemon=True).start()

    def stop(self) -> None:
        """Take our entry out of the inventory: who ends in order is not missing."""
        if self._heartbeat is not None and self._loop is not None:
            with contextlib.suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(self._heartbeat.stop(), self._loop).result(GOODBYE_S)

    def reasons(self) -> list[str]:
        """Return what keeps the page from working, in words."""
        missing = [] if PAGE.is_file() else ["the front end is not built: run python -m scp.build"]
        return missing + [fault for fault in (self._wds_fault, self._store_fault, self._announcer.fault) if fault]

    async def _serve(self) -> None:
        own = self._settings
        token, routes = admin_token(own), [_keys_route(self._control.stream_keys)]
        admin = AdminServer("scp", own.admin_host, own.admin_port, token, self.reasons, routes, own.host_names, _drain)
        await admin.start()
        self._heartbeat = Heartbeat("scp", own, admin.port, self.reasons, _vitals)
        self._loop = asyncio.get_running_loop()
        await self._heartbeat.start()
        log.info("admin_listening", host=admin.host, port=admin.port)
        telling = asyncio.create_task(self._announcer.run())
        telling.add_done_callback(_ended)
        while True:
            self._wds_fault = await wds_fault(*own.wds_address)
            self._store_fault = await asyncio.to_thread(self._control.store.fault)
            await asyncio.sleep(PROBE_S)


def _keys_route(keys: StreamKeys) -> Any:
    """The public keys again, for data services inside the cluster: they do not use the page's one public address."""

    @get("/jwks.json")
    async def jwks() -> Response[dict[str, Any]]:
        try:
            return Response(await asyncio.to_thread(keys.jwks))
        except StoreUnavailable as error:
            return Response({"detail": f"the database does not answer: {error}"}, status_code=503)

    return jwks


def _drain() -> None:
    """Let gunicorn's arbiter, our parent, end in order."""
    os.kill(os.getppid(), signal.SIGTERM)


def _vitals() -> Vitals:
    return Vitals({"requests": metrics.total(requests), "tokens": metrics.total(minted)})


def _ended(task: asyncio.Task[None]) -> None:
    """End the process: without the announcer a sign-out would not close sockets, and nobody would know."""
    log.critical("announcer_ended", error=repr(task.exception()))
    os._exit(1)


async def wds_fault(host: str, port: int) -> str | None:
    """Return None when an HTTP server answers there (any status will do), else what is wrong."""
    where = f"WDS at {host}:{port}"
    try:
        async with asyncio.timeout(PROBE_S):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(f"GET /healthz HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
            line = await reader.readline()
            writer.close()
    except TimeoutError:
        return f"{where} does not answer"
    except OSError as error:
        return f"{where} is not reachable: {(error.strerror or str(error)).lower()}"
    return None if line.startswith(b"HTTP/") else f"{where} is not a web server"

"""Serves fakeredis behind the Redis protocol on a loopback port, where no real server can run.

Same keys, scripts and pub/sub as a real server (one contract suite runs against both); slower: about 45,000 keys/s.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from typing import Any

from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import TCPFakeRequestHandler
from redis.exceptions import ResponseError

from service.errors import OperatorError


class EmbeddedCache:
    """A fakeredis server on 127.0.0.1. `port` 0 takes a free one; `.port` and `.url` tell which."""

    def __init__(self, port: int = 0) -> None:
        try:
            self._server = _QuickServer(("127.0.0.1", port), server_type="redis", server_version=(7, 0))
        except OSError as error:
            raise port_refusal(port, error) from None
        self.port: int = self._server.server_address[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._thread = threading.Thread(target=self._server.serve_forever, name="embedded-cache", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def port_refusal(port: int, error: OSError) -> OperatorError:
    """Return what the operator is told when the port cannot be had."""
    what = f"cannot listen on 127.0.0.1:{port}: {error.strerror}"
    return OperatorError(what, "Stop what holds the port, or set MDC_EMBEDDED_PORT to a free one")


class _Connection(TCPFakeRequestHandler):
    """Without this, every error reply ends the connection: NOSCRIPT, which is how a client learns to load a script, too."""

    def setup(self) -> None:
        super().setup()
        read = self.current_client.read_response

        def answer(*args: Any, **options: Any) -> Any:
            try:
                return read(*args, **options)
            except ResponseError as error:
                return error  # written as an error reply, like any other answer

        self.current_client.read_response = answer  # type: ignore[method-assign]


class _QuickServer(TcpFakeServer):
    """Without this, small replies wait 40 ms for Nagle's algorithm and a delayed ACK."""

    daemon_threads = True
    allow_reuse_address = True

    def finish_request(self, request: Any, client_address: Any) -> None:
        _Connection(request, client_address, self)

    def get_request(self) -> Any:
        request, address = socketserver.TCPServer.get_request(self)
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return request, address

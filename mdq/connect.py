"""Opens the broker of a queue URL: `memory://name` is the embedded one, `amqp://` and `amqps://` are RabbitMQ."""

from __future__ import annotations

from mdq.broker import Broker
from mdq.broker_memory import MemoryBroker
from mdq.broker_rabbit import HEARTBEAT_S, RabbitBroker
from service.errors import OperatorError


def open_broker(url: str, name: str, heartbeat_s: int = HEARTBEAT_S) -> Broker:
    """Return the broker of `url`, not yet connected; `name` is what the server's operator sees.

    RabbitMQ gives up a client that is silent for two heartbeats, and its queues go to the next consumer; `heartbeat=` in the
    URL comes first.  Raises: OperatorError.
    """
    scheme = url.partition("://")[0]
    if scheme == "memory":
        return MemoryBroker(url, name)
    if scheme in ("amqp", "amqps"):
        return RabbitBroker(url, name, heartbeat_s)
    raise OperatorError(f"MDQ_URL has scheme {scheme!r}", "Use amqp://, amqps:// or memory://")

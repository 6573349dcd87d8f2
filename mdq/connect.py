"""A queue URL in, its broker out: `memory://name` the embedded one, `amqp://` and `amqps://` RabbitMQ."""

from __future__ import annotations

from mdq.broker import Broker
from mdq.broker_memory import MemoryBroker
from mdq.broker_rabbit import RabbitBroker
from service.errors import OperatorError


def open_broker(url: str, name: str) -> Broker:
    """Return the broker of `url`, not yet connected; `name` is what the server's operator sees.  Raises: OperatorError."""
    scheme = url.partition("://")[0]
    if scheme == "memory":
        return MemoryBroker(url, name)
    if scheme in ("amqp", "amqps"):
        return RabbitBroker(url, name)
    raise OperatorError(f"MDQ_URL has scheme {scheme!r}", "Use amqp://, amqps:// or memory://")

"""Opens the broker of a queue URL: `memory://name` is the embedded one, `amqp://` and `amqps://` are RabbitMQ."""

from __future__ import annotations

from mdq.broker import Broker
from mdq.broker_memory import MemoryBroker
from mdq.broker_rabbit import HEARTBEAT_S, RabbitBroker
from mdq.topology import QueueType
from service.errors import OperatorError


def open_broker(url: str, name: str, heartbeat_s: int = HEARTBEAT_S, queue_type: QueueType = "classic") -> Broker:
    """Return the broker of `url`, not yet connected; `name` is what the server's operator sees.

    RabbitMQ gives up a client that is silent for two heartbeats, and its queues go to the next consumer; `heartbeat=` in the
    URL comes first. `queue_type` is how it declares its queues there.  Raises: OperatorError.
    """
    scheme = url.partition("://")[0]
    if scheme == "memory":
        if queue_type == "quorum":  # one process has no second node: silence would promise what is not there
            fix = "Set MDQ_URL=amqp://… to a RabbitMQ cluster, or leave MDQ_QUEUE_TYPE out"
            raise OperatorError("MDQ_QUEUE_TYPE=quorum: the embedded queue has no replicas", fix)
        return MemoryBroker(url, name)
    if scheme in ("amqp", "amqps"):
        return RabbitBroker(url, name, heartbeat_s, queue_type)
    raise OperatorError(f"MDQ_URL has scheme {scheme!r}", "Use amqp://, amqps:// or memory://")

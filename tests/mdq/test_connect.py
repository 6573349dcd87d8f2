"""Which broker a URL means."""

from __future__ import annotations

import pytest

from mdq.broker_memory import MemoryBroker
from mdq.broker_rabbit import RabbitBroker
from mdq.connect import open_broker
from service.errors import OperatorError


def test_schemes_choose_the_broker() -> None:
    """memory:// is the embedded broker, amqp:// and amqps:// are RabbitMQ."""
    assert isinstance(open_broker("memory://", "t"), MemoryBroker)
    assert isinstance(open_broker("amqp://guest:guest@host/", "t"), RabbitBroker)
    assert isinstance(open_broker("amqps://guest:guest@host:5671/v", "t"), RabbitBroker)


def test_one_memory_name_is_one_hub() -> None:
    """Brokers of one name share their queues within the process; other names do not."""
    first, second, other = MemoryBroker("memory://a"), MemoryBroker("memory://a"), MemoryBroker("memory://b")
    assert first.hub is second.hub
    assert first.hub is not other.hub


@pytest.mark.parametrize("url", ["kafka://host", "", "amqp://user:p@ss@[bad/"])
def test_other_urls_are_the_operators_matter(url: str) -> None:
    """An unusable URL is one clear line with what to write instead."""
    with pytest.raises(OperatorError, match="MDQ_URL"):
        open_broker(url, "t")


def test_brokers_say_that_they_are_not_connected() -> None:
    """Before `connect` no broker is ready, and each says why."""
    for url in ("memory://c", "amqp://host/"):
        broker = open_broker(url, "t")
        assert not broker.ready
        assert broker.fault

"""Which node of a cluster a client connects to."""

from __future__ import annotations

from collections import Counter
from urllib.parse import urlsplit

import pytest

from mdq.connect import open_broker
from mdq.rabbit_calls import close_connection
from mdq.rabbit_nodes import Nodes
from service.errors import OperatorError
from tests.servers import RabbitMQ, free_port
from tests.waiting import until


def beside_dead_ones(url: str) -> str:
    """Return the URL of a server with two nodes before and behind it that do not answer."""
    parts = urlsplit(url)
    hosts = f"127.0.0.1:{free_port()},{parts.hostname}:{parts.port},127.0.0.1:{free_port()}"
    return parts._replace(netloc=f"guest:guest@{hosts}").geturl()


@pytest.mark.live
async def test_a_dead_node_is_passed_over(mdq_url: str) -> None:
    """Whichever node is tried first, the one that lives is found in one call, again and again."""
    nodes = Nodes(beside_dead_ones(mdq_url), "nodes test")
    for _ in range(4):
        await close_connection(await nodes.connect())
        assert nodes.place == f"127.0.0.1:{urlsplit(mdq_url).port}"


@pytest.mark.live
async def test_a_broker_finds_the_next_node_by_itself(rabbitmq_server: RabbitMQ, emptied_server: RabbitMQ) -> None:
    """A broker with a list of nodes connects, loses its connection, and is back."""
    broker = open_broker(beside_dead_ones(emptied_server.url), "nodes test")
    await broker.connect()
    rabbitmq_server.control("close_all_connections", "cut by a test")
    await until(lambda: not broker.ready, what="loss noticed")
    await until(lambda: broker.ready, what="reconnected")
    await broker.close()


async def test_no_node_at_all_is_an_outage() -> None:
    """With every node away start-up can wait for them: the last one's error says where."""
    with pytest.raises(OSError, match="Connect call failed"):
        await Nodes(f"amqp://127.0.0.1:{free_port()},127.0.0.1:{free_port()}/", "nodes test").connect()


def test_clients_spread_over_the_nodes() -> None:
    """A cluster's clients do not all begin at the first name in the list."""
    first = Counter(Nodes("amqp://a,b,c:5673/v", "t").place for _ in range(200))
    assert set(first) == {"a:5672/v", "b:5672/v", "c:5673/v"}


@pytest.mark.parametrize("url", ["amqp://user:p@ss@[bad/", "amqp://a:5672,b:x/"])
def test_what_is_no_url_is_said_so(url: str) -> None:
    """The setting that holds it is named."""
    with pytest.raises(OperatorError, match="ENGINE_ORDERS_URL is not a URL"):
        Nodes(url, "t", setting="ENGINE_ORDERS_URL")

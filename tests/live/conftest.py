"""A market on RabbitMQ and Redis of each test's own: these tests break their servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.market import Market
from tests.servers import RabbitMQ, Redis
from tests.stack import Stack


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Stack]:
    """Fresh servers and an empty stack on them."""
    with RabbitMQ() as rabbitmq, Redis() as cache:
        stack = Stack(tmp_path, rabbitmq, cache)
        yield stack
        stack.close()


@pytest.fixture
def market(running: Stack) -> Market:
    """A market that is not started yet."""
    return Market(running)

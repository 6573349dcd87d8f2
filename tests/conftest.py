"""Provides the servers: those of TEST_MDQ_URL, TEST_MDC_URL and TEST_POSTGRES_URL, else private ones, one a session.

`rabbitmq_url` and `redis_url` are shared by the session; `mdq_url` and `mdc_url` are the same servers, emptied for this test;
`postgres_url` is a database of the test's own. `rabbitmq_server`, `redis_server` and `postgres_server` are always private ones:
for tests that stop, kill or restart them.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit, urlunsplit

import aiormq
import psycopg
import pytest
import redis
from hypothesis import HealthCheck, settings

from mdq.topology import all_queues, progress_queue
from service.tracing import is_installed
from tests.clusters.rabbit import RabbitCluster
from tests.scale import everything
from tests.servers import Postgres, RabbitMQ, Redis, Server, ServerMissing
from tests.starved import RERUNS, Starvation
from tests.tapes import absent

if TYPE_CHECKING:
    from tests.traces.collector import Collector

PARTITIONS_MAX = 16  # no test uses more; the queues up to this partition are deleted between tests

# Slowness of a busy machine is no finding: a test that says otherwise names its own deadline.
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")

S = TypeVar("S", bound=Server)
starvation = Starvation()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow fault runs to `make faults`, or to whoever names one; run again what failed on a starved machine."""
    for item in items:
        item.add_marker(pytest.mark.flaky(reruns=RERUNS, condition=starvation.seen))
    if everything() or any("::" in argument for argument in config.args):
        return
    slow = [item for item in items if item.get_closest_marker("faults")]
    items[:] = [item for item in items if not item.get_closest_marker("faults")]
    config.hook.pytest_deselected(items=slow)


def pytest_runtest_setup() -> None:
    """Each attempt at a test is judged by its own time."""
    starvation.begin()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why a test was run again: what passes in the end is looked into as well."""
    for report in terminalreporter.getreports("rerun"):
        crash = getattr(report.longrepr, "reprcrash", None)
        message = crash.message.splitlines()[0] if crash is not None else str(report.longrepr)[:200]
        terminalreporter.write_line(f"run again: {report.nodeid}: {message[:300]}")


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that is there before anybody sends, where the packages of the extra are."""
    if not is_installed():
        absent("the extra otel: install the requirements of development again")
    from tests.traces.collector import Collector

    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQ]:
    """A private RabbitMQ node that a test may stop, kill, freeze and restart; it must be running again at the test's end."""
    yield from _private(RabbitMQ)


@pytest.fixture(scope="session")
def rabbit_cluster() -> Iterator[RabbitCluster]:
    """Three private RabbitMQ nodes in one cluster; it starts in 20 s, so only `faults` tests ask for it."""
    yield from _private(RabbitCluster)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A private Redis that a test may stop, kill, freeze and restart; it must be running again at the test's end."""
    yield from _private(Redis)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A private PostgreSQL that a test may stop, kill, freeze and restart; it must be running again at the test's end."""
    yield from _private(Postgres)


@pytest.fixture(scope="session")
def rabbitmq_url(request: pytest.FixtureRequest) -> str:
    """The URL of the session's RabbitMQ: TEST_MDQ_URL when given."""
    return os.environ.get("TEST_MDQ_URL") or str(request.getfixturevalue("rabbitmq_server").url)


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    """The URL of the session's Redis: TEST_MDC_URL when given."""
    return os.environ.get("TEST_MDC_URL") or str(request.getfixturevalue("redis_server").url)


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a new database: on the server of TEST_POSTGRES_URL when given; it is dropped after the test."""
    server = os.environ.get("TEST_POSTGRES_URL") or str(request.getfixturevalue("postgres_server").url)
    name = f"tapeline_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def mdq_url(rabbitmq_url: str) -> str:
    """The session's RabbitMQ without any market-data queue."""
    _without_queues(rabbitmq_url)
    return rabbitmq_url


@pytest.fixture
def emptied_server(rabbitmq_server: RabbitMQ) -> RabbitMQ:
    """The private RabbitMQ without any market-data queue."""
    _without_queues(rabbitmq_server.url)
    return rabbitmq_server


@pytest.fixture
def mdc_url(redis_url: str) -> str:
    """The session's Redis with an empty database."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    return redis_url


def _private(kind: type[S]) -> Iterator[S]:
    try:
        server = kind()
    except ServerMissing as missing:
        absent(str(missing))
        return
    try:
        server.start()
        yield server
    finally:
        server.remove()


def _without_queues(url: str) -> None:
    with ThreadPoolExecutor(1) as thread:  # a test's own event loop must not be disturbed
        thread.submit(asyncio.run, delete_queues(url)).result()


async def delete_queues(url: str) -> None:
    """Delete every market-data queue of a server."""
    connection = await aiormq.connect(url)
    channel = await connection.channel()
    for queue in [*all_queues(PARTITIONS_MAX), progress_queue()]:
        await channel.queue_delete(queue.name)
    await connection.close()

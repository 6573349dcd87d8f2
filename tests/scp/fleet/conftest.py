"""An exchange of a file's own, which may be killed, and a control plane on it that has nothing to complain about."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.engine_process import EngineProcess
from tests.scp.conftest import ScpProcess
from tests.scp.fleet.paper_ground import exchange_in, plane_of


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An exchange with a contract, and nobody on it."""
    engine = exchange_in(tmp_path_factory.mktemp("exchange"))
    yield engine
    engine.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def plane(exchange: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScpProcess]:
    """A control plane that has an operator's key of it; whatever a file did to both, nothing broke in it."""
    started = plane_of(exchange, tmp_path_factory.mktemp("plane"))
    yield started
    started.end()
    assert started.event("request_failed") is None
    assert not [line for line in started.lines if '"level": "error"' in line or "Traceback" in line]

"""A control plane on each of the databases that it may have."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.scp.conftest import Person, ScpProcess


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.live)])
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScpProcess]:
    """A control plane whose administrator exists: on SQLite, and on PostgreSQL."""
    more: dict[str, str] = {}
    if request.param == "postgres":
        server = request.getfixturevalue("postgres_server")
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute("DROP DATABASE IF EXISTS scp_plane WITH (FORCE)")
            admin.execute("CREATE DATABASE scp_plane")
        more["SCP_DATABASE_URL"] = server.url_of("scp_plane")
    started = ScpProcess(tmp_path_factory.mktemp("plane"), WDS_PORT="1", **more)
    assert started.admin
    yield started
    started.end()


@pytest.fixture
def boss(plane: ScpProcess) -> Person:
    """The first administrator."""
    return Person(plane, plane.admin["value"], "ann", 1)

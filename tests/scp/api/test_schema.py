"""Requests made from the API's own OpenAPI document, as every role: no 5xx, and no answer that is not documented."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from tests.scp.api.probing import probe
from tests.scp.conftest import ScpProcess

EXAMPLES = 2  # of each route, each role and each mode
AWAY = (
    "no_listener",
    "no_engine",
    "engine_unavailable",
)  # what is not there in this test; with all of it: test_schema_running.py


def not_our_fault(context: Any, response: Any, case: Any) -> None:
    """No 5xx, but for a clear word on what is not there."""
    if not (response.status_code == 503 and response.json().get("code") in AWAY and "retry-after" in response.headers):
        not_a_server_error(context, response, case)


ENDS_THE_SESSION = ("/api/v1/sign-out",)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A control plane of this file's own: what is asked of it is wild."""
    started = ScpProcess(tmp_path_factory.mktemp("plane"), WDS_PORT="1")
    assert started.admin
    yield started
    started.end()


@pytest.fixture(scope="module")
def headers(plane: ScpProcess) -> dict[str, dict[str, str]]:
    """What each role sends: a session's cookie and word."""
    people = {role: plane.person(role) for role in ("viewer", "operator", "admin")}
    found = {role: {"X-CSRF-Token": one.csrf, "Cookie": f"tapeline-{plane.port}={one.secret}"} for role, one in people.items()}
    return {"nobody": {}, **found}


@pytest.mark.parametrize("role", ["nobody", "viewer", "operator", "admin"])
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_documented(
    plane: ScpProcess, headers: dict[str, dict[str, str]], role: str, mode: GenerationMode
) -> None:
    """What the document allows and what it forbids."""
    schema = schemathesis.openapi.from_dict(plane.api("GET", "/openapi.json").body)
    operations = [found.ok() for found in schema.get_all_operations()]
    url = f"http://127.0.0.1:{plane.port}"
    asked = sum(
        probe(one, mode, url, headers[role], [not_our_fault], EXAMPLES) for one in operations if one.path not in ENDS_THE_SESSION
    )
    assert asked > len(operations)
    if role != "nobody":
        assert plane.ask("/api/v1/me", **{name.replace("-", "_"): value for name, value in headers[role].items()}).status == 200

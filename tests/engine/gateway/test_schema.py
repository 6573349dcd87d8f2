"""Requests made from the gateway's own OpenAPI document: no 5xx, and no status or shape that is not documented.

Half of the requests name things that exist, so that they get further than "unknown"; the other half break the document. The
same as each role, and without a key: whatever is asked, it is answered as documented.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from engine.access.keys import Caller, Role
from engine.access.rules import allows, rule_of
from engine.gateway.app import Doors
from engine.gateway.door import DoorLimits
from tests.engine.gateway.ground import exchange
from tests.engine_process import OPERATOR

EXAMPLES, EXAMPLES_OF_ROLES = 30, 6
ROLES: dict[str, tuple[Any, ...]] = {"nobody": (), "trader": (Role.TRADER, "1"), "market-data": (Role.MARKET_DATA,)}
UNLIMITED = Doors(DoorLimits(0, 0, 0))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
KNOWN: dict[str, list[Any]] = {
    "account": [1, 2], "symbol": ["BTC-PERP"], "storeId": ["oms", '""'], "messageIndex": [0, 3], "clOrdID": ["a", "b"],
    "price": [100, "99.5"], "orderQty": [1, 5], "amount": [1, 1_000], "rate": ["0.0001"], "markPrice": [100], "side": ["Buy", "Sell"],
    "role": ["operator"], "accounts": [""], "stores": [[]], "expires": [""],
}  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """An exchange in a loop and a thread of its own, so that blocking clients may ask it."""
    folder = tmp_path_factory.mktemp("exchange")
    ready: dict[str, Any] = {}
    begun = threading.Event()

    async def serve(folder: Path) -> None:
        async with exchange(folder, doors=UNLIMITED) as ground:
            await ground.market(1, 2)
            await ground.ask("PUT", "/MessageStore?storeId=oms")
            ready["headers"] = {name: ground.key(*terms) if terms else {} for name, terms in ROLES.items()}
            ready.update(url=ground.url, loop=asyncio.get_running_loop(), stop=asyncio.Event())
            begun.set()
            await ready["stop"].wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve(folder)))
    thread.start()
    assert begun.wait(20)
    yield ready
    ready["loop"].call_soon_threadsafe(ready["stop"].set)
    thread.join(20)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_is_answered_otherwise_than_documented(served: dict[str, Any], mode: GenerationMode) -> None:
    """Every operation, with requests that follow the document and requests that break it, by an operator."""
    statuses = _probe_all(served["url"], mode, OPERATOR, EXAMPLES)
    broken = [name for name, seen in statuses.items() if not seen]
    assert not broken or mode is GenerationMode.NEGATIVE
    assert any(status < 300 for seen in statuses.values() for status in seen) or mode is GenerationMode.NEGATIVE


@pytest.mark.parametrize("role", ROLES)
def test_every_role_is_answered_as_documented(served: dict[str, Any], role: str) -> None:
    """What a role may not is 401 without a key and 403 with one; what it may works."""
    statuses = _probe_all(served["url"], GenerationMode.POSITIVE, served["headers"][role], EXAMPLES_OF_ROLES)
    for name, seen in statuses.items():
        method, path = name.split()
        refused = {401} if role == "nobody" else {403}
        caller = Caller("", ROLES[role][0] if ROLES[role] else None)
        if not allows(rule_of(method, path), caller):
            assert seen <= refused, (name, seen)
        else:
            assert 401 not in seen or (role, name) == ("nobody", "GET /OrderBook"), (name, seen)
            assert min(seen) < 500


def _probe_all(url: str, mode: GenerationMode, headers: dict[str, str], examples: int) -> dict[str, set[int]]:
    schema = schemathesis.openapi.from_url(f"{url}/docs/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 33
    statuses: dict[str, set[int]] = {}
    for operation in operations:
        seen = statuses.setdefault(f"{operation.method.upper()} {operation.path}", set())
        _probe(operation, mode, url, seen, headers, examples)
    return statuses


def _probe(operation: Any, mode: GenerationMode, url: str, seen: set[int], headers: dict[str, str], examples: int) -> None:
    strategy = operation.as_strategy(generation_mode=mode)

    @settings(
        max_examples=examples, deadline=None, phases=[Phase.generate], database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=strategy, dice=st.randoms(use_true_random=False))
    def ask(case: Any, dice: Any) -> None:
        if mode is GenerationMode.POSITIVE and dice.random() < 0.7:
            for fields in (case.query, case.path_parameters, case.body if isinstance(case.body, dict) else None):
                for name in set(fields or ()) & KNOWN.keys():
                    fields[name] = dice.choice(KNOWN[name])
        if not headers:
            (case.headers or {}).pop("Authorization", None)  # schemathesis makes one up
        answer = case.call(base_url=url, headers=headers)
        seen.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    try:
        ask()
    except Unsatisfiable:  # an operation without parameters cannot be broken
        assert mode is GenerationMode.NEGATIVE
        assert not operation.query

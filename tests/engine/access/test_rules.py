"""The table of rules: it covers every route of the gateway, and what it does not know is for operators."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.access.keys import Caller, Role
from engine.access.rules import RULES, Need, allows, rule_of
from tests.engine.gateway.ground import exchange


async def test_every_route_has_a_rule_and_every_rule_a_route(tmp_path: Path) -> None:
    """A new route gets its line in the table, or this fails; automatic OPTIONS and HEAD are for operators."""
    async with exchange(tmp_path) as ground:
        app = ground.gateway.application
        found = set()
        for route in app.routes:
            path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path).rstrip("/")
            methods = getattr(route, "methods", None) or {"WEBSOCKET"}
            found |= {(str(method), path) for method in methods if method not in ("OPTIONS", "HEAD")}
    assert found - RULES.keys() - {("GET", "/docs/{path}")} == set()
    assert RULES.keys() - found == set()


@pytest.mark.parametrize(
    ("method", "path", "need"),
    [
        ("GET", "/OrderBook/", Need.PUBLIC), ("GET", "/Account/7", Need.READ), ("POST", "/Account/7/Deposit", Need.OPERATOR),
        ("POST", "/Account/7/Withdraw/", Need.OWN), ("POST", "/Account/7/x/Withdraw", Need.OPERATOR), ("WEBSOCKET", "/joined", Need.STORE),
        ("GET", "/joined", Need.OPERATOR), ("GET", "/", Need.OPERATOR), ("GET", "//Order", Need.OPERATOR), ("PATCH", "/Order", Need.OPERATOR),
        ("GET", "/docs/../Key", Need.OPERATOR), ("GET", "/orderbook", Need.OPERATOR), ("GET", "/Account/", Need.READ),
    ],
)  # fmt: skip
def test_a_request_finds_its_rule(method: str, path: str, need: Need) -> None:
    """A slash at the end changes nothing; whatever is spelled otherwise is for operators."""
    assert rule_of(method, path).need is need


def test_each_need_has_its_roles() -> None:
    """Nobody is let in by a public rule only."""
    nobody, trader, data, replica, operator = Caller(""), *(Caller(role.value, role) for role in (
        Role.TRADER, Role.MARKET_DATA, Role.REPLICA, Role.OPERATOR))  # fmt: skip
    table = {
        need: [
            allows(next(rule for rule in (*RULES.values(),) if rule.need is need), who)
            for who in (nobody, trader, data, replica, operator)
        ]
        for need in Need
    }
    assert table == {
        Need.PUBLIC: [True, True, True, True, True],
        Need.KEY: [False, True, True, True, True],
        Need.OWN: [False, True, False, False, True],
        Need.READ: [False, True, True, False, True],
        Need.STORE: [False, False, True, False, True],
        Need.REPLICA: [False, False, False, True, True],
        Need.OPERATOR: [False, False, False, False, True],
    }

"""Says for every route of the gateway who may use it. What is not in the table is for operators.

`OWN` and `STORE` are two checks: the role here, and the account or store of the request where it is known, in the handler.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from engine.access.keys import Caller, Role


class Need(StrEnum):
    """Who may use a route."""

    PUBLIC = "anybody"
    KEY = "whoever has a key"
    OWN = "a trader for its own accounts, or an operator"
    READ = "a trader for its own accounts, a market-data key (message stores tell it the same), or an operator"
    STORE = "a market-data key for its stores, or an operator"
    REPLICA = "a standby (replica key) or an operator"
    OPERATOR = "an operator"


class Rule(NamedTuple):
    """Who may use a route, and whether it counts as an order."""

    need: Need
    is_order: bool = False


RULES: dict[tuple[str, str], Rule] = {
    ("GET", "/OrderBook"): Rule(Need.PUBLIC),
    ("GET", "/Instrument"): Rule(Need.PUBLIC),
    ("GET", "/docs"): Rule(Need.PUBLIC),
    ("GET", "/docs/openapi.json"): Rule(Need.PUBLIC),
    ("GET", "/docs/openapi.yaml"): Rule(Need.PUBLIC),
    ("GET", "/docs/openapi.yml"): Rule(Need.PUBLIC),
    ("GET", "/ExchangeWideControls"): Rule(Need.KEY),
    ("POST", "/Order"): Rule(Need.OWN, is_order=True),
    ("PUT", "/Order"): Rule(Need.OWN, is_order=True),
    ("DELETE", "/Order"): Rule(Need.OWN, is_order=True),
    ("GET", "/Order"): Rule(Need.OWN),
    ("GET", "/Order/History"): Rule(Need.OWN),
    ("GET", "/Fill"): Rule(Need.OWN),
    ("DELETE", "/Order/All"): Rule(Need.OWN, is_order=True),
    ("PUT", "/Order/CancelAllAfter"): Rule(Need.OWN, is_order=True),
    ("PUT", "/KillSwitch"): Rule(Need.OWN),
    ("GET", "/Account"): Rule(Need.READ),
    ("GET", "/Account/{account}"): Rule(Need.READ),
    ("POST", "/Account/{account}/Withdraw"): Rule(Need.OWN),
    ("POST", "/Account/{account}/Deposit"): Rule(Need.OPERATOR),  # says that money came, which a trader cannot
    ("GET", "/MessageStore"): Rule(Need.STORE),
    ("PUT", "/MessageStore"): Rule(Need.STORE),
    ("DELETE", "/MessageStore/Purge"): Rule(Need.STORE),
    ("GET", "/MessageStore/Purge"): Rule(Need.STORE),
    ("WEBSOCKET", "/v1/trade"): Rule(Need.OWN),
    ("WEBSOCKET", "/joined"): Rule(Need.STORE),
    ("DELETE", "/MessageStore"): Rule(Need.OPERATOR),
    ("PUT", "/MessageStore/Suspension"): Rule(Need.OPERATOR),
    ("PUT", "/Instrument"): Rule(Need.OPERATOR),
    ("DELETE", "/Instrument"): Rule(Need.OPERATOR),
    ("PUT", "/MarkPrice"): Rule(Need.OPERATOR),
    ("PUT", "/Funding"): Rule(Need.OPERATOR),
    ("PUT", "/LivenessCheck"): Rule(Need.OPERATOR),
    ("PUT", "/ExchangeWideControls/SuspendTrading"): Rule(Need.OPERATOR),
    ("PUT", "/ExchangeWideControls/ResumeTrading"): Rule(Need.OPERATOR),
    ("GET", "/Replication"): Rule(Need.REPLICA),
    ("WEBSOCKET", "/v1/replication"): Rule(Need.REPLICA),
    ("GET", "/Key"): Rule(Need.OPERATOR),
    ("POST", "/Key"): Rule(Need.OPERATOR),
    ("DELETE", "/Key"): Rule(Need.OPERATOR),
}
UNKNOWN = Rule(Need.OPERATOR)
ROLES: dict[Need, tuple[Role, ...]] = {
    Need.PUBLIC: tuple(Role),
    Need.KEY: tuple(Role),
    Need.OWN: (Role.TRADER, Role.OPERATOR),
    Need.READ: (Role.TRADER, Role.MARKET_DATA, Role.OPERATOR),
    Need.STORE: (Role.MARKET_DATA, Role.OPERATOR),
    Need.REPLICA: (Role.REPLICA, Role.OPERATOR),
    Need.OPERATOR: (Role.OPERATOR,),
}


def rule_of(method: str, path: str) -> Rule:
    """Return the rule of a request; `method` is WEBSOCKET for one. A slash at the end changes nothing."""
    path = path.rstrip("/")
    found = RULES.get((method, path))
    if found is None and path.startswith("/Account/"):
        _, _, rest = path.removeprefix("/Account/").partition("/")
        found = RULES.get((method, f"/Account/{{account}}/{rest}".rstrip("/")))
    return found or UNKNOWN


def allows(rule: Rule, caller: Caller) -> bool:
    """Return whether a caller's role is enough for a rule."""
    return rule.need is Need.PUBLIC or caller.role in ROLES[rule.need]

"""What people and tokens may do: scopes, and the roles that are sets of them. Whatever is not named here is refused."""

from __future__ import annotations

SCOPES = {
    "account": "one's own account: password, second factor, sessions, tokens",
    "view": "the page with one's own layouts, and the market data on it",
    "trade": "paper trading on the built-in exchange, with an account of one's own",
    "inspect": "components, queues, clients, message stores and dead letters: their state and counters",
    "operate": "what changes components, queues, clients and bad events",
    "exchange": "what changes message stores, trading and dead orders",
    "keys": "the keys that sign stream tokens",
    "people": "people, their roles, sessions and tokens",
    "audit": "the audit log",
}
ROLES = {
    "viewer": frozenset({"account", "view"}),
    "trader": frozenset({"account", "view", "trade"}),
    "operator": frozenset({"account", "view", "inspect", "operate", "exchange"}),
    "admin": frozenset(SCOPES),
}
TOKEN_SCOPES = frozenset(SCOPES) - {"account"}  # a token never changes the password of who made it


def scopes_of(role: str, asked: frozenset[str] | None = None) -> frozenset[str]:
    """Return what a role may do, or, for a token, what of `asked` its owner's role still may."""
    own = ROLES.get(role, frozenset())
    return own if asked is None else own & asked & TOKEN_SCOPES

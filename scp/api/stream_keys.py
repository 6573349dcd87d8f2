"""The keys that sign stream tokens: /jwks.json for whoever verifies tokens, /api/v1/stream-keys for administrators."""

from __future__ import annotations

import msgspec

from scp.api.calls import Answer, Call, Route
from scp.problems import Problem
from scp.security.rules import PUBLIC


class StreamKeyShown(msgspec.Struct):
    """A key. `state`: next (shown, does not sign yet), signing, passing (signs no more; its last tokens still live)."""

    kid: str
    state: str
    made_ms: int
    signs_ms: int


class StreamKeys(msgspec.Struct):
    """All keys that data services know, the oldest first."""

    stream_keys: list[StreamKeyShown]


def jwks(call: Call) -> Answer:
    """Give the public keys of stream tokens (a JSON Web Key Set)."""
    return Answer(call.control.stream_keys.jwks())


def list_stream_keys(call: Call) -> Answer:
    """List the keys that sign stream tokens."""
    return Answer({"stream_keys": call.control.stream_keys.listed()})


def make_stream_key(call: Call) -> Answer:
    """Make the key that signs next; it begins once every data service has fetched it."""
    call.control.stream_keys.make_next(call.me.name, call.asked)
    return list_stream_keys(call)


def withdraw_stream_key(call: Call) -> Answer:
    """Take a key out of use at once: somebody else may have it. What it signed opens nothing after WDS's next fetch."""
    try:
        call.control.stream_keys.withdraw(call.path["kid"], call.me.name, call.asked)
    except KeyError:
        raise Problem(404, "not_found", f"There is no key {call.path['kid'][:64]!r}") from None
    return Answer(status=204)


ROUTES = (
    Route("GET", "/jwks.json", PUBLIC, jwks, gives=dict),
    Route("GET", "/api/v1/stream-keys", "keys", list_stream_keys, gives=StreamKeys),
    Route("POST", "/api/v1/stream-keys", "keys", make_stream_key, gives=StreamKeys),
    Route("DELETE", "/api/v1/stream-keys/{kid}", "keys", withdraw_stream_key, status=204, may_answer=(404,)),
)

"""Reads the header Idempotency-Key and answers a retry as the first request was answered.

A key belongs to an account where the command does, else to the operators. It is kept with the hash of what was asked and with the
answer in the journal, in the same record as what the command did.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar
from hashlib import blake2b
from typing import Any

import msgspec
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.openapi.spec import Example
from litestar.params import HeaderParameter

from engine.core.state import State
from engine.gateway.problems import Answered, Refused, problem_bytes
from engine.journal.sequencer import Asked, KeyReused, KeysFull, Outcome

HEADER = "Idempotency-Key"
KEY_LENGTH_MAX = 128
PLAIN = re.compile(r"[\x21-\x7e]*")
# How the header is documented on every route that changes something; `read_key` checks it.
HEADER_PARAMETER = HeaderParameter(
    annotation=str, name=HEADER, required=False, default="", max_length=KEY_LENGTH_MAX, pattern=f"^{PLAIN.pattern}$",
    description="kept for three days: the same request with the same key is done once and answered alike, another one is refused",
    examples=[Example(value="5f0c7a7e-deposit-1")],
)  # fmt: skip
_KEY: ContextVar[str] = ContextVar("idempotency_key", default="")
_ENCODER = msgspec.json.Encoder()


async def read_key(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Take the key of a request for whatever its handler submits.  Raises: Refused."""
    key = connection.headers.get(HEADER, "")
    if len(key) > KEY_LENGTH_MAX or not PLAIN.fullmatch(key):
        raise Refused(400, "BadRequest", f"{HEADER} has up to {KEY_LENGTH_MAX} printable ASCII characters and no spaces.")
    _KEY.set(key)


def asked(kind: str, account: int | None, what: Any, view: Callable[[Outcome], Any], status: int) -> Asked | None:
    """Return what goes along with a command, None without a key. `what` is the request; `view` shows its outcome."""
    key = _KEY.get()
    if not key:
        return None

    def answer(outcome: Outcome) -> tuple[int, str]:
        try:
            return status, _ENCODER.encode(view(outcome)).decode()
        except Refused as refused:
            return refused.status, problem_bytes(refused.status, refused.code, refused.detail, refused.order_id).decode()

    digest = blake2b(kind.encode() + b"\0" + _ENCODER.encode(what), digest_size=16).hexdigest()
    return Asked(f"{'' if account is None else account}:{key}", digest, answer)


def answer_again(state: State, one: Asked | None) -> None:
    """Raise the answer when the state knows it.  Raises: Answered, Refused for a key of another request."""
    kept = state.keys.kept.get(one.key) if one is not None else None
    if one is not None and kept is not None:
        if kept.digest != one.digest:
            raise reused()
        raise Answered(kept.status, kept.body)


def reused() -> Refused:
    """Return the problem of a key that was used for something else."""
    return Refused(422, "IdempotencyKeyReused", "This Idempotency-Key was used for another request; give each its own.")


def refused_of(error: KeyReused | KeysFull) -> Refused:
    """Return the problem of a key that the sequencer refuses."""
    if isinstance(error, KeyReused):
        return reused()
    return Refused(503, "IdempotencyKeysFull", "No more keys are taken until the oldest are three days old; ask without one.")

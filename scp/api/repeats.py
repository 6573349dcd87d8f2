"""Answers a destructive request that is sent again under the same Idempotency-Key as it was answered the first time, for a day.

Invariant: a key belongs to one caller and one request, which is carried out at most once under it, unless it failed with 5xx.
"""

from __future__ import annotations

import hashlib
import json
import re

import msgspec

from scp.api.calls import Answer, Call, Route
from scp.problems import Problem

KEPT_MS = 86_400_000
KEY = re.compile(r"[!-~]{1,128}")
UNDER_WAY = 0  # instead of a status
LOST_MS = 60_000  # who is under way for so long has died


def once(route: Route, call: Call) -> Answer:
    """Return the answer to a request with a key: the first one's, if there was one.  Raises: Problem 400, 409, 422."""
    if not KEY.fullmatch(call.idempotency_key):
        raise Problem(400, "bad_key", "An Idempotency-Key has 1 to 128 printable characters without spaces")
    who = f"{call.me.user_id}:{call.me.token_id}"
    name = hashlib.sha256(f"{who}\n{call.idempotency_key}".encode()).hexdigest()
    said = json.dumps([route.method, route.path, dict(call.path), call.query, call.if_match])
    asked = hashlib.sha256(said.encode() + call.raw).hexdigest()
    if (before := _begin(call, name, asked)) is not None:
        return before
    try:
        given = route.handler(call)
    except Problem as problem:
        if problem.status >= 500:
            _forget(call, name)
        else:
            _keep(call, name, problem.status, problem.more, json.dumps({"code": problem.code, "detail": problem.detail}))
        raise
    except BaseException:
        _forget(call, name)
        raise
    status = given.status if given.status != 200 else route.status
    body = "" if given.document is None else msgspec.json.encode(given.document).decode()
    _keep(call, name, status, given.headers, body)
    return given


def _begin(call: Call, name: str, asked: str) -> Answer | None:
    now_ms = call.asked.now_ms
    with call.control.store.transaction() as db:
        table = db.repeated_answer
        db((table.at_ms < now_ms - KEPT_MS) | ((table.status == UNDER_WAY) & (table.at_ms < now_ms - LOST_MS))).delete()
        mark = call.control.store.mark
        text = (
            f"INSERT INTO repeated_answer (name, asked, status, headers, body, at_ms) VALUES ({mark}, {mark}, 0, '', '', {mark}) "  # noqa: S608
            "ON CONFLICT (name) DO NOTHING RETURNING id"
        )
        if db.executesql(text, (name, asked, now_ms)):
            return None
        row = db(table.name == name).select().first()
    if row is None or row.status == UNDER_WAY:
        raise Problem(409, "under_way", "The first request with this Idempotency-Key is still under way; ask again in a moment")
    if row.asked != asked:
        raise Problem(422, "key_reused", "This Idempotency-Key belongs to another request; take a new one")
    headers = tuple((str(key), str(value)) for key, value in json.loads(row.headers))
    if row.status >= 400:
        said = json.loads(row.body)
        raise Problem(row.status, said["code"], said["detail"], headers)
    return Answer(msgspec.Raw(row.body.encode()) if row.body else None, row.status, headers=headers)


def _keep(call: Call, name: str, status: int, headers: tuple[tuple[str, str], ...], body: str) -> None:
    with call.control.store.transaction() as db:
        found = db(db.repeated_answer.name == name)
        found.update(status=status, headers=json.dumps(headers), body=body, at_ms=call.asked.now_ms)


def _forget(call: Call, name: str) -> None:
    with call.control.store.transaction() as db:
        db(db.repeated_answer.name == name).delete()

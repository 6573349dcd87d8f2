"""A request with an idempotency key is done once, over HTTP, and a retry is answered as the first one was: also after a crash."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.core.events import KeyUsed, decode
from engine.core.keys import KEPT_NS, KEYS_BYTES_MAX
from engine.journal.reader import read
from engine.recovery.snapshot import restore, snapshot
from service.clock import ManualClock
from tests.engine.gateway.ground import Ground, exchange

PLACE = {"account": 1, "symbol": "BTC-PERP", "clOrdID": "a", "side": "Buy", "orderQty": 10, "price": 100}


async def keyed(ground: Ground, method: str, path: str, key: str, body: Any = None) -> httpx.Response:
    return await ground.http.request(method, ground.url + path, json=body, headers={"Idempotency-Key": key})


def same(one: httpx.Response, other: httpx.Response) -> bool:
    names = ("status_code", "content")
    return all(getattr(one, name) == getattr(other, name) for name in names) and (
        one.headers["content-type"] == other.headers["content-type"]
    )


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/Account/1/Deposit", {"amount": 1_000}),
        ("POST", "/Account/1/Withdraw", {"amount": 1_000}),
        ("POST", "/Account/1/Withdraw", {"amount": 10**15}),
        ("PUT", "/Funding?symbol=BTC-PERP&rate=0.0001", None),
        ("PUT", "/MarkPrice?symbol=BTC-PERP&price=101", None),
        ("PUT", "/KillSwitch?account=1&on=true", None),
        ("PUT", "/ExchangeWideControls/SuspendTrading", None),
        ("PUT", "/MessageStore?storeId=new", None),
        ("DELETE", "/Order/All?account=1", None),
        ("DELETE", "/Order?account=1&clOrdID=first", None),
        ("PUT", "/Order", {"account": 1, "clOrdID": "first", "orderQty": 3}),
        ("POST", "/Order", PLACE),
        ("PUT", "/Instrument", {"symbol": "NEW", "tickSize": "1", "lotSize": "1", "markPrice": 5}),
    ],
)
async def test_a_retry_changes_nothing_and_is_answered_alike(
    tmp_path: Path, method: str, path: str, body: dict[str, Any] | None
) -> None:
    """At once, at the same time, after others, after a crash, after a snapshot; and it differs from a request without a key."""
    async with exchange(tmp_path) as ground:
        await ground.market(1, 2)
        await ground.order(1, "first", "Buy", 5, 99)
        both = await asyncio.gather(*[keyed(ground, method, path, "k", body) for _ in range(2)])
        assert same(*both)
        assert (both[0].status_code == 422) == (body == {"amount": 10**15})
        before = ground.digest
        await ground.ask("POST", "/Account/2/Deposit", amount=5)
        assert same(both[0], await keyed(ground, method, path, "k", body))
        await ground.ask("POST", "/Account/2/Withdraw", amount=5)
    async with exchange(tmp_path) as ground:
        assert same(both[0], await keyed(ground, method, path, "k", body))
        state = ground.sequencer.state
        found = restore(snapshot(state, 1, bytes(16), 1)).state
        assert (found.digest(), found.keys.kept, found.keys.bytes) == (state.digest(), state.keys.kept, state.keys.bytes)
        ground.sequencer._exchange.state.keys = found.keys
        assert same(both[0], await keyed(ground, method, path, "k", body))
    used = [event for record in read(tmp_path) for event in decode(record.payload) if isinstance(event, KeyUsed)]
    assert len(used) == 1
    assert before


async def test_a_key_of_another_request_is_refused(ground: Ground) -> None:
    """Another amount, another path; another account has keys of its own, and so have the operators."""
    assert (await keyed(ground, "POST", "/Account/1/Deposit", "k", {"amount": 1})).status_code == 200
    before = ground.digest
    for method, path, body in (("POST", "Deposit", {"amount": 2}), ("POST", "Withdraw", {"amount": 1})):
        answer = await keyed(ground, method, f"/Account/1/{path}", "k", body)
        assert (answer.status_code, answer.json()["code"]) == (422, "IdempotencyKeyReused")
        assert answer.headers["content-type"].startswith("application/problem+json")
    assert ground.digest == before
    assert (await keyed(ground, "POST", "/Account/2/Deposit", "k", {"amount": 2})).status_code == 200
    assert (await keyed(ground, "PUT", "/ExchangeWideControls/SuspendTrading", "k")).status_code == 200


@pytest.mark.parametrize("key", ["x" * 129, "with space", "\u00e4"])
async def test_a_key_is_short_and_plain(ground: Ground, key: str) -> None:
    """Anything else is a bad request, and nothing is done."""
    before = ground.digest
    answer = await ground.http.post(
        f"{ground.url}/Account/1/Deposit", json={"amount": 1}, headers=[("Idempotency-Key", key.encode("latin-1"))]
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "BadRequest")
    assert ground.digest == before


async def test_a_key_is_kept_for_three_days_and_not_for_ever(tmp_path: Path) -> None:
    """After that it is a new one."""
    clock = ManualClock()
    async with exchange(tmp_path, clock=clock) as ground:
        first = await keyed(ground, "POST", "/Account/1/Deposit", "k", {"amount": 1})
        clock.advance(KEPT_NS - 10**9)
        assert same(first, await keyed(ground, "POST", "/Account/1/Deposit", "k", {"amount": 1}))
        clock.advance(2 * 10**9)
        await keyed(ground, "POST", "/Account/1/Deposit", "other", {"amount": 1})
        assert not same(first, await keyed(ground, "POST", "/Account/1/Deposit", "k", {"amount": 1}))
        assert ground.sequencer.state.ledger.accounts[1].balance_units == 3


async def test_full_keys_refuse_new_ones_and_forget_none(ground: Ground) -> None:
    """Known ones are answered, requests without a key are done."""
    first = await keyed(ground, "POST", "/Account/1/Deposit", "k", {"amount": 1})
    ground.sequencer.state.keys.bytes = KEYS_BYTES_MAX
    answer = await keyed(ground, "POST", "/Account/1/Deposit", "other", {"amount": 1})
    assert (answer.status_code, answer.json()["code"]) == (503, "IdempotencyKeysFull")
    assert same(first, await keyed(ground, "POST", "/Account/1/Deposit", "k", {"amount": 1}))
    await ground.ask("POST", "/Account/1/Deposit", amount=1)


async def test_the_header_is_documented_where_something_changes(ground: Ground) -> None:
    """On every such path, and on no other."""
    paths = (await ground.ask("GET", "/docs/openapi.json"))["paths"]
    for path, methods in paths.items():
        for method, operation in methods.items():
            names = [one["name"] for one in operation.get("parameters", []) if one["in"] == "header"]
            assert names == ([] if method == "get" else ["Idempotency-Key"]), (method, path)

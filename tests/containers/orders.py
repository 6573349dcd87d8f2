"""Sends orders to whichever exchange takes them until standard input ends; runs in a container of the stack, read from a pipe.

`python -c "$(cat orders.py)"`. Prints, at the end, one JSON line: client ids with the order ids that were told, and the longest
time between two answers. An order without an answer is sent again as it was.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx

ENGINES = ("http://engine:8181", "http://standby:8181")
ACCOUNT, SYMBOL, PRICE = 4711, "DRILL-PERP", 50_000
PAUSE_S = 0.02


async def insist(client: httpx.AsyncClient, method: str, path: str, body: Any) -> httpx.Response:
    """Return the first answer that is not `503`, whoever gives it."""
    while True:
        for url in ENGINES:
            try:
                answer = await client.request(method, url + path, json=body)
            except httpx.TransportError:
                continue
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return answer
        await asyncio.sleep(PAUSE_S)


async def trade(key: str, stop: asyncio.Event) -> None:
    """Trade until `stop`, then say what was acknowledged."""
    acknowledged: dict[str, str] = {}
    gap_s, repeated = 0.0, 0
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=2, trust_env=False) as client:
        terms = {"symbol": SYMBOL, "tickSize": "0.5", "lotSize": "0.001", "markPrice": PRICE}
        for method, path, body in (("PUT", "/Instrument", terms), ("POST", f"/Account/{ACCOUNT}/Deposit", {"amount": 10**9})):
            (await insist(client, method, path, body)).raise_for_status()
        run = time.time_ns()
        told_s = time.monotonic()
        while not stop.is_set():
            name = f"drill-{run}-{len(acknowledged)}"
            order = {"account": ACCOUNT, "symbol": SYMBOL, "clOrdID": name, "side": "Buy", "orderQty": 1, "price": PRICE}
            answer = await insist(client, "POST", "/Order", {**order, "timeInForce": "ImmediateOrCancel"})
            if answer.status_code not in (httpx.codes.CREATED, httpx.codes.CONFLICT):
                raise RuntimeError(answer.text)
            repeated += answer.status_code == httpx.codes.CONFLICT
            acknowledged[name] = answer.json()["orderId"]
            gap_s, told_s = max(gap_s, time.monotonic() - told_s), time.monotonic()
            await asyncio.sleep(PAUSE_S)
    print(json.dumps({"acknowledged": acknowledged, "gap_s": round(gap_s, 2), "repeated": repeated}))


async def main(key: str) -> None:
    """Trade until standard input ends."""
    stop = asyncio.Event()
    reading = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    reading.add_done_callback(lambda _: stop.set())
    await trade(key, stop)


if __name__ == "__main__":
    asyncio.run(main(Path("/run/secrets/engine_token").read_text().strip()))

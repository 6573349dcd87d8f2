"""Checks the process that asks, with the official client, against servers that fail in every way there is."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from mdp.enrich.lines import Call, Chunk, Done, Errand, Line, encode, read_line
from mdp.enrich.questions import DAYS, Order, order_for
from service.days.markets import STOCKS
from tests.mdp.enrich.vendor import Server, http

NOW_MS = 1_795_450_000_000  # a Monday in November 2026
SOON = """
import sys
import mdp.enrich.client, mdp.enrich.pace, mdp.enrich.__main__ as asking
mdp.enrich.client.READ_S_MAX, mdp.enrich.client.ANSWER_S_MAX = 0.3, 1.0
mdp.enrich.pace.PAUSE_S, mdp.enrich.pace.LIMITED_S, mdp.enrich.pace.OPEN_S = 0.02, 0.02, 0.05
asking.BAD_ANSWERS_MAX = 3
sys.exit(asking.main())
"""  # the same, in less time
ROW = {"T": "A", "o": 1, "h": 3, "l": 1, "c": 2, "v": 100, "vw": 1.5}
RIGHT: dict[str, Any] = {
    "/v3/reference/splits": {"results": []},
    "/v2/aggs/grouped": {"results": [ROW], "resultsCount": 1},
    "/v2/snapshot": {"tickers": [], "count": 0},
    "/stocks/vX/float": {"results": [{"ticker": "A", "free_float": 7, "effective_date": "2026-11-20"}]},
}
FAILURES: dict[str, tuple[bytes | None, str]] = {
    "server error": (http(500, {}), "answered 500"),
    "gateway": (http(503, b"<html>"), "answered 503"),
    "asked too often": (http(429, {}), "too often (429)"),
    "redirect": (b"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "reached"),
    "half an answer": (http(200, b'{"results":[', 500), "Connection broken"),
    "half a document": (http(200, b'{"results":['), "another shape"),
    "half the rows": (http(200, {"results": [ROW], "resultsCount": 9}), "half an answer"),
    "no JSON": (http(200, b"<html>sorry</html>"), "another shape"),
    "another shape": (http(200, {"results": {"T": "A"}}), "another shape"),
    "rows of another shape": (http(200, {"results": [{"symbol": "A"}]}), "another shape"),
    "no rows": (http(200, {"status": "OK"}), "another shape"),
    "no HTTP": (b"hello\r\n\r\n", "cannot be"),
    "hangs up": (b"", "cannot be reached"),
    "says nothing": (None, "cannot be reached"),
}


def right(target: str) -> bytes:
    return next(http(200, body) for path, body in RIGHT.items() if target.startswith(path))


def order(day_ms: int = NOW_MS) -> Order:
    return order_for(STOCKS, STOCKS.day_of(day_ms).start_ms, NOW_MS, 4)


async def asks(port: int, what: Order, seconds: float = 40.0) -> tuple[list[Line], int]:
    """Run the process to its end; return what it said, and its exit code."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SOON, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(encode(Errand(what, f"http://127.0.0.1:{port}", "good", 6_000)) + b"\n")
    try:
        async with asyncio.timeout(seconds):
            body = await process.stdout.read()
            return [read_line(line) for line in body.splitlines()], await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def facts(lines: list[Line], sheet: str = "past") -> bytes:
    """Return the last part of a sheet, empty when there is none."""
    return bytes(next((line.facts for line in reversed(lines) if isinstance(line, Chunk) and line.sheet == sheet), b""))


async def test_every_failure_is_told_and_asked_again() -> None:
    """One after the other, each before a right answer: a reason in words, and in the end all is known, from few calls."""
    failures, failed = dict(FAILURES), list[str]()

    def answer(target: str) -> bytes | None:
        if failures and len(failed) < len(server.targets) // 2:  # every second one
            failed.append(next(iter(failures)))
            return failures.pop(failed[-1])[0]
        return right(target)

    async with Server(answer) as server:
        lines, code = await asks(server.port, order())
    calls = [line for line in lines if isinstance(line, Call)]
    reasons = [call.why for call in calls if call.why]
    assert (code, failed) == (0, list(FAILURES))
    assert len(reasons) == len(FAILURES)
    for (_, said), reason in zip(FAILURES.values(), reasons, strict=True):
        assert said in reason
        assert "\n" not in reason
    assert sum(call.outcome == "answered" for call in calls) == DAYS + 3
    assert facts(lines) == b'{"A":[2.0,100,7,1.0,3.0,1.0,100,1.5]}'
    assert [line.last for line in lines if isinstance(line, Done) and line.sheet == "past"][-1]
    assert all("authorization: bearer good" in head.lower() for head in server.heads)
    assert all("adjusted=false" in target for target in server.targets if "grouped" in target)


async def test_what_a_plan_does_not_include_is_not_asked_again() -> None:
    """Without floats and snapshots the rest is there; each refusal costs one call."""
    refused = ("/v2/snapshot", "/stocks/vX/float")
    async with Server(lambda target: http(403, {}) if target.startswith(refused) else right(target)) as server:
        lines, code = await asks(server.port, order())
    assert (code, len(server.targets)) == (0, DAYS + 3)
    assert [line.why for line in lines if isinstance(line, Call) and line.outcome == "refused"] == [
        "does not give this with the plan of this API key (403)"
    ] * 2
    assert facts(lines) == b'{"A":[2.0,100,null,1.0,3.0,1.0,100,1.5]}'


async def test_a_key_that_is_refused_ends_it() -> None:
    """After one call: it is useless to try again now."""
    async with Server(lambda _: http(401, {})) as server:
        lines, code = await asks(server.port, order())
    assert (code, len(server.targets)) == (4, 1)
    assert [line.why for line in lines if isinstance(line, Call)] == ["refused the API key (401)"]


async def test_a_service_that_always_answers_in_another_shape_is_passed_over() -> None:
    """Nothing is known, nothing is wrong, and it is said that it is worth another try later."""
    async with Server(lambda target: http(200, {"rows": []}) if "grouped" in target else right(target)) as server:
        lines, code = await asks(server.port, order())
    assert code == 5
    assert facts(lines) == b'{"A":[null,null,7,null,null,null,null,null]}'
    assert not any(line.last for line in lines if isinstance(line, Done) and line.sheet == "past")


async def test_it_ends_with_the_worker_that_started_it() -> None:
    """However long a service is away: nobody keeps asking for a worker that is gone."""
    async with Server(lambda _: http(500, {})) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mdp.enrich", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(encode(Errand(order(), f"http://127.0.0.1:{server.port}", "good", 6_000)) + b"\n")
        async with asyncio.timeout(30):
            assert b"answered 500" in await process.stdout.readline()
            process.stdin.close()
            assert await process.wait() == 0


async def test_pages_are_followed_on_our_server_alone() -> None:
    """A next page that names another host is asked here, with its cursor; the key goes nowhere else."""

    def answer(target: str) -> bytes:
        if not target.startswith("/stocks/vX/float"):
            return right(target)
        row = {"ticker": "B" if "cursor" in target else "A", "free_float": 7, "effective_date": "2026-11-20"}
        more = {} if "cursor" in target else {"next_url": "https://elsewhere.example/stocks/vX/float?cursor=abc"}
        return http(200, {"results": [row]} | more)

    async with Server(answer) as server:
        lines, code = await asks(server.port, order())
    assert code == 0
    assert server.targets[-1] == "/stocks/vX/float?cursor=abc"
    assert [line.symbols for line in lines if isinstance(line, Done)][-1] == 2


@pytest.mark.parametrize("line", [b"{}", b""])
async def test_a_broken_errand_is_no_errand(line: bytes) -> None:
    """It ends with an error: nobody but a worker starts it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mdp.enrich", stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate(line + b"\n")
    assert process.returncode == 1
    assert b"Error" in said

"""Requests made from the API's OpenAPI document while everything runs: feeds, queues, clients, the exchange, paper accounts, the
vendor's data. What is named is what is there, so that requests come through to it; what is wild is wild in all else."""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from tests.local_run import LocalRun
from tests.scp.api.probing import probe, streams
from tests.waiting import until_sync

EXAMPLES = 3
RUNTIME = (
    "components", "listeners", "queues", "clients", "stores", "trading", "dead-letters", "paper", "company", "candles", "stream-tokens",
)  # fmt: skip
STOCKS = ["AMD", "NVDA", "BRK.B", "NOSUCH", "O:AMD261218C00100000", "BTC-PERP", "USD/EUR"]
ENDS = ("/drain",)  # what ends a component is tests/live/test_operations.py's subject
AWAY = (
    "vendor_slow",
    "vendor_busy",
    "vendor_away",
    "no_engine",
)  # all ask the vendor's stand-in at once here, whose feed is stopped meanwhile; orders have no queue without RabbitMQ


class Plane:
    """The run's control plane, asked as its administrator."""

    def __init__(self, run: LocalRun) -> None:
        (cookie,) = run.cookies()
        self.port = run.port("SCP_PORT")
        self.url = f"http://127.0.0.1:{self.port}"
        self.headers = {"Cookie": f"{cookie['name']}={cookie['value']}"}
        self.headers["X-CSRF-Token"] = str(self.ask("GET", "/api/v1/me")["csrf"])

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Return a good answer's document."""
        on = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        given = {} if method == "GET" else {"Content-Type": "application/json"}
        on.request(method, path, None if body is None else json.dumps(body), self.headers | given | more)
        answer = on.getresponse()
        raw = answer.read()
        on.close()
        assert answer.status < 300, (path, answer.status, raw[:300])
        return json.loads(raw) if raw else None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRun]:
    """A whole run that does little beside."""
    settings = {"FEED": "simulator+engine+news", "SYMBOLS": "20", "RATE": "100", "BOTS_RATE": "10"}
    with LocalRun(tmp_path_factory.mktemp("run"), **settings) as started:
        started.says("ready after")
        yield started


@pytest.fixture(scope="module")
def plane(run: LocalRun) -> Plane:
    """With a paper account, once everything runs."""
    made = Plane(run)
    until_sync(lambda: made.ask("GET", "/api/v1/queues")["queues"], 30, "queues")
    until_sync(lambda: made.ask("GET", "/api/v1/components?state=unready")["components"] == [], 60, "everything ready")
    made.ask("POST", "/api/v1/paper/account")
    return made


def ordered(plane: Plane, key: str) -> str:
    """Rest an order in the book; return its id."""
    contract = plane.ask("GET", "/api/v1/paper")["contracts"][0]
    body = {"symbol": contract["symbol"], "side": "Buy", "qty": 1, "price": contract["mark"] * 0.95 // 10 * 10}
    return str(plane.ask("POST", "/api/v1/paper/orders", body, Idempotency_Key=key)["id"])


def there(plane: Plane) -> dict[str, list[str]]:
    """Return what the parts of paths may be: what is there, and one that is not."""
    plane.ask("PUT", "/api/v1/stores/audit")
    plane.ask("PUT", "/api/v1/stores/audit/suspension", {"age_ms_max": 86_400_000})  # nobody reads it: trading goes on
    plane.ask("POST", "/api/v1/trading/resume", {"reason": "whatever was asked before"})
    names = {
        "component": [one["id"] for one in plane.ask("GET", "/api/v1/components")["components"]],
        "queue": [one["name"] for one in plane.ask("GET", "/api/v1/queues")["queues"]][:3],
        "store": [one["name"] or '""' for one in plane.ask("GET", "/api/v1/stores")],
        "order": [ordered(plane, secrets.token_hex(8)) for _ in range(3)],
        "listener": [one["name"] for one in plane.ask("GET", "/api/v1/listeners")],
        "symbol": STOCKS,
    }
    return {name: [*found, "nobody"] for name, found in names.items()}


def told(document: dict[str, Any], names: dict[str, list[str]]) -> dict[str, Any]:
    """Return the document with what is there in the place of any text."""
    for methods in document["paths"].values():
        for operation in methods.values():
            for parameter in operation["parameters"]:
                known = names.get(parameter["name"])
                if parameter["in"] == "path" and known:
                    parameter["schema"] = {"type": "string", "enum": known}
                elif parameter["name"] == "span":
                    parameter["schema"] = {"type": "string", "enum": ["1m", "5m", "1h", "1d", "2m"]}
    order = document["components"]["schemas"]["PaperOrderBody"]["properties"]
    order["symbol"] = {"type": "string", "enum": ["BTC-PERP", "ETH-PERP", "NOSUCH"]}
    return document


def of_runtime(path: str) -> bool:
    """Whether a path leads beyond the control plane itself."""
    return path.startswith((*(f"/api/v1/{word}" for word in RUNTIME), "/MessageStore", "/ExchangeWide")) and not path.endswith(
        ENDS
    )


def no_fault(context: Any, response: Any, case: Any) -> None:
    """No 5xx at all, but for a vendor that has enough."""
    if not (response.status_code == 503 and response.json().get("code") in AWAY and "retry-after" in response.headers):
        not_a_server_error(context, response, case)


def test_the_logo_and_the_bars_are_of_the_kinds_that_the_document_names(plane: Plane) -> None:
    """Every kind of picture that is served is in it; a page of candles leads to the next by `next`."""
    document = plane.ask("GET", "/openapi.json")
    kinds = document["paths"]["/api/v1/company/{symbol}/logo"]["get"]["responses"]["200"]["content"]
    assert set(kinds) == {"image/png", "image/jpeg"}
    first = until_sync(
        lambda: said if (said := plane.ask("GET", "/api/v1/candles/AMD?span=1m&limit=50"))["bars"] else None, 30, "bars"
    )
    again = plane.ask("GET", f"/api/v1/candles/AMD?span=1m&limit=50&before={first['next']}")
    assert again["bars"][-1][0] < first["bars"][0][0]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_what_runs_answers_as_documented(run: LocalRun, plane: Plane, mode: GenerationMode) -> None:
    """Everything that is asked of components, exchange and vendor; afterwards all of it runs as before."""
    schema = schemathesis.openapi.from_dict(told(plane.ask("GET", "/openapi.json"), there(plane)))
    operations = [found.ok() for found in schema.get_all_operations()]
    chosen = [one for one in operations if of_runtime(one.path) and not streams(one)]
    assert len(chosen) > 40
    before = run.pids()
    asked = sum(probe(one, mode, plane.url, plane.headers, [no_fault], EXAMPLES) for one in chosen)
    assert asked > len(chosen)
    assert run.pids() == before, "nothing has ended"
    assert plane.ask("GET", "/api/v1/me")["username"]

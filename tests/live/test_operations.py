"""The control plane's API on a whole pipeline: real RabbitMQ, Redis, exchange and components, steered and broken from outside."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import redis as redis_client
from websockets.sync.client import connect

from engine.orders.topology import DEAD
from mdc import keys
from service.heartbeat import Beat, seal
from tests.engine.orders.ground import depth, push
from tests.scp.conftest import Person, Reply, ScpProcess
from tests.servers import free_port
from tests.stack import Stack, stack
from tests.waiting import until_sync

pytestmark = pytest.mark.live
ENGINE_TOKEN = "the operator of this test"
WAIT_S = 40


class Site:
    """A stack with a control plane on it, and somebody who may do everything."""

    def __init__(self, parts: Stack) -> None:
        self.parts = parts
        gateway, self.stream = free_port(), free_port()
        self.scp = ScpProcess(
            parts.folder, MDC_URL=parts.cache.url, WDS_PORT=str(self.stream), SCP_ENGINE_TOKEN=ENGINE_TOKEN,
            SCP_ENGINE_URL=f"http://127.0.0.1:{gateway}",
        )  # fmt: skip
        until_sync(lambda: self.scp.event("page_ready"), WAIT_S, "the control plane")
        parts.start(
            "engine", "engine serve", ENGINE_PORT=gateway, ENGINE_API_TOKEN=ENGINE_TOKEN, ENGINE_DIR=parts.folder / "engine",
            ENGINE_ORDERS_URL=parts.rabbitmq.url, ENGINE_ORDERS_TRUST="broker",
        )  # fmt: skip
        self.listen()
        for number in range(2):
            parts.start(f"mdp-{number}", "mdp")
        keys_at = f"http://127.0.0.1:{self.scp.port}/jwks.json"
        parts.start("wds", "wds serve", WDS_PORT=self.stream, WDS_JWKS_URL=keys_at)
        self.boss = Person(self.scp, self.scp.admin["value"])
        self.csrf = self.boss.csrf
        until_sync(lambda: {one["kind"] for one in self.ready()} == {"engine", "mdl", "mdp", "wds"}, WAIT_S, "all are ready")

    def listen(self) -> None:
        """Start the listener."""
        port = self.parts.ports.get("mdl") or free_port()
        self.parts.start("mdl", "mdl", MDL_FEED="simulator", MDL_RATE=500, MDL_SYMBOLS=50, MDL_LEASE_TTL_MS=1000)
        self.parts.ports.setdefault("mdl", port)

    def get(self, path: str) -> Any:
        """Return what must be there; a busy machine may be late once."""
        reply = until_sync(lambda: (found := self.boss.get(f"/api/v1{path}")).status != 503 and found, WAIT_S, path)
        assert reply.status == 200, reply.body
        return reply.body

    def do(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """Change something."""
        return self.boss.change(method, f"/api/v1{path}", body, csrf=self.csrf, **headers)

    def ready(self) -> list[dict[str, Any]]:
        """Return the components that are ready (the control plane's page need not be built)."""
        reply = self.boss.get("/api/v1/components")
        if reply.status != 200:
            return []
        return [one for one in reply.body["components"] if one["state"] == "ready" and one["kind"] != "scp"]

    def one(self, kind: str) -> dict[str, Any]:
        """Return a component of a kind."""
        return next(one for one in self.get(f"/components?kind={kind}")["components"])

    def audited(self, action: str) -> dict[str, Any]:
        """Return the newest entry of an action."""
        return next(entry for entry in self.get("/audit?limit=200")["entries"] if entry["action"] == action)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """One site for all tests of this file."""
    with stack() as parts:
        made = Site(parts)
        yield made
        made.scp.end()


def test_the_inventory_and_what_can_be_asked(site: Site) -> None:
    """Everybody is there with rates; metrics and readiness come through; a log level is set; each with its entry."""
    kinds = [one["kind"] for one in site.get("/components")["components"]]
    assert sorted(kinds) == ["engine", "mdl", "mdp", "mdp", "scp", "wds"]
    until_sync(lambda: site.one("mdl")["rates"].get("received_events_s", 0) > 0, WAIT_S)

    def owned() -> list[int]:
        workers = site.get("/components?kind=mdp")["components"]
        return sorted(number for one in workers for number in one["partitions"] or ())

    until_sync(lambda: owned() == list(range(8)), WAIT_S, "the workers share the partitions")
    page = site.get("/components?limit=2")
    assert len(page["components"]) == 2
    assert page["total"] == 6
    assert site.get(f"/components?after={page['next']}")["components"][0]["id"] > page["next"]
    wds = site.one("wds")["id"]
    assert "tapeline_wds_connections" in site.get(f"/components/{wds}/metrics")
    assert site.get(f"/components/{wds}/readyz")["ready"] is True
    assert site.do("PUT", f"/components/{wds}/log-level", {"level": "debug"}).status == 200
    until_sync(lambda: site.one("wds")["log_level"] == "debug", WAIT_S)
    entry = site.audited("component.log_level")
    assert (entry["target"], entry["detail"]) == (wds, {"before": {"level": "info"}, "after": {"level": "debug"}})
    assert site.do("POST", f"/components/{wds}/feed/stop").body["code"] == "wrong_kind"


def test_a_configuration_is_wanted_kept_and_put_back(site: Site) -> None:
    """Asked first, versioned, applied, put back after a restart and after a change past us; rolled back; forgotten."""
    base = "/listeners/mdl/configuration"
    assert site.do("PUT", base, {"rate": 50}).status == 428
    refused = site.do("PUT", base, {"rate": -1}, If_Match='"0"')
    assert (refused.status, refused.body["code"]) == (422, "listener_refuses")
    dry = site.do("PUT", f"{base}?dry_run=1", {"rate": 700}, If_Match='"0"').body
    assert (dry["version"], dry["changes"]) == (None, [{"field": "rate", "before": None, "after": 700.0}])
    assert site.get(base)["version"] == 0
    done = site.do("PUT", base, {"rate": 700, "api_key": "hush-hush", "note": "more"}, If_Match='"0"')
    assert (done.status, done.raw.getheader("ETag"), done.body["judged"][0]["accepted"]) == (200, '"1"', True)
    assert site.do("PUT", base, {"rate": 1}, If_Match='"0"').status == 412

    def rate() -> float:
        feed = site.get(f"/components/{site.one('mdl')['id']}/feed")
        return float(feed["sources"]["simulator"]["settings"]["rate"])

    assert rate() == 700
    assert site.get(base)["secrets"] == ["api_key"]
    assert "hush-hush" not in json.dumps(site.get(base)) + json.dumps(site.get("/audit")) + site.scp.run_dir.joinpath(
        "scp/scp.sqlite"
    ).read_bytes().decode("latin-1")
    site.parts.stop("mdl")
    site.listen()
    until_sync(
        lambda: site.ready() and site.get(base)["running"] and site.get(base)["running"][0]["in_force"], WAIT_S, "put back"
    )
    assert rate() == 700
    past(site, "/feed", {"rate": 3})
    until_sync(lambda: rate() == 700, WAIT_S, "put back after a change past us")
    assert site.do("PUT", base, {"symbols": 40}, If_Match='"1"').status == 200
    assert rate() == 500, "what is left out is the listener's own"
    assert site.get(f"{base}/difference?before=1&after=2")["changes"] == [
        {"field": "rate", "before": 700.0, "after": None}, {"field": "symbols", "before": None, "after": 40},
    ]  # fmt: skip
    assert site.do("POST", f"{base}/rollback", {"version": 1}, If_Match='"2"').body["version"] == 3
    assert rate() == 700
    assert [one["version"] for one in site.get(f"{base}/versions")["versions"]] == [3, 2, 1]
    assert site.do("DELETE", base, If_Match='"3"').body["version"] == 4
    assert (rate(), site.get(base)["managed"], site.get(base)["secrets"]) == (500, False, [])


def past(site: Site, path: str, body: Any) -> None:
    """Change a listener at its own admin port, past the control plane."""
    token = (site.parts.folder / "admin.token").read_text()
    request = urllib.request.Request(
        site.one("mdl")["admin"] + path, json.dumps(body).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}, method="POST",
    )  # fmt: skip
    urllib.request.urlopen(request, timeout=10).close()


def test_a_purge_of_a_queue_is_a_loss_that_the_pipeline_tells(site: Site) -> None:
    """What waits is gone, and `status:pipeline` counts it."""
    until_sync(lambda: site.ready() and site.get("/queues")["total"] == 50, WAIT_S)
    workers = [site.parts.processes[f"mdp-{number}"] for number in range(2)]

    def lost() -> int:
        counts = site.parts.counts()
        return counts["dropped"] + counts["expired"]

    before = lost()
    for worker in workers:
        worker.send_signal(signal.SIGSTOP)
    try:
        chosen = until_sync(
            lambda: [one for one in site.get("/queues?limit=5000")["queues"] if one["depth"] > 0 and one["stream"] == "quotes"],
            WAIT_S, "batches wait",
        )  # fmt: skip
        purged = site.do("DELETE", f"/queues/{chosen[0]['name']}")
        assert purged.status == 200
        assert purged.body["purged_batches"] > 0
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGCONT)
    until_sync(lambda: lost() > before, WAIT_S, "the loss is counted")
    assert site.audited("queue.purge")["detail"]["after"] == {"purged_batches": purged.body["purged_batches"]}
    until_sync(lambda: site.get("/queues")["streams"], WAIT_S)
    assert site.do("DELETE", "/queues/md.nothing.0").status == 404


def test_a_script_streams_and_is_kicked(site: Site) -> None:
    """A token for fewer channels than the role has; the client is seen with its user, and sent off for good."""
    made = site.do("POST", "/stream-tokens", {"channels": ["quote:*"], "seconds": 60}).body
    assert made["expires_s"] == 60
    assert site.do("POST", "/stream-tokens", {"channels": ["secret:*"]}).status == 422
    with connect(made["wds_url"], subprotocols=None, compression=None) as socket:
        hello = json.loads(socket.recv(10))
        socket.send(json.dumps({"id": 1, "op": "auth", "token": made["token"]}))
        assert json.loads(socket.recv(10))["ok"]
        socket.send(json.dumps({"id": 2, "op": "sub", "ch": ["board:volume"]}))
        reply = json.loads(socket.recv(10))
        assert reply["subs"][0]["error"]["code"] == "forbidden"
        (client,) = (one for one in site.get("/clients")["clients"] if one["conn"] == hello["conn"])
        assert (client["user"], client["worker"]) == ("ann", site.one("wds")["id"])
        kicked = site.do("POST", f"/clients/{client['conn']}/kick", {})
        assert kicked.status == 200
        bye = next(frame for frame in map(json.loads, iter(lambda: socket.recv(10), None)) if frame.get("t") == "bye")
        assert bye["code"] == 4003
        assert "after_ms" not in bye
    assert site.audited("client.kick")["detail"]["before"]["conn"] == client["conn"]
    assert site.do("POST", f"/clients/{client['conn']}/kick", {}).status == 404


def test_message_stores_and_trading(site: Site) -> None:
    """Created, filled, counted, purged once under its key, suspended, deleted; trading stops and goes on with reasons."""
    assert site.do("PUT", "/stores/audit-trail").status == 200
    for _ in range(3):
        assert site.do("POST", "/trading/suspend", {"reason": "drill"}).body["suspended"] is True
        assert site.do("POST", "/trading/resume", {"reason": "drill over"}).body["suspended"] is False
    assert site.do("POST", "/trading/suspend", {"reason": " "}).status == 422
    assert site.get("/trading")["note"] == "drill over"
    counted = site.do("POST", "/stores/audit-trail/purge", {"dry_run": True}).body
    assert counted["messages"] == site.get("/stores/audit-trail")["messages"] > 0
    before = site.get("/stores/audit-trail")
    part = {"dry_run": True, "message_index": (before["first_index"] + before["last_index"]) // 2}
    some = site.do("POST", "/stores/audit-trail/purge", part).body
    assert 0 < some["messages"] < before["messages"] == some["messages"] + some["left"]
    purge = {"message_index": counted["message_index"]}
    first = site.do("POST", "/stores/audit-trail/purge", purge, Idempotency_Key="purge-1")
    assert (first.status, first.body["messages"], first.body["left"]) == (200, counted["messages"], 0)
    entries = len(site.get("/audit?limit=500")["entries"])
    again = site.do("POST", "/stores/audit-trail/purge", purge, Idempotency_Key="purge-1")
    assert (again.status, again.body) == (200, first.body)
    assert len(site.get("/audit?limit=500")["entries"]) == entries, "nothing was done a second time"
    other = site.do("POST", "/stores/audit-trail/purge", {"message_index": 1}, Idempotency_Key="purge-1")
    assert (other.status, other.body["code"]) == (422, "key_reused")
    assert site.do("PUT", "/stores/audit-trail/suspension", {"age_ms_max": 7_200_000}).body["age_ms_max"] == 7_200_000
    listed = site.boss.get("/MessageStore/").body
    assert [one["storeId"] for one in listed] == ["audit-trail"]
    through = site.boss.change("PUT", "/ExchangeWideControls/SuspendTrading", csrf=site.csrf)
    assert (through.status, through.body["suspended"]) == (200, True)
    assert site.boss.change("DELETE", "/MessageStore?storeId=none", csrf=site.csrf).status == 404
    assert site.do("POST", "/trading/resume", {"reason": "over"}).status == 200
    assert site.do("DELETE", "/stores/audit-trail").body["code"] == "StoreInUse"
    assert site.do("DELETE", "/stores/audit-trail?force=1").status == 204
    assert site.do("DELETE", "/stores/audit-trail").status == 404
    assert site.boss.get("/joined").status == 404, "consumers use the gateway itself"


def test_dead_letters_of_both_kinds(site: Site) -> None:
    """Bad events are seen, downloaded, cleared; dead orders are seen, requeued (and die again), discarded."""
    with redis_client.Redis.from_url(site.parts.cache.url) as cache:
        cache.delete(keys.DEAD_LETTERS)
        cache.lpush(keys.DEAD_LETTERS, b'{"ts":5,"stream":"trades","partition":0,"reason":"no price","event":"{}"}', b"nonsense")
    events = site.get("/dead-letters/events?limit=1")
    assert (events["total"], events["next"], events["letters"][0]["reason"]) == (2, 1, "not one of ours")
    assert site.get("/dead-letters/events?after=1")["letters"][0]["reason"] == "no price"
    assert len(site.get("/dead-letters/events/download").splitlines()) == 2
    assert site.do("DELETE", "/dead-letters/events").body["cleared"] >= 2
    asyncio.run(push(site.parts.rabbitmq.url, [b"no order", b"none either"]))
    letters = until_sync(lambda: len(found := site.get("/dead-letters/orders")["letters"]) == 2 and found, WAIT_S)
    assert letters[0]["reason"] == "Malformed"
    assert site.do("POST", f"/dead-letters/orders/{letters[0]['id']}/requeue").status == 200
    until_sync(lambda: asyncio.run(depth(site.parts.rabbitmq.url, DEAD)) == 2, WAIT_S, "it died again")
    assert site.do("DELETE", f"/dead-letters/orders/{letters[1]['id']}").status == 200
    assert site.do("DELETE", "/dead-letters/orders").body == {"cleared": 1}


def test_a_forged_heartbeat_gets_nothing(site: Site) -> None:
    """It is shown, and neither asked nor sent the token: here without the seal, and outside of the networks with it."""
    token = (site.parts.folder / "admin.token").read_text().encode()
    for name, key, address in (("mdl-evil-1", b"wrong", "127.0.0.1"), ("mdl-evil-2", token, "192.0.2.1")):
        beat = Beat(
            id=name, kind="mdl", name="evil", version="", host="", pid=1, instance="", started_ms=1, log_level="info", ready=True,
            admin=f"http://{address}:{free_port()}", reasons=["<script>alert(1)</script>"], rates={},
        )  # fmt: skip
        body = msgspec.json.encode(beat)
        value = b'{"at_ms":9999999999999,"seal":"%s","beat":%s}' % (seal(key, body).encode(), body)
        site.parts.redis.hset(keys.COMPONENTS, name, value)
        assert site.get(f"/components/{name}")["controllable"] is False
        for method, path in (("POST", "drain"), ("POST", "feed/stop"), ("GET", "metrics")):
            asked = (
                site.do(method, f"/components/{name}/{path}")
                if method == "POST"
                else site.boss.get(f"/api/v1/components/{name}/{path}")
            )
            assert (asked.status, asked.body["code"]) == (409, "not_controllable")
        site.parts.redis.hdel(keys.COMPONENTS, name)


def test_a_drained_worker_hands_over_and_ends_well(site: Site) -> None:
    """Exit code 0; its partitions are the other's; it is not missing but gone; one that is killed is stale."""
    first, second = site.get("/components?kind=mdp")["components"]
    assert site.do("POST", f"/components/{first['id']}/drain").status == 202
    gone = next(name for name, process in site.parts.processes.items() if process.pid == first["pid"])
    until_sync(lambda: site.parts.processes[gone].poll() is not None, WAIT_S, "it has ended")
    assert site.parts.processes.pop(gone).returncode == 0
    until_sync(lambda: site.get(f"/components/{second['id']}")["partitions"] == list(range(8)), WAIT_S, "handed over")
    assert site.boss.get(f"/api/v1/components/{first['id']}").status == 404
    entry = site.audited("component.drain")["detail"]
    assert entry["before"]["instance"] == first["instance"]
    killed = next(name for name, process in site.parts.processes.items() if process.pid == second["pid"])
    site.parts.stop(killed, signal.SIGKILL)
    until_sync(lambda: site.get(f"/components/{second['id']}")["state"] == "stale", WAIT_S, "stale")
    assert site.boss.get(f"/api/v1/components/{second['id']}/readyz").body["code"] == "component_unreachable"
    assert site.do("POST", f"/components/{second['id']}/drain").status == 503
    failed = site.audited("component.drain.failed")
    assert (failed["target"], bool(failed["detail"]["why"])) == (second["id"], True)
    assert site.audited("component.drain.begin")["id"] == failed["id"] - 1


def test_what_is_away_is_a_clear_503(site: Site) -> None:
    """RabbitMQ, the exchange, Redis: each is named, with when to ask again; and all is well when they are back."""
    site.parts.rabbitmq.kill()
    until_sync(lambda: site.boss.get("/api/v1/queues").status == 503, WAIT_S)
    away = site.boss.get("/api/v1/dead-letters/orders")
    assert (away.status, away.raw.getheader("Retry-After")) == (503, "5")
    assert "RabbitMQ" in away.body["detail"]
    site.parts.rabbitmq.start()
    until_sync(lambda: site.boss.get("/api/v1/queues").status == 200, WAIT_S, "queues are back")
    site.parts.stop("engine", signal.SIGKILL)
    assert site.boss.get("/api/v1/stores").body["code"] == "engine_unavailable"
    assert site.do("POST", "/trading/suspend", {"reason": "x"}).status == 503
    site.parts.cache.kill()
    away = site.boss.get("/api/v1/components")
    assert (away.status, away.body["code"]) == (503, "cache_unavailable")
    assert site.boss.get("/api/v1/me").status == 200
    site.parts.cache.start()
    until_sync(lambda: {one["kind"] for one in site.ready()} >= {"mdl"}, WAIT_S, "heartbeats are back")

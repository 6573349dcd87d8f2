"""The whole of Tapeline on a Redis Cluster that lets in one user, over TLS with a certificate authority of its own."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from mdc import keys
from mdc.connect import AWAY, check_cache, open_cache
from mdl.lease import SourceLease, lease_client
from mdp.plugins.watchdog import _client
from service.errors import OperatorError
from service.keyspace import CLUSTERED
from tests.clusters.certificates import certified
from tests.clusters.redis import Cluster, Door
from tests.local_run import LocalRun
from tests.scp.api.test_layouts import layout
from tests.scp.conftest import Person, ScpProcess
from tests.stack import ROOT
from tests.waiting import until, until_sync

pytestmark = pytest.mark.live
PASSWORD = "p@ss:word/1% of it"
SMALL = {"SYMBOLS": "20", "RATE": "200", "BOTS_RATE": "100"}
WAIT_S = 40
TTL_MS = 9_000  # a busy machine takes a third of a second for the first handshakes alone


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three primaries behind one door."""
    made = Cluster(3, door=Door("feed", PASSWORD, certified(tmp_path_factory.mktemp("certificate"))))
    try:
        made.start()
        yield made
    finally:
        made.remove()


class Plane(ScpProcess):
    """The control plane of a `make run`."""

    def __init__(self, run: LocalRun) -> None:
        self.run_dir = run.dir
        self._port = run.port("SCP_PORT")

    @property
    def port(self) -> int:
        return self._port


def script(run: LocalRun, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of our commands against a run."""
    env = {**os.environ, "RUN_DIR": str(run.dir), "WDS_URL": f"ws://127.0.0.1:{run.port('WDS_PORT')}"}
    argv = [sys.executable, "-m", *arguments]
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=90, check=False)


def test_a_whole_run_and_its_control_plane(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make run` on the cluster: both markets are live, everybody is seen, layouts, dead letters, paper trading, sign-out."""
    cluster.empty()
    monkeypatch.setenv("MDC_URL", cluster.url)
    with LocalRun(tmp_path, MDC_URL=cluster.url, **SMALL) as run:
        run.says("ready after")
        assert PASSWORD not in run.output
        assert "p%40ss" not in run.output
        boss = Person(plane := Plane(run), plane.admin["value"])
        until_sync(lambda: '"bids":[[' in script(run, "wds", "get", "book:BTC-PERP").stdout, WAIT_S, every_s=0.2)
        for channel in ("board:volume", "news:latest", "status:pipeline"):
            until_sync(lambda channel=channel: channel in script(run, "wds", "get", channel).stdout, WAIT_S, channel, every_s=0.2)
        everybody_is_seen(run, boss)
        plugins = script(run, "mdp", "plugins")
        assert plugins.returncode == 0, plugins.stderr
        layouts_are_kept(boss)
        dead_letters_are_shown(cluster, boss)
        paper_is_pushed(plane, boss)
        sign_out_ends_streams(run, plane)
        run.interrupt()
        assert run.ends(30) == 0
        logs = "".join(path.read_text() for path in (tmp_path / "logs").glob("*.log"))
        assert "p%40ss" not in logs
        assert PASSWORD not in logs
        faults = [line for line in logs.splitlines() if '"level": "error"' in line or "Traceback" in line]
        assert not faults, faults[:5]


def everybody_is_seen(run: LocalRun, boss: Person) -> None:
    """The inventory has a beat of each component; one can be asked through it."""

    def ready() -> dict[str, dict[str, Any]]:
        found = boss.get("/api/v1/components")
        return {one["kind"]: one for one in found.body["components"] if one["state"] == "ready"} if found.status == 200 else {}

    wanted = {"mdl", "mdp", "wds", "engine", "bots", "scp"}
    until_sync(lambda: ready().keys() >= wanted, WAIT_S, f"a beat of each of {wanted}")
    wds = ready()["wds"]
    assert "tapeline_wds_connections" in boss.get(f"/api/v1/components/{wds['id']}/metrics").body
    assert boss.get(f"/api/v1/components/{ready()['mdp']['id']}").body["partitions"] == list(range(8))


def layouts_are_kept(boss: Person) -> None:
    made = boss.change("POST", "/api/v1/layouts", layout("Mine"))
    assert made.status == 201, made.body
    assert "Mine" in [one["name"] for one in boss.get("/api/v1/layouts").body]


def dead_letters_are_shown(cluster: Cluster, boss: Person) -> None:
    """Of two partitions on two nodes: as one list, the newest first; cleared in both."""
    for number, at in ((0, 5), (1, 6)):
        node = cluster.node_of(CLUSTERED.of(number))
        letter = b'{"ts":%d,"stream":"trades","partition":%d,"reason":"no price %d","event":"{}"}' % (at, number, number)
        with node.client() as client:
            client.lpush(f"{CLUSTERED.of(number)}{keys.DEAD_LETTERS}", letter)
    events = boss.get("/api/v1/dead-letters/events")
    assert [one["reason"] for one in events.body["letters"]] == ["no price 1", "no price 0"]
    assert boss.change("DELETE", "/api/v1/dead-letters/events").body["cleared"] == 2
    assert boss.get("/api/v1/dead-letters/events").body["total"] == 0


def paper_is_pushed(plane: ScpProcess, boss: Person) -> None:
    """An account is opened, an order placed, and its owner's page told."""
    assert boss.change("POST", "/api/v1/paper/account").status == 200
    connection = http.client.HTTPConnection("127.0.0.1", plane.port, timeout=20)
    connection.request("GET", "/api/v1/paper/stream", headers={"Cookie": f"tapeline-{plane.port}={boss.secret}"})
    stream = connection.getresponse()
    assert stream.status == 200
    order = {"symbol": "BTC-PERP", "side": "Buy", "qty": 1}
    placed = boss.change("POST", "/api/v1/paper/orders", order, Idempotency_Key="once")
    assert placed.status == 200, placed.body
    deadline = time.monotonic() + WAIT_S
    while b"BTC-PERP" not in stream.readline():
        assert time.monotonic() < deadline, "the page was not told"
    connection.close()


def sign_out_ends_streams(run: LocalRun, plane: ScpProcess) -> None:
    """Who signs out is cut off though the token is still good; the session of somebody else goes on."""
    leaving, staying = plane.person("viewer"), plane.person("viewer")
    url = f"ws://127.0.0.1:{run.port('WDS_PORT')}/v1/stream"
    with connect(url, compression=None) as gone, connect(url, compression=None) as other:
        for socket, person in ((gone, leaving), (other, staying)):
            token = person.get("/api/session").body["token"]
            json.loads(socket.recv(10))
            socket.send(json.dumps({"id": 1, "op": "auth", "token": token}))
            assert json.loads(socket.recv(10))["ok"]
        assert leaving.change("POST", "/api/v1/sign-out").status == 204
        told = next(frame for frame in map(json.loads, iter(lambda: gone.recv(10), None)) if frame.get("t") == "bye")
        assert told["code"] == 4001, told
        other.send(json.dumps({"id": 2, "op": "sub", "ch": ["quote:S1"]}))
        assert any(json.loads(other.recv(10)).get("id") == 2 for _ in range(3))


@pytest.mark.parametrize("component", ["mdp", "mdp plugins"])
def test_a_wrong_password_is_one_clear_line(cluster: Cluster, component: str, tmp_path: Path) -> None:
    """Of the process and of the client: what is wrong, what to set; never the password."""
    url = cluster.url.replace("p%40ss", "secret-word")
    env = os.environ | {"MDC_URL": url, "RUN_DIR": str(tmp_path), "MDP_ADMIN_PORT": "0"}
    argv = [sys.executable, "-m", *component.split()]
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=90, check=False)
    (line,) = (line for line in done.stderr.splitlines() if "refused the credentials" in line)
    assert done.returncode == 3, done.stderr
    assert "Set MDC_URL=redis-cluster://user:password@" in line
    assert "secret-word" not in done.stdout + done.stderr


async def test_a_wrong_certificate_or_no_password_says_so(cluster: Cluster, tmp_path: Path) -> None:
    """Another authority, none of our own, no user, plain TCP to a port of TLS: each names its reason."""
    other = certified(tmp_path)[0]
    plain, _, query = cluster.url.partition("?")
    nodes = plain.rpartition("@")[2]
    for url, words in (
        (f"{plain}?ssl_ca_certs={other}", "certificate verify failed"),
        (plain, "certificate verify failed"),
    ):
        client = open_cache(url)
        with pytest.raises(AWAY, match=words):
            await check_cache(client, url)
        await client.aclose()
    url = f"rediss-cluster://{nodes}?{query}"
    client = open_cache(url)
    with pytest.raises(OperatorError, match="refused the credentials"):
        await check_cache(client, url)
    await client.aclose()


async def _refused(lease: SourceLease) -> bool:
    """Ask; return whether the answer is that another one holds it."""
    assert not await lease.ask()
    return "another listener holds" in lease.reason


async def test_leases_and_the_watchdog_pass_the_door(cluster: Cluster) -> None:
    """Two listeners of a source: one holds it, the other gets it when it is given up; a plug-in is put off without an event loop."""
    cluster.empty()
    made = [lease_client(cluster.url, TTL_MS) for _ in range(2)]
    first, second = (SourceLease(client, "stocks", "a feed", TTL_MS) for client in made)
    first.start()
    await until(lambda: first.held)
    await until(lambda: _refused(second))
    await first.stop()
    await until(second.ask)
    for client in made:
        await client.aclose()
    client, shared = _client(cluster.url)
    client.hset(shared + keys.PLUGINS, "p", b"off")
    assert client.hgetall(shared + keys.PLUGINS) == {b"p": b"off"}
    client.close()

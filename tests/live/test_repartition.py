"""Changes the number of partitions of a running deployment in the middle of a recorded day, the command killed on the way."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mdq.connect import open_broker
from mdq.publisher import Publisher
from mdq.topology import STREAM_OF_EVENT
from service.partition import partition_of
from tests.live.test_tapes import check
from tests.oracle import events
from tests.stack import ROOT, Stack
from tests.tapes import tape

pytestmark = pytest.mark.live


def move(running: Stack, to: object, kill_after_s: float | None = None) -> tuple[int, str]:
    """Run the command; return its exit code and what it said."""
    env = os.environ | {"MDQ_URL": running.rabbitmq.url, "MDC_URL": running.cache.url}
    argv = [sys.executable, "-m", "mdp", "repartition", "--to", str(to)]
    with subprocess.Popen(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as command:
        if kill_after_s is not None:
            time.sleep(kill_after_s)  # at a random step
            command.kill()
        said = command.communicate(timeout=60)[0]
    return command.returncode, said


async def publish(running: Stack, partitions: int, some: list[dict[str, Any]]) -> None:
    """Publish a part of a tape as a vendor's live feed: a listener that replays would begin the day anew."""
    broker = open_broker(running.rabbitmq.url, "feed")
    await broker.connect()
    publisher = Publisher(broker, partitions, "live", lossless=True)
    await publisher.start()
    for event in some:
        stream, symbol = STREAM_OF_EVENT[event["ev"]], event.get("sym") or event["pair"]
        publisher.add(
            stream,
            partition_of(symbol, partitions),
            [json.dumps(event, default=float).encode()],
            time.time_ns(),
            event["t"] * 1_000_000,
        )
        await publisher.room()
    assert await publisher.drain(30)
    await publisher.close(1)
    await broker.close()


def play(running: Stack, partitions: int, some: list[dict[str, Any]], total: int) -> None:
    """Start processors, publish, wait until all is counted, stop them."""
    for n in range(2):
        running.start(f"mdp{n}", "mdp", MDP_WORKER=f"w{n}", MDQ_PARTITIONS=partitions)
    running.wait(
        "every partition owned", lambda: len(running.owners()) == partitions and len(set(running.owners().values())) == 2
    )
    asyncio.run(publish(running, partitions, some))
    running.wait("half of the tape", lambda: running.counts()["events"] >= total, 60)
    for name in ("mdp0", "mdp1"):
        running.stop(name)


def test_half_a_day_on_eight_partitions_and_half_on_twenty(running: Stack) -> None:
    """Equal to plain arithmetic over the whole day, nothing lost, nothing doubled; a listener of the old layout says nothing."""
    recorded: Path = tape("crypto-2021-04-17.ndjson.gz")
    day = list(events(recorded))
    middle, dice = len(day) // 2, random.Random(8)
    play(running, 8, day[:middle], middle)
    for _ in range(2):
        move(running, 20, dice.uniform(0.6, 2.5))
    code, said = move(running, 20)
    assert (code, "MDQ_PARTITIONS=20" in said) == (0, True), said
    running.start("wrong", "mdl", MDL_FEED="simulator", MDQ_PARTITIONS=8)
    running.wait("a refusal", lambda: "the cache has 20 partitions, this listener MDQ_PARTITIONS=8" in running.log("wrong"))
    running.stop("wrong")
    play(running, 20, day[middle:], len(day))
    check(running, recorded)
    counts = running.counts()
    assert (counts["events"], counts["expired"], counts["dropped"], counts["bad"]) == (len(day), 0, 0, 0)


def test_bad_input_is_refused_in_one_line(running: Stack) -> None:
    """A number out of bounds, and batches that nobody has processed: they are sorted by the old number."""
    for to in (0, 1025, "many"):
        code, said = move(running, to)
        assert (code, "must be a number from 1 to 1024" in said) == (2, True), said
    assert move(running, 8) == (
        0,
        "tapeline mdp: the cache is empty: nothing to move; start every component with MDQ_PARTITIONS=8\n",
    )
    running.redis.set("mdc:partitions", 8)
    running.start("mdl", "mdl", MDL_FEED="simulator", MDL_LEASE="off")
    running.wait("batches in the queues", lambda: "source_speaks" in running.log("mdl"))
    code, said = move(running, 16)
    assert (code, "batches wait in" in said) == (2, True), said

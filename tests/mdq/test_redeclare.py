"""The command that gives a stopped deployment's queues another type."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from mdq.connect import open_broker
from mdq.topology import all_queues, progress_queue
from service.errors import OperatorError
from tests.contract.broker_ground import TRADES, Reader, publish

PARTITIONS = 2


async def command(url: str, queue_type: str) -> tuple[int, str]:
    """Run the real command; return its exit code and what it said."""
    settings = {"MDQ_URL": url, "MDQ_QUEUE_TYPE": queue_type, "MDQ_PARTITIONS": str(PARTITIONS)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mdq", "redeclare", env={**os.environ, **settings},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


@pytest.mark.live
async def test_another_type_is_said_and_done_by_one_command(mdq_url: str) -> None:
    """A component that wants another type names the command; it refuses while somebody reads, then changes every queue, once."""
    queues = [*all_queues(PARTITIONS), progress_queue()]
    before, after = open_broker(mdq_url, "before"), open_broker(mdq_url, "after", queue_type="quorum")
    await before.connect()
    await before.declare(queues)
    reader = await Reader().read(before, [queues[-1]])
    await publish(before, range(3))
    await after.connect()
    with pytest.raises(OperatorError, match=r"md\.trades\.0 exists with another type.*python -m mdq redeclare"):
        await after.declare(queues)
    code, said = await command(mdq_url, "quorum")
    assert (code, "md.progress.0 and 0 more are read by somebody" in said) == (2, True), said
    await reader.close()
    await before.close()
    code, said = await command(mdq_url, "quorum")
    assert (code, f"{len(queues)} queues are quorum now, 3 batches" in said) == (0, True), said
    await after.declare(queues)
    await publish(after, [0])
    code, said = await command(mdq_url, "quorum")
    assert (code, "every queue is as the settings say (quorum)" in said) == (0, True), said
    assert await after.depths([TRADES]) == {TRADES.name: 1}
    await after.close()


async def test_an_embedded_queue_has_nothing_to_declare() -> None:
    """Without a RabbitMQ, and with one that is not there, there is one line."""
    code, said = await command("memory://", "classic")
    assert (code, said.count("\n")) == (2, 1), said
    assert "ends with its run" in said
    code, said = await command("amqp://127.0.0.1:1/", "quorum")
    assert (code, said.count("\n")) == (3, 1), said
    assert "does not answer" in said


def test_the_embedded_queue_refuses_replicas() -> None:
    """Somebody who asks for replicas is not left believing that there are any."""
    with pytest.raises(OperatorError, match="the embedded queue has no replicas"):
        open_broker("memory://", "t", queue_type="quorum")

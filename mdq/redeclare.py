"""Gives the queues of a stopped deployment the type and bounds of today's settings: `python -m mdq redeclare`.

AMQP cannot change a queue, so those that differ are deleted with what waits in them and declared anew; the others are left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mdq.broker import BrokerUnavailable
from mdq.broker_rabbit import RabbitBroker
from mdq.rabbit_calls import DEPENDENCY
from mdq.topology import Queue, all_queues, progress_queue
from service.errors import OperatorError
from service.settings import ComponentSettings

CONNECT_S_MAX = 10.0


async def redeclare(settings: ComponentSettings) -> str:
    """Declare every queue as the settings say; return in a line what was done.

    Raises: OperatorError: there is no RabbitMQ, or somebody reads the queues.
    """
    if settings.mdq_url.startswith("memory:"):
        raise OperatorError("the embedded queue ends with its run", "Set MDQ_URL=amqp://… to the RabbitMQ that is meant")
    broker = RabbitBroker(settings.mdq_url, "mdq-redeclare", queue_type=settings.mdq_queue_type)
    try:
        async with asyncio.timeout(CONNECT_S_MAX):
            await broker.connect()
        changed, lost = await _declare(broker, [*all_queues(settings.mdq_partitions), progress_queue()])
    except (OSError, TimeoutError, BrokerUnavailable) as error:
        what = f"RabbitMQ at MDQ_URL does not answer: {str(error) or type(error).__name__}"
        raise OperatorError(what, "Start it and run the command again", DEPENDENCY) from None
    finally:
        await broker.close()
    if not changed:
        return f"every queue is as the settings say ({settings.mdq_queue_type})"
    done = f"{changed} queues are {settings.mdq_queue_type} now, {lost} batches that waited in them are gone"
    return f"{done}; start every component"


async def _declare(broker: RabbitBroker, queues: Sequence[Queue]) -> tuple[int, int]:
    read = [name for name, depth in (await broker.survey(queues)).items() if depth.consumers]
    if read:
        what = f"the queue {read[0]} and {len(read) - 1} more are read by somebody"
        raise OperatorError(what, "Stop every listener and processor and run it again")
    changed = lost = 0
    for queue in queues:
        try:
            await broker.declare([queue])
        except OperatorError as refusal:
            if refusal.exit_code == DEPENDENCY:  # it may not declare at all
                raise
            lost += await broker.delete(queue)
            await broker.declare([queue])
            changed += 1
    return changed, lost

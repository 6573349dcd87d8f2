"""Names and arguments of the order queues, shared by publishers and the engine.

engine.orders ──► the engine ──► journal
   │   ▲             │  └─ confirmed copies of what came again, counted ─► engine.orders.retry ─► the engine, alone
   │   └ publishers  └─ malformed, expired, poisoned, refused by risk ───► engine.orders.dlq
   └─ time to live over (RabbitMQ) ─► engine.orders.expired ─► the engine ─► engine.orders.dlq, with the same headers

Priority 0 to 10, the higher the sooner. It reorders what is still in the queue; what the engine holds (PREFETCH) is executed
in the order in which it was delivered, so that an urgent order waits for at most that many.

Classic durable queues that RabbitMQ 3.10 to 4.x accept alike. A full order queue refuses what is published (the publisher
sees a negative confirmation); the dead letters drop their oldest.
"""

from __future__ import annotations

from typing import Final

ORDERS: Final = "engine.orders"
RETRY: Final = "engine.orders.retry"
EXPIRED: Final = "engine.orders.expired"
DEAD: Final = "engine.orders.dlq"
DEAD_EXCHANGE: Final = "engine.orders.dead"  # direct; routing keys are the queues' names
PRIORITY_MAX = 10
ORDERS_BYTES_MAX = 1 << 30
DEAD_LETTERS_MAX = 100_000
PREFETCH = 500

Arguments = dict[str, int | str | bool]

QUEUES: dict[str, Arguments] = {
    ORDERS: {
        "x-queue-type": "classic",
        "x-max-priority": PRIORITY_MAX,
        "x-max-length-bytes": ORDERS_BYTES_MAX,
        "x-overflow": "reject-publish",
        "x-single-active-consumer": True,  # one engine executes; another one that is connected waits
        "x-dead-letter-exchange": DEAD_EXCHANGE,
        "x-dead-letter-routing-key": EXPIRED,
    },
    RETRY: {"x-queue-type": "classic"},  # one message at a time
    EXPIRED: {"x-queue-type": "classic"},  # no more than engine.orders had
    DEAD: {"x-queue-type": "classic", "x-max-length": DEAD_LETTERS_MAX, "x-overflow": "drop-head"},
}
BOUND = (EXPIRED, DEAD)  # to DEAD_EXCHANGE, each under its own name

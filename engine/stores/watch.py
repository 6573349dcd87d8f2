"""Watches the age of message stores: suspends trading when a consumer is too far behind, and resumes it.

Every 250 ms; the rule itself is in `rules.py`. The commands go through the sequence like any other, so that a restart
rebuilds the same suspension.
"""

from __future__ import annotations

import asyncio

import structlog

from engine.core.state import State
from engine.journal.sequencer import EngineBusy, EngineUnavailable, Sequencer
from engine.stores.message_log import MessageLog
from engine.stores.rules import Holding, age_ms, distance_ms, due
from service import metrics
from service.clock import Clock, SystemClock

EVERY_S = 0.25
GAUGES = {
    "store_age_ms": "Age of a store's oldest unpurged message",
    "store_depth": "Unpurged messages of a store",
    "store_lag": "Command indices between the last message and a store's slowest consumer, or its purged index without one",
    "store_consumers": "Connected consumers of a store",
    "store_suspension_distance_ms": "How much older a store's oldest message may become before trading is suspended",
}
log = structlog.get_logger()


def holdings(state: State, messages: MessageLog) -> list[Holding]:
    """Return what each store holds."""
    found = []
    for store_id, store in sorted(state.stores.items()):
        found.append(Holding(store_id, store.purged_index, *messages.backlog(store_id), store.age_ms_max, store.waived is True))
    return found


class StoreWatch:
    """Looks at the stores until it is cancelled."""

    def __init__(self, sequencer: Sequencer, messages: MessageLog, clock: Clock | None = None, every_s: float = EVERY_S) -> None:
        self._sequencer = sequencer
        self._messages = messages
        self._clock = clock or SystemClock()
        self._every_s = every_s
        self._gauges = {name: metrics.gauge("engine", name, text, ["store"]) for name, text in GAUGES.items()}
        self._shown: set[str] = set()

    async def run(self) -> None:
        """Look every 250 ms."""
        while True:
            self.look()
            await asyncio.sleep(self._every_s)

    def look(self) -> None:
        """Submit what is due, and set the gauges. What the journal did not take is nobody's business."""
        if self._sequencer.refusal:
            return
        state, now_ns = self._sequencer.state, self._clock.wall_ns()
        held = holdings(state, self._messages)
        self._show(held, now_ns)
        for command in due(held, now_ns, state.suspended):
            try:
                self._sequencer.submit(command)
            except (EngineBusy, EngineUnavailable) as error:
                log.warning("store_watch_waits", command=type(command).__name__, reason=command.reason, why=str(error))
                return
            log.warning("trading_suspension", command=type(command).__name__, reason=command.reason)

    def _show(self, held: list[Holding], now_ns: int) -> None:
        positions: dict[str, list[int]] = {}
        for reader in self._messages.readers:
            positions.setdefault(reader.store_id, []).append(reader.position)
        for one in held:
            slowest = min(positions.get(one.store_id, [one.purged_index]))
            values = {
                "store_age_ms": age_ms(one, now_ns), "store_depth": one.messages,
                "store_lag": max(0, self._messages.message_index - slowest),
                "store_consumers": len(positions.get(one.store_id, [])),
                "store_suspension_distance_ms": distance_ms(one, now_ns),
            }  # fmt: skip
            for name, value in values.items():
                self._gauges[name].labels(one.store_id).set(value)
        shown = {one.store_id for one in held}
        for store_id in self._shown - shown:
            for gauge in self._gauges.values():
                gauge.remove(store_id)
        self._shown = shown

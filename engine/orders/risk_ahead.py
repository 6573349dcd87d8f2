"""Asks risk about orders as soon as they arrive, so that none waits for the verdict on the one before it.

What was asked about and is not in the state yet counts as coming when the next order of its account is asked about: many
orders at once do not get past a limit that each of them keeps.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable

from engine.core.commands import SIDES, Command
from engine.core.state import State
from engine.orders import message as om
from engine.orders.delivery import Delivery
from engine.risk.checker import RiskChecker
from engine.risk.rules import Ways, question


class RiskAhead:
    """The questions under way of one order queue; without `risk` everything is approved. `woken` is called with an answer."""

    def __init__(self, risk: RiskChecker | None, woken: Callable[[object], None]) -> None:
        self._risk = risk
        self._woken = woken
        self._arrived: deque[Delivery] = deque()
        self._ways: Ways = risk.ways if risk is not None else {}

    def arrived(self, held: Delivery) -> None:
        """Note a message to ask about."""
        if self._risk is not None:
            self._arrived.append(held)

    def ask(self, state: State) -> None:
        """Ask about every new order that has arrived; amends, which need their order, are asked about at their turn."""
        while self._arrived:
            held = self._arrived.popleft()
            with contextlib.suppress(om.MessageRefused):  # said again when it is its turn
                if isinstance(held.read(), om.PlaceMessage) and not held.again:
                    self._ask(held, om.command_of(held.read(), state), state)

    def approved(self, held: Delivery, command: Command, state: State) -> bool:
        """Return whether a command may go to the engine; False = there is no answer yet.  Raises: MessageRefused."""
        if held.checking is None and self._risk is not None:
            self._ask(held, command, state)
        if held.checking is None:
            return True  # nothing to ask
        if not held.checking.done():
            return False
        verdict = held.checking.result()
        if not verdict.approved:
            raise om.MessageRefused("RiskRejected", f"{verdict.reason} (request {verdict.request_id})")
        return True

    def lost(self, unacked: Iterable[Delivery]) -> None:
        """The connection is gone: these come again, and are asked about then."""
        self._arrived.clear()
        for held in unacked:
            self.leave(held)
            if held.checking is not None:
                held.checking.cancel()

    def leave(self, held: Delivery) -> None:
        """An order is in the state, refused, or will come again: it is no longer on its way."""
        if held.way is not None:
            way, lots = held.way
            self._ways[way] -= lots
            if not self._ways[way]:
                del self._ways[way]
            held.way = None

    def _ask(self, held: Delivery, command: Command, state: State) -> None:
        asked = question(state, command, self._ways)
        if asked is None or self._risk is None:
            return
        order = asked[0]
        way = order.account, order.symbol, SIDES.get(order.side, 0)
        held.way = way, order.lots
        self._ways[way] = self._ways.get(way, 0) + order.lots
        held.checking = asyncio.get_running_loop().create_task(self._risk.check(*asked))
        held.checking.add_done_callback(self._woken)

"""Matches the orders of one market by price, then time, and reports what happens: a limit order book.

Prices are integer ticks (any sign), quantities integer lots above zero, ids any integers. Every message is one call and adds
its reports to `Book.reports` in the order in which they happen. A trade is at the maker's price.

Invariants: both lists of ranks are sorted and name exactly the levels that hold orders; no level is empty; the best bid is
below the best ask; an order is in `orders` exactly while it rests.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

ACCEPTED, TRADE, CANCELED, MODIFIED, CANCEL_REJECTED, MODIFY_REJECTED = range(6)

# (type, sequence, …): ACCEPTED and MODIFIED side, id, price, quantity; TRADE price, quantity, maker, taker;
# CANCELED side, id, price; the two rejections id
Report = tuple[int, ...]

GONE_MIN = 64


class Level(dict[int, int]):
    """The queue of one price: order id → open quantity in lots, oldest first.

    A dict keeps insertion order, forgets from the middle in O(1), and an assignment to a key keeps its place. What it does
    badly is finding its first key after many first keys were deleted: `gone` counts deletions until `compact`.
    """

    __slots__ = ("gone", "price", "rank", "side")

    def __init__(self, side: int, price: int, rank: int) -> None:
        self.side = side
        self.price = price
        self.rank = rank
        self.gone = 0

    def compact(self) -> None:
        """Close the gaps once walking over them costs as much as copying the queue. Cost: amortised O(√orders) a deletion."""
        if self.gone * self.gone > GONE_MIN * len(self):
            queue = list(self.items())
            self.clear()
            self.update(queue)
            self.gone = 0


class Book:
    """Price–time priority for one market.

    A level's rank is its price for bids and its negated price for asks: on both sides the best level is the last of a sorted
    list, and both sides are matched by the same lines.
    """

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.orders: dict[int, Level] = {}
        self._levels: tuple[dict[int, Level], dict[int, Level]] = ({}, {})
        self._ranks: tuple[list[int], list[int]] = ([], [])

    def place(self, sequence: int, side: int, order_id: int, price_ticks: int, size_lots: int, ioc: int = 0) -> None:
        """Match a new order, then rest what is left of it, or cancel the rest when `ioc`.

        The id must not be that of a resting order. Cost: O(fills), and O(levels) memory moves for a new price.
        """
        assert order_id not in self.orders, f"order {order_id} rests already"
        self.reports.append((ACCEPTED, sequence, side, order_id, price_ticks, size_lots))
        self._enter(sequence, side, order_id, price_ticks, size_lots, ioc)

    def cancel(self, sequence: int, order_id: int) -> None:
        """Take a resting order out, or report CANCEL_REJECTED."""
        level = self.orders.get(order_id)
        if level is None:
            self.reports.append((CANCEL_REJECTED, sequence, order_id))
            return
        self.reports.append((CANCELED, sequence, level.side, order_id, level.price))
        self.remove(order_id)

    def modify(self, sequence: int, order_id: int, price_ticks: int, size_lots: int) -> None:
        """Take a resting order out and enter it again, last of its new queue; it may trade. Or report MODIFY_REJECTED."""
        level = self.orders.get(order_id)
        if level is None:
            self.reports.append((MODIFY_REJECTED, sequence, order_id))
            return
        self.reports.append((MODIFIED, sequence, level.side, order_id, price_ticks, size_lots))
        self.remove(order_id)
        self._enter(sequence, level.side, order_id, price_ticks, size_lots, 0)

    def rest(self, side: int, order_id: int, price_ticks: int, size_lots: int) -> None:
        """Put an order last into its queue without matching: who calls has matched before. Says nothing."""
        rank = -price_ticks if side else price_ticks
        level = self._levels[side].get(rank)
        if level is None:
            level = self._levels[side][rank] = Level(side, price_ticks, rank)
            insort(self._ranks[side], rank)
        level[order_id] = size_lots
        self.orders[order_id] = level

    def alone(self, order_id: int) -> bool:
        """Return whether a resting order is the only one at its price."""
        return len(self.orders[order_id]) == 1

    def resize(self, order_id: int, size_lots: int) -> None:
        """Give a resting order another open quantity in its place. Says nothing."""
        self.orders[order_id][order_id] = size_lots

    def remove(self, order_id: int) -> None:
        """Take a resting order out, and its level with it when that becomes empty. Says nothing. Raises: KeyError."""
        level = self.orders.pop(order_id)
        del level[order_id]
        level.gone += 1
        if not level:
            self._drop(level)

    def front(self, side: int) -> tuple[int, int] | None:
        """Return (price, order id) of what trades next on a side, or None. Cost: as `Level.compact` says."""
        ranks = self._ranks[side]
        if not ranks:
            return None
        level = self._levels[side][ranks[-1]]
        if level.gone > GONE_MIN:
            level.compact()
        return level.price, next(iter(level))

    def _enter(self, sequence: int, side: int, order_id: int, price: int, size: int, ioc: int) -> None:
        limit = price if side else -price
        against = self._ranks[1 - side]
        if against and against[-1] >= limit:
            size = self._sweep(sequence, side, order_id, limit, size)
        if size and ioc:
            self.reports.append((CANCELED, sequence, side, order_id, price))
        elif size:
            self.rest(side, order_id, price, size)

    def _sweep(self, sequence: int, side: int, taker: int, limit: int, size: int) -> int:
        """Trade against the other side's levels down to rank `limit`; return what is left of `size`."""
        ranks, levels, orders, report = self._ranks[1 - side], self._levels[1 - side], self.orders, self.reports.append
        while size and ranks and ranks[-1] >= limit:
            level = levels[ranks[-1]]
            if level.gone > GONE_MIN:
                level.compact()
            price = level.price
            filled = 0
            for maker, resting in level.items():
                if resting > size:
                    level[maker] = resting - size
                    report((TRADE, sequence, price, size, maker, taker))
                    size = 0
                    break
                report((TRADE, sequence, price, resting, maker, taker))
                del orders[maker]
                filled += 1
                size -= resting
                if not size:
                    break
            if filled == len(level):
                del levels[ranks.pop()]
            elif filled:
                self._forget(level, filled)
        return size

    @staticmethod
    def _forget(level: Level, filled: int) -> None:
        """Take the `filled` oldest orders out of a level that keeps others."""
        for maker in [maker for maker, _ in zip(level, range(filled), strict=False)]:
            del level[maker]
        level.gone += filled

    def _drop(self, level: Level) -> None:
        """Forget a level that has become empty, so that no best price points at nothing."""
        ranks, rank = self._ranks[level.side], level.rank
        del self._levels[level.side][rank]
        if ranks[-1] == rank:
            ranks.pop()
        else:
            del ranks[bisect_left(ranks, rank)]

    def best(self, side: int) -> int | None:
        """Return the best price of a side in ticks, or None."""
        ranks = self._ranks[side]
        return self._levels[side][ranks[-1]].price if ranks else None

    def shown(self, side: int, price_ticks: int) -> int:
        """Return the open quantity of a level, 0 when there is none. Cost: O(its orders)."""
        level = self._levels[side].get(-price_ticks if side else price_ticks)
        return sum(level.values()) if level else 0

    def levels(self, side: int) -> Iterator[Level]:
        """Yield the levels of a side, best first; each is a dict of order id → open quantity, oldest first."""
        levels = self._levels[side]
        return (levels[rank] for rank in reversed(self._ranks[side]))

"""A partition with plug-ins and a mirror of the cache, a clock that a plug-in's work moves, and plug-ins that misbehave."""

from __future__ import annotations

from typing import Any

import msgspec

from mdp import roster
from mdp.partitions.partition import Partition
from mdp.plugin import LAST, AnyTrade, Plugin
from mdp.plugins.host import Host, Installed, Limits, Watch
from mdp.plugins.installed import Found
from mdp.plugins.rack import Rack, hosts_of
from tests.mdp.feed import Desk

BASE_MS = 1_700_060_400_000  # a Wednesday, 10:00 in New York


class Sum(msgspec.Struct):
    """How many trades, their prices' sum, the newest."""

    trades: int = 0
    sum: float = 0.0
    last: float = 0.0


class Sums(Plugin):
    """Adds up prices; does what its price says: 666 raises, 777 takes 300 ms, and so on."""

    State = Sum
    boards = ("sums",)
    work_ns = 0  # of all instances, what a clock of a test adds
    starved_ns = 0  # of that, without a processor
    orders: dict[float, Any] = {}  # noqa: RUF012  # price → what to raise

    def on_trade(self, state: Sum, trade: AnyTrade, effect: int) -> None:
        if trade.price in self.orders:
            raise self.orders[trade.price]
        if trade.price == 777:
            Sums.work_ns += 300_000_000
        if trade.price == 778:  # the machine has no processor for it
            Sums.work_ns += 900_000_000
            Sums.starved_ns += 850_000_000
        if trade.price == 555:
            self.report(trade.ts, [1])  # not an object
        state.trades += 1
        state.sum += trade.price
        if effect & LAST:
            state.last = trade.price
        if trade.price == 111:
            quote = self.quote(trade.symbol)
            self.report(trade.ts, {"volume": quote.volume if quote else None, "ts": trade.ts})

    def document(self, symbol: str, state: Sum) -> dict[str, Any]:
        if state.last == 444:
            raise ValueError("no document")
        return {"trades": state.trades, "sum": state.sum}

    def rank(self, board: str, symbol: str, state: Sum) -> float | None:
        if state.last == 333:
            return float("nan")
        return state.sum or None

    def columns(self, board: str, symbol: str, state: Sum) -> dict[str, Any]:
        return {"sum": state.sum}


class PluginDesk(Desk):
    """A desk whose partition also has plug-ins; its clock stands still but for what `Sums` works."""

    def __init__(self, *plugins: type[Plugin], failures: int = 3, names: tuple[str, ...] = ("sums", "others")) -> None:
        Sums.work_ns, Sums.starved_ns, Sums.orders = 0, 0, {}
        found = Found([Installed(name, made, "1") for name, made in zip(names, plugins or (Sums,), strict=False)], [])
        self.watch = Watch()
        self.rack = Rack(
            found, Limits(100_000_000, failures, 10), self.watch, lambda: 10**12 + Sums.work_ns, lambda: Sums.starved_ns
        )
        super().__init__(self.make())
        self.seq = 0

    def make(self) -> list[Any]:
        return roster.build(("quote",), {}, 10, more=self.rack.analyzers)

    @property
    def host(self) -> Host:
        return hosts_of(self.partition.analyzers)[0]

    def trade(self, sym: str, *prices: float) -> None:
        """Feed trades as one batch, each a millisecond after the one before."""
        events = []
        for price in prices:
            self.seq += 1
            at = BASE_MS + self.seq
            events.append({"ev": "T", "sym": sym, "p": price, "s": 1, "t": at, "c": [], "x": 4, "i": str(at)})
        self.feed(*events)

    def own(self, channel: str) -> Any:
        """Return what a channel's document says."""
        return self.cache.documents[channel]["data"]

    def next_owner(self, rack: Rack | None = None) -> None:
        """Go on with a new partition that knows only the checkpoint; as Desk.hand_over, with plug-ins (or those of `rack`)."""
        self.rack = rack or self.rack
        self.partition = Partition(3, 2, self.partition.epoch, self.make())
        self.bad = self.partition.restore(dict(self.cache.cells), self.now_ms)

"""Decides what each trading bot does next, from a fair price and the exchange's replies. Pure: seeded dice, time as an argument.

Makers keep a ladder around the fair price, takers hit it, dabblers leave icebergs, stops and odd limit orders. A bot has one
command under way at a time and counts an order as open until it hears otherwise, so that it never has more than `ORDERS_MAX`,
whatever gets lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import NamedTuple

from engine.bots.market import Walk
from engine.core.commands import (
    BUY,
    SELL,
    AmendOrder,
    CancelAllAfter,
    CancelOrder,
    Command,
    Fund,
    PlaceOrder,
    SetMark,
    TimeInForce,
)

ORDERS_MAX = 60  # of a bot
LEVELS = 20  # of a maker's ladder, each side
POSITION_LOTS_MAX = 20_000  # beyond, a bot reduces
STEP_NS = 100_000_000  # of the fair price's walk
STEP = 1e-5  # of the price, one standard deviation
STEPS_MAX = 50  # after a pause the walk does not catch up for ever
MARK_NS, FUND_NS = 1_000_000_000, 60_000_000_000
DEAD_NS = 30_000_000_000  # the exchange's timer goes off after so long, and is wound up three times as often
LOOK_EVERY = 6  # commands of a bot between two looks at its account: orders are filled without a word


class Fate(Enum):
    """What became of a command. LOST: nobody knows."""

    DONE = "done"
    REFUSED = "refused"
    LOST = "lost"


class Reply(NamedTuple):
    """The exchange's answer; `code` is that of a refusal, `open_lots` what is left open after placing or amending."""

    fate: Fate
    code: str = ""
    open_lots: int = 0


class Look(NamedTuple):
    """Not a command: the bot wants to see its account."""

    account: int


class Quote(NamedTuple):
    """An order that may be open."""

    side: int
    price_ticks: int
    size_lots: int


class Ask(NamedTuple):
    """What to send, and who waits for the reply."""

    trader: Trader | None
    command: Command | Look


@dataclass
class Trader:
    """One account on one symbol. `orders`: client id → what may be open."""

    account: int
    symbol: str
    run: str  # begins every client id; never the same twice
    dice: Random
    weight: int  # how often it is its turn
    orders: dict[str, Quote] = field(default_factory=dict)
    position_lots: int = 0
    busy: bool = False
    _count: int = 0
    _unseen: int = 0  # commands since the last look

    def next(self, fair_ticks: int) -> Command | Look | None:
        """Return what the bot does now, None for nothing; `on_reply` or `on_look` must follow before the next call."""
        if self._unseen >= LOOK_EVERY:
            return Look(self.account)
        command = self._reduce() if abs(self.position_lots) > POSITION_LOTS_MAX else self._act(fair_ticks)
        if isinstance(command, PlaceOrder) and command.time_in_force is TimeInForce.GTC and command.price_ticks is not None:
            self.orders[command.cl_ord_id] = Quote(command.side, command.price_ticks, command.size_lots)
        elif isinstance(command, PlaceOrder) and command.stop_ticks is not None:
            self.orders[command.cl_ord_id] = Quote(command.side, command.stop_ticks, command.size_lots)
        self._unseen += command is not None
        return command

    def _act(self, fair_ticks: int) -> Command | None:
        raise NotImplementedError

    def on_reply(self, command: Command | Look, reply: Reply) -> None:
        """Hear what became of a command. What got lost may be open."""
        if reply.fate is Fate.LOST or not isinstance(command, PlaceOrder | AmendOrder | CancelOrder):
            return
        name, done = command.cl_ord_id, reply.fate is Fate.DONE
        placed_or_amended = not isinstance(command, CancelOrder)
        if done and placed_or_amended and reply.open_lots:
            quote = self.orders.get(name)
            if quote is not None and isinstance(command, AmendOrder):
                price = quote.price_ticks if command.price_ticks is None else command.price_ticks
                self.orders[name] = Quote(quote.side, price, command.size_lots or quote.size_lots)
        elif done or isinstance(command, PlaceOrder) or reply.code == "UnknownOrder":
            self.orders.pop(name, None)

    def on_look(self, open_orders: Mapping[str, Quote], position_lots: int) -> None:
        """See the account as it is: the exchange's word on what is open."""
        self.orders = dict(open_orders)
        self.position_lots = position_lots
        self._unseen = 0

    def forget_sight(self) -> None:
        """Look before anything else."""
        self._unseen = LOOK_EVERY

    def _name(self) -> str:
        self._count += 1
        return f"{self.run}-{self.account}-{self._count}"

    def _reduce(self) -> PlaceOrder:
        side = SELL if self.position_lots > 0 else BUY
        size = min(abs(self.position_lots), 500)
        self.position_lots += size if side == BUY else -size  # until the next look says what it really is
        ioc = TimeInForce.IOC
        return PlaceOrder(self.account, self.symbol, self._name(), side, size, reduce_only=True, time_in_force=ioc)

    def _cancel(self, name: str) -> CancelOrder:
        return CancelOrder(self.account, name)

    def _any(self) -> str:
        return self.dice.choice(list(self.orders))

    def _size(self, most: int) -> int:
        return 1 + int(most * self.dice.random() ** 2)


@dataclass
class Maker(Trader):
    """Quotes `LEVELS` a side, `spacing` ticks apart, `half_spread` from the fair price, leaning against its position."""

    spacing: int = 4
    half_spread: int = 2

    def _act(self, fair_ticks: int) -> Command | None:
        """Mend the ladder: what is on the wrong side first, then what is missing near the price, then what is far off."""
        center = fair_ticks - round(3 * self.spacing * self.position_lots / POSITION_LOTS_MAX)
        wanted = self._ladder(center)
        wrong = [name for name, quote in self.orders.items() if self._too_good(quote, center)]
        missing = sorted(wanted - {(q.side, q.price_ticks) for q in self.orders.values()}, key=lambda one: abs(one[1] - center))
        if wrong:
            return self._requote(wrong[0], missing)
        if self.orders and self.dice.random() < 0.15:
            return self._freshen()
        if missing and len(self.orders) < ORDERS_MAX:
            return self._quote(*missing[0], abs(missing[0][1] - center) // self.spacing)
        stray = [name for name, q in self.orders.items() if (q.side, q.price_ticks) not in wanted]
        if stray:
            return self._cancel(max(stray, key=lambda name: abs(self.orders[name].price_ticks - center)))
        return self._freshen() if self.orders else None

    def _ladder(self, center: int) -> set[tuple[int, int]]:
        """Return (side, price) on a fixed lattice of its own, so that a small move changes a level, not all of them."""
        phase = self.account % self.spacing
        top_bid = (center - self.half_spread - phase) // self.spacing * self.spacing + phase
        first_ask = -((phase - center - self.half_spread) // self.spacing) * self.spacing + phase
        bids = {(BUY, top_bid - n * self.spacing) for n in range(LEVELS)}
        return bids | {(SELL, first_ask + n * self.spacing) for n in range(LEVELS)}

    def _too_good(self, quote: Quote, center: int) -> bool:
        away = center - quote.price_ticks if quote.side == BUY else quote.price_ticks - center
        return away < self.half_spread

    def _requote(self, name: str, missing: list[tuple[int, int]]) -> Command:
        side = self.orders[name].side
        price = next((price for other, price in missing if other == side), None)
        if price is None or self.dice.random() < 0.5:
            return self._cancel(name)
        return AmendOrder(self.account, name, price_ticks=price)

    def _quote(self, side: int, price: int, depth: int) -> PlaceOrder:
        size = self._size(60 + 12 * depth)
        # Near the price a quote may hit another maker's old one; deeper that would be a mistake.
        return PlaceOrder(self.account, self.symbol, self._name(), side, size, price, post_only=depth > 4)

    def _freshen(self) -> Command:
        """Change something: a book in which nobody moves looks dead."""
        name = self._any()
        if self.dice.random() < 0.5:
            return self._cancel(name)
        return AmendOrder(self.account, name, size_lots=self.orders[name].size_lots + self.dice.randint(1, 20))


@dataclass
class Taker(Trader):
    """Takes a little, now and then a lot, and in bursts to one side."""

    burst: int = 0
    side: int = BUY

    def _act(self, fair_ticks: int) -> Command | None:
        dice = self.dice
        if self.burst:
            self.burst -= 1
        else:
            self.side = dice.randrange(2)
            self.burst = dice.randint(5, 12) if dice.random() < 0.03 else 0
        size = self._size(250 if dice.random() < 0.04 else 20)
        if dice.random() < 0.3:
            return PlaceOrder(self.account, self.symbol, self._name(), self.side, size)
        limit = fair_ticks + 20 if self.side == BUY else fair_ticks - 20
        return PlaceOrder(self.account, self.symbol, self._name(), self.side, size, limit, time_in_force=TimeInForce.IOC)


@dataclass
class Dabbler(Trader):
    """Leaves what the others do not: icebergs, stops, stop-limits, odd limits; moves some, drops the rest."""

    kept: int = 24

    def _act(self, fair_ticks: int) -> Command | None:
        dice = self.dice
        if len(self.orders) >= self.kept or (self.orders and dice.random() < 0.3):
            return self._cancel(self._any())
        side, away = dice.randrange(2), 3 + int(dice.expovariate(0.03))
        passive = fair_ticks - away if side == BUY else fair_ticks + away
        beyond = fair_ticks + away + 10 if side == BUY else fair_ticks - away - 10
        roll, size, name = dice.random(), self._size(100), self._name()
        if roll < 0.35:
            return PlaceOrder(self.account, self.symbol, name, side, size * 10, passive, display_lots=size)
        if roll < 0.55:
            return PlaceOrder(self.account, self.symbol, name, side, size, None, beyond)
        if roll < 0.7:
            limit = beyond + 10 if side == BUY else beyond - 10
            return PlaceOrder(self.account, self.symbol, name, side, size, limit, beyond)
        return PlaceOrder(self.account, self.symbol, name, side, size, passive)


class Director:
    """Decides whose turn it is, moves the fair prices and keeps time: marks, funding, dead-man timers."""

    def __init__(
        self, seed: int, run: str, fair_ticks: Mapping[str, int], first_account: int, now_ns: int, dead_ns: int = DEAD_NS
    ) -> None:
        self._dead_ns = dead_ns
        self._dice = Random(seed)
        self.walks = {symbol: Walk(self._dice, start, start * STEP) for symbol, start in fair_ticks.items()}
        self.traders = list(_cast(self._dice, run, fair_ticks, first_account))
        self._step_ns = now_ns
        self._due_ns: dict[tuple[str, str | int], int] = {}  # kind, symbol or account → when it is due next
        for symbol in fair_ticks:
            self._due_ns["mark", symbol] = now_ns
            self._due_ns["fund", symbol] = now_ns + FUND_NS
        for trader in self.traders:
            self._due_ns["beat", trader.account] = now_ns

    def next(self, now_ns: int) -> Ask | None:
        """Return what to send now, None when nobody has anything to do. A trader that is busy is not asked."""
        while self._step_ns <= now_ns:
            self._step_ns = max(self._step_ns, now_ns - STEPS_MAX * STEP_NS) + STEP_NS
            for walk in self.walks.values():
                walk.step()
        for (kind, subject), due_ns in self._due_ns.items():
            if due_ns <= now_ns:
                return self._timed(kind, subject, now_ns)
        idle = [trader for trader in self.traders if not trader.busy]
        if not idle:
            return None
        trader = self._dice.choices(idle, [trader.weight for trader in idle])[0]
        command = trader.next(self.walks[trader.symbol].ticks)
        if command is None:
            return None
        trader.busy = True
        return Ask(trader, command)

    def _timed(self, kind: str, subject: str | int, now_ns: int) -> Ask:
        every_ns = {"mark": MARK_NS, "fund": FUND_NS, "beat": self._dead_ns // 3}[kind]
        self._due_ns[kind, subject] = now_ns + every_ns
        if kind == "beat":
            return Ask(None, CancelAllAfter(int(subject), self._dead_ns))
        symbol = str(subject)
        return Ask(
            None, SetMark(symbol, self.walks[symbol].ticks) if kind == "mark" else Fund(symbol, self._dice.randint(-100, 100))
        )

    def on_reply(self, ask: Ask, reply: Reply) -> None:
        """Pass a reply on."""
        if ask.trader is not None:
            ask.trader.busy = False
            ask.trader.on_reply(ask.command, reply)

    def look_again(self) -> None:
        """Let every bot look at its account before it does anything else: something may have happened unseen."""
        for trader in self.traders:
            trader.forget_sight()

    def on_look(self, trader: Trader, open_orders: Mapping[str, Quote], position_lots: int) -> None:
        """Pass an account on."""
        trader.busy = False
        trader.on_look(open_orders, position_lots)


def _cast(dice: Random, run: str, symbols: Iterable[str], first_account: int) -> Iterable[Trader]:
    """Yield three makers, two takers and a dabbler for each symbol, an account each."""
    account = first_account
    for symbol in symbols:
        for spacing, half_spread in ((3, 1), (4, 2), (5, 3)):
            yield Maker(account, symbol, run, Random(dice.random()), 10, spacing=spacing, half_spread=half_spread)
            account += 1
        for kind, weight in ((Taker, 3), (Taker, 2), (Dabbler, 3)):
            yield kind(account, symbol, run, Random(dice.random()), weight)
            account += 1

"""Makes orders that trail or bring others, from dice: valid ones, close to the market so that they meet."""

from __future__ import annotations

import random

from msgspec import UNSET, UnsetType

from engine.core.commands import BUY, SELL, Leg, More, PlaceOrder, SelfTrade, TimeInForce, Trail

LIVES = (TimeInForce.GTC, TimeInForce.GTC, TimeInForce.DAY)


def linked_order(dice: random.Random, account: int, symbol: str, name: str, around: int = 100) -> PlaceOrder:
    """Return a trailing stop, a pair or a bracket."""
    return dice.choice((_trailing, _pair, _bracket))(dice, account, symbol, name, around)


def _trail(dice: random.Random) -> Trail:
    return Trail(ticks=dice.randint(1, 4)) if dice.random() < 0.5 else Trail(ppm=dice.randint(5_000, 40_000))


def _trailing(dice: random.Random, account: int, symbol: str, name: str, around: int) -> PlaceOrder:
    price = None if dice.random() < 0.7 else _near(dice, around)
    stop = None if dice.random() < 0.7 else _near(dice, around)
    life, reduces = TimeInForce.GTC if price else dice.choice(LIVES), dice.random() < 0.2
    return PlaceOrder(
        account, symbol, name, _side(dice), dice.randint(1, 9), price, stop, life, reduce_only=reduces,
        self_trade=dice.choice(list(SelfTrade)), more=More(trail=_trail(dice)),
    )  # fmt: skip


def _pair(dice: random.Random, account: int, symbol: str, name: str, around: int) -> PlaceOrder:
    side = UNSET if dice.random() < 0.5 else _side(dice)
    kind, trail, stop, price = dice.random(), _no_trail(), None, None
    if kind < 0.4:
        stop = _near(dice, around)
    elif kind < 0.6:
        trail = _trail(dice)
    if kind > 0.3:
        price = _near(dice, around)
    other = Leg(f"{name}-other", side, price, stop, trail)
    return PlaceOrder(
        account, symbol, name, _side(dice), dice.randint(1, 9), _near(dice, around), None, dice.choice(LIVES), dice.random() < 0.2,
        dice.random() < 0.1, self_trade=dice.choice(list(SelfTrade)), more=More(oco=other),
    )  # fmt: skip


def _bracket(dice: random.Random, account: int, symbol: str, name: str, around: int) -> PlaceOrder:
    side, price = _side(dice), _near(dice, around)
    sign = 1 if side == BUY else -1
    profit = Leg(f"{name}-profit", price_ticks=price + sign * dice.randint(1, 4))
    trailing, limit = dice.random() < 0.4, None if dice.random() < 0.7 else price - sign * dice.randint(2, 6)
    stop = None if trailing else price - sign * dice.randint(1, 4)
    loss = Leg(f"{name}-loss", price_ticks=limit, stop_ticks=stop, trail=_trail(dice) if trailing else UNSET)
    legs = dice.choice(((profit, loss), (profit, loss), (profit, loss), (profit, UNSET), (UNSET, loss)))
    life = dice.choice((TimeInForce.GTC, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK))
    market = dice.random() < 0.2
    return PlaceOrder(
        account, symbol, name, side, dice.randint(1, 9), None if market else price, None, life,
        self_trade=dice.choice(list(SelfTrade)), more=More(take_profit=legs[0], stop_loss=legs[1]),
    )  # fmt: skip


def _no_trail() -> Trail | UnsetType:
    return UNSET


def _side(dice: random.Random) -> int:
    return dice.choice((BUY, SELL))


def _near(dice: random.Random, around: int) -> int:
    return max(8, around + round(dice.gauss(0, 2)))

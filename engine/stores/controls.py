"""Notes what operators and feeds changed, for the message of one command: listings, marks, kill switches, suspensions."""

from __future__ import annotations

from typing import Any

from engine.core import events as ev
from engine.core.commands import Instrument
from engine.core.state import State
from engine.core.units import PPM, price
from engine.stores.messages import KillSwitchChange, Listing, MarkPrice, SuspensionChange


class Controls:
    """What one command changed; false while that is nothing."""

    def __init__(self, timestamp: str) -> None:
        self._time = timestamp
        self._lists: dict[str, list[Any]] = {}

    def __bool__(self) -> bool:
        return bool(self._lists)

    def note(self, event: ev.Event, state: State) -> None:
        """Note an event that `state` has applied already."""
        match event:
            case ev.InstrumentCreated():
                self._add("listings", self._listing("New", event.instrument, event.mark_ticks))
            case ev.DelistingBegun() | ev.InstrumentDelisted():
                contract, ended = state.ledger.contracts[event.symbol], isinstance(event, ev.InstrumentDelisted)
                listing = self._listing("Delisted" if ended else "Closing", contract.instrument, contract.mark_ticks)
                self._add("listings", listing)
            case ev.MarkSet():
                mark = price(state.ledger.contracts[event.symbol].instrument, event.mark_ticks)
                what = MarkPrice(symbol=event.symbol, mark_price=mark, pending=event.pending, timestamp=self._time)
                self._add("mark_prices", what)
            case ev.KillSwitchSet():
                switch = KillSwitchChange(account=event.account, kill_switch=event.on, timestamp=self._time)
                self._add("kill_switches", switch)
            case ev.Suspended() | ev.Resumed():
                reasons, is_set = sorted(state.suspended), isinstance(event, ev.Suspended)
                change = SuspensionChange(reason=event.reason, set=is_set, reasons=reasons, timestamp=self._time)
                self._add("suspensions", change)
            case _:
                raise AssertionError(f"{type(event).__name__} is no control")

    def lists(self) -> dict[str, list[Any]]:
        """Return what was noted, by the field of `Message` that it belongs to."""
        return self._lists

    def _add(self, name: str, change: object) -> None:
        self._lists.setdefault(name, []).append(change)

    def _listing(self, kind: str, one: Instrument, mark_ticks: int) -> Listing:
        return Listing(
            symbol=one.symbol, listing_type=kind, tick_size=one.tick_size, lot_size=one.lot_size,
            lot_tick_units=one.lot_tick_units, maker_fee=one.maker_fee_ppm / PPM, taker_fee=one.taker_fee_ppm / PPM,
            initial_margin=one.initial_margin_ppm / PPM, maintenance_margin=one.maintenance_margin_ppm / PPM,
            liquidation_fee=one.liquidation_fee_ppm / PPM, price_band=one.band_ppm / PPM, order_qty_max=one.size_lots_max,
            price_max=price(one, one.price_ticks_max), mark_price=price(one, mark_ticks), timestamp=self._time,
        )  # fmt: skip

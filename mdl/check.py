"""Looks at a vendor account for some seconds: what comes, how late, what is refused. `python -m mdl check`.

It connects as the listener does, and publishes nothing. The vendor allows one connection for each key: stop the listener first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec import Struct
from msgspec.json import Decoder

from mdl.feeds.catalogue import read_key
from mdl.feeds.feed import FeedRefused, Frame
from mdl.feeds.hours import session_of
from mdl.feeds.massive import MassiveFeed
from mdl.router import UNREADABLE
from mdl.settings import MdlSettings
from service.clock import SystemClock
from service.errors import OperatorError

AGES_MAX = 200_000  # of a kind; more than ten seconds of any feed
CLOCK_MS = 1_000  # what came sooner than it happened, or later than this at best, says that clocks differ
DELAY_MS = 15 * 60_000  # of the vendor's delayed feed
PROMPT = frozenset({"T", "Q", "XT", "XQ", "C", "V"})  # sent as it happens; aggregates come when their time is over


class _Event(Struct):
    ev: str = ""
    sym: str = ""
    pair: str = ""
    t: int = 0
    e: int = 0


_decode = Decoder(list[_Event]).decode


@dataclass(slots=True)
class Kind:
    """What came of one type of event. `ages` in ms, from the event's time to its arrival."""

    events: int = 0
    symbols: set[str] = field(default_factory=set)
    ages: list[int] = field(default_factory=list)


class Findings:
    """Everything that came in one look."""

    def __init__(self) -> None:
        self.kinds: dict[str, Kind] = {}
        self.frames = self.unreadable = 0

    def take(self, frame: Frame) -> None:
        """Count a frame's events."""
        try:
            events = _decode(frame.data)
        except UNREADABLE:
            self.unreadable += 1
            return
        self.frames += 1
        for event in events:
            if event.ev == "status":
                continue
            kind = self.kinds.setdefault(event.ev, Kind())
            kind.events += 1
            kind.symbols.add(event.sym or event.pair)
            if (happened_ms := event.e or event.t) and len(kind.ages) < AGES_MAX:
                kind.ages.append(frame.received_ns // 1_000_000 - happened_ms)

    def lines(self, seconds: float) -> Iterator[str]:
        """Yield a line for each kind of event."""
        for name, kind in sorted(self.kinds.items()):
            ages = sorted(kind.ages) or [0]
            age = f"least {ages[0]}, median {ages[len(ages) // 2]}, most {ages[-1]} ms old"
            yield f"{name}: {kind.events} events ({kind.events / seconds:.0f}/s) of {len(kind.symbols)} symbols, {age}"

    def clock_fault(self, delayed: bool) -> str:
        """Return what is wrong with the time, empty when nothing is."""
        ages = [age for name, kind in self.kinds.items() if name in PROMPT for age in kind.ages]
        if not ages:
            return ""
        least = min(ages) - (DELAY_MS if delayed else 0)
        if least < -CLOCK_MS:
            return f"events come {-least / 1000:.1f} s before they happen: this machine's clock is behind; synchronise it (NTP)"
        if least > CLOCK_MS and not delayed:
            late = f"nothing is younger than {least / 1000:.1f} s"
            return f"{late}: this machine's clock is ahead (synchronise it), or the plan is a delayed one (MDL_DELAYED=true)"
        return ""


async def check(settings: MdlSettings, seconds: float) -> tuple[list[str], list[str]]:
    """Look at the vendor's feed of `settings`; return what came, and what is wrong.  Raises: OperatorError for a refused key."""
    if settings.feed != "massive":
        raise OperatorError(f"MDL_FEED is {settings.feed}", "Set MDL_FEED=massive and MDL_API_KEY: only a vendor is looked at")
    found, clock = Findings(), SystemClock()
    feed = MassiveFeed(
        read_key(settings), settings.market, settings.topics, settings.delayed, settings.massive_url,
        settings.massive_open_timeout_s,
    )  # fmt: skip
    try:
        async with asyncio.timeout(seconds):
            async for frame in feed:
                found.take(frame)
    except TimeoutError:
        pass
    except FeedRefused as refused:
        raise OperatorError(str(refused), "Set MDL_API_KEY (or MDL_API_KEY_FILE) to the key of this account") from None
    finally:
        state, reason, ailing, lost = feed.state, feed.reason, feed.ailing, feed.reconnects
        await feed.close()
    wrong = [ailing] if ailing else []
    if state != "live":
        wrong.append(f"not connected: {reason}")
    if lost and found.frames:
        wrong.append(f"the connection ended {lost} times: is a listener, or somebody else, connected with the same key?")
    if state == "live" and not found.kinds:
        session = session_of(settings.market, clock.wall_ns())
        wrong.append(f"no data in {seconds:g} s for {', '.join(settings.topics)}; the market's session is {session}")
    if found.unreadable:
        wrong.append(f"{found.unreadable} frames could not be read")
    return list(found.lines(seconds)), wrong + list(filter(None, [found.clock_fault(settings.delayed)]))


def tell(settings: MdlSettings, seconds: float) -> int:
    """Print what came and what is wrong; return 1 when something is.  Raises: as `check`."""
    came, wrong = asyncio.run(check(settings, seconds))
    print(*came, *(f"wrong: {one}" for one in wrong), sep="\n")
    return 1 if wrong else 0

"""Keeps what a client asks for: by name and by pattern, each with its rate and fields, and cuts it into commands that fit.

Invariant: what is asked for more than once is asked for as serves all: the quicker rate, the fields of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from wds.access.limits import TokenBucket
from wds.protocol import HZ_DEFAULT, TIERS, tier

SPARE_BYTES = 512  # of a command around its channels
SINCE_BYTES = 60  # around the name of a resumed channel
BURST_PART, RATE_PART = 0.8, 0.9  # of the announced limits: what is on the way arrives in lumps


class Asks:
    """The subscriptions of one client as it wants them."""

    def __init__(self) -> None:
        self._asked: dict[str, dict[str, Any]] = {}  # name or pattern → hz and fields as `sub` takes them

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return iter(list(self._asked.items()))

    def __contains__(self, name: object) -> bool:
        return name in self._asked

    def add(self, name: str, hz: float | str | None, fields: Sequence[str] | None) -> dict[str, Any]:
        """Ask for a name or pattern; return what to say to the server: what serves this and everything asked before."""
        before = self._asked.get(name)
        ask = _ask(hz, fields) if before is None else _both(before, _ask(hz, fields))
        self._asked[name] = ask
        return ask

    def remove(self, name: str) -> bool:
        """Take back everything asked for by this name; return whether there was any."""
        return self._asked.pop(name, None) is not None

    def covers(self, channel: str) -> bool:
        """Whether anything asks for `channel`."""
        return channel in self._asked or any(pattern_covers(name, channel) for name in self._asked)


def pattern_covers(name: str, channel: str) -> bool:
    """Whether `name` is a pattern of which `channel` is one."""
    return name.endswith(":*") and channel.startswith(name[:-1])


def _ask(hz: float | str | None, fields: Sequence[str] | None) -> dict[str, Any]:
    extra = {} if hz is None else {"hz": hz}
    return extra if fields is None else {**extra, "fields": sorted(set(fields))}


def _both(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    if one == other:
        return dict(one)
    tiers = [tier(ask.get("hz", HZ_DEFAULT)) for ask in (one, other)]
    if None in tiers:
        return dict(other)  # no such tier: the server shall say so
    ask: dict[str, Any] = {"hz": min((hz for hz in tiers if hz is not None), key=TIERS.index)}
    if "fields" in one and "fields" in other:
        ask["fields"] = sorted({*one["fields"], *other["fields"]})
    return ask


def in_commands(names: Iterable[str], since: Mapping[str, Any], channels_max: int, bytes_max: int) -> Iterator[list[str]]:
    """Yield the names in lots of which each fits into one command, with the places it resumes at."""
    some: list[str] = []
    room = bytes_max - SPARE_BYTES
    for name in names:
        size = len(name.encode()) + 3
        if name in since:
            size += len(name.encode()) + len(since[name]["epoch"]) + SINCE_BYTES
        if some and (len(some) >= channels_max or size > room):
            yield some
            some, room = [], bytes_max - SPARE_BYTES
        some.append(name)
        room -= size
    if some:
        yield some


class Allowance:
    """Keeps to the limits a server announced in `hello`."""

    def __init__(self, limits: Mapping[str, Any], now_ns: int) -> None:
        self.bytes_max = int(limits.get("bytes", 16_384))
        self.channels_max = min(200, int(limits.get("channels", 500)))
        self._per_cost = float(limits.get("channels_per_cost", 50))
        burst = max(1, int(limits.get("burst", 100) * BURST_PART))
        self._bucket = TokenBucket(float(limits.get("commands_s", 20)) * RATE_PART, burst, now_ns)
        self._burst = burst
        # A lot of channels must never cost more than can be saved up.
        self.channels_max = max(1, min(self.channels_max, int((burst - 1) * self._per_cost)))

    def wait_ms(self, channels: int, now_ns: int) -> int:
        """Take what a command over so many channels costs; return 0, or how long to wait before asking again."""
        return self._bucket.take(now_ns, min(float(self._burst), 1.0 + channels / self._per_cost))

"""Holds the plug-ins that a worker runs: makes their hosts for each partition, passes on what operators order, says how they are.

Pure: what is imported and what the cache says are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from mdp.analyzer import Analyzer
from mdp.analyzers.news import NewsAnalyzer
from mdp.analyzers.quote import QuoteAnalyzer
from mdp.leader.status import PluginStats
from mdp.plugins.host import OFF, PAUSED, RUNNING, Failure, Host, Limits, Watch
from mdp.plugins.installed import Found
from mdp.plugins.reports import Reports

REFUSED = "refused"


class Order(msgspec.Struct):
    """What was said of a plug-in, for all workers: an entry of `mdc.keys.PLUGINS`."""

    state: Literal["on", "off"]
    why: str
    by: str
    at_ms: int
    importing: bool = False  # it was being imported: nobody does that again before it is on


class Rack:
    """The plug-ins of one worker."""

    def __init__(
        self, found: Found, limits: Limits | None = None, watch: Watch | None = None, clock: Callable[[], int] = lambda: 0,
        starved: Callable[[], int] = lambda: 0,
    ) -> None:  # fmt: skip
        self.found = found
        self.watch = watch or Watch()
        self._limits = limits or Limits()
        self._clock, self._starved = clock, starved
        self._orders: dict[str, bytes] = {}

    @property
    def boards(self) -> tuple[str, ...]:
        """The boards that its plug-ins rank."""
        return tuple(board for plugin in self.found.plugins for board in plugin.make.boards)

    def analyzers(self, quotes: QuoteAnalyzer, news: NewsAnalyzer) -> Sequence[Analyzer]:
        """Return new analyzers of one partition for all plug-ins."""
        made: list[Analyzer] = []
        for plugin in self.found.plugins:
            reports, order = Reports(plugin.name), self._orders.get(plugin.name)
            limits, watch, held = self._limits, self.watch, why_off(order)
            host = Host(plugin, quotes, reports, limits, watch, self._clock, order, held, self._starved)
            if host.hears_news:
                news.heard_by.append(host.hear_article)
            made += (host, reports)
        return made

    def learn(self, orders: Mapping[bytes, bytes], hosts: Iterable[Host] = ()) -> None:
        """Take what the cache says of plug-ins, and have the hosts follow what is new in it."""
        self._orders = {name.decode(errors="replace"): body for name, body in orders.items()}
        for host in hosts:
            order = self._orders.get(host.plugin.name)
            if order != host.order:
                host.order = order
                if why := why_off(order):
                    host.hold(why)
                else:
                    host.release()

    def view(self, hosts: Mapping[int, Sequence[Host]]) -> list[PluginStats]:
        """Return how each plug-in is in these partitions, those that were refused with why."""
        told = [PluginStats(one.name, one.version, REFUSED, error=one.why, off=sorted(hosts)) for one in self.found.refused]
        for plugin in self.found.plugins:
            own = {number: host for number, many in hosts.items() for host in many if host.plugin is plugin}
            states = {host.state for host in own.values()}
            held = why_off(self._orders.get(plugin.name))
            told.append(
                PluginStats(
                    plugin.name, plugin.version,
                    state=OFF if held else next((state for state in (OFF, PAUSED) if state in states), RUNNING),
                    off=sorted(number for number, host in own.items() if host.state != RUNNING),
                    error=held or next((host.fault for host in own.values() if host.fault and host.state != RUNNING), "")
                    or next((host.fault for host in own.values() if host.fault), ""),
                    failures=sum(host.tally.failures for host in own.values()),
                    gaps=sum(host.tally.gaps for host in own.values()),
                    missed_events=sum(host.tally.missed for host in own.values()),
                    boards=list(plugin.make.boards),
                )
            )  # fmt: skip
        return told


def why_off(order: bytes | None) -> str:
    """Return why a plug-in is held, empty when it is not. What cannot be read holds nobody."""
    if order is None:
        return ""
    try:
        said = msgspec.json.decode(order, type=Order)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return f"{said.by}: {said.why}" if said.state == "off" else ""


def not_to_import(orders: Mapping[bytes, bytes]) -> dict[str, str]:
    """Return the plug-ins that must not even be imported, with why."""
    found = {}
    for name, body in orders.items():
        if (why := why_off(body)) and msgspec.json.decode(body, type=Order).importing:
            found[name.decode(errors="replace")] = f"{why}; restart the processors after it was put on"
    return found


def hosts_of(analyzers: Iterable[Analyzer]) -> list[Host]:
    """Return the hosts of plug-ins among a partition's analyzers."""
    return [one for one in analyzers if isinstance(one, Host)]


def take_failures(hosts: Iterable[Host]) -> list[tuple[str, Failure]]:
    """Return (plug-in, failure) of what has failed since the last call."""
    found: list[tuple[str, Failure]] = []
    for host in hosts:
        found += ((host.plugin.name, failure) for failure in host.failed)
        host.failed = []
    return found

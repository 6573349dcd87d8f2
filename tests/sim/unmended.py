"""Takes mends out again, so that the simulator can show that it finds the faults they mend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mdc.writer import Writer
from mdp.partitions import partition
from mdp.partitions.ahead import Ahead
from mdp.tenure import Tenure
from mdq.gaps import GapCounter
from service.lease import RedisLease
from wds.fanout.freshness import LIVE, Freshness, Verdict


def one_publisher_a_queue() -> None:
    """Positions are kept by stream alone, as if there were one source: the newest epoch fences all others off."""
    stream: Callable[..., Any] = GapCounter.stream
    GapCounter.stream = lambda self, source, name: stream(self, "", name)  # type: ignore[method-assign]


def leases_never_run_out() -> None:
    """A worker that cannot renew its leases keeps its subscriptions."""
    Tenure.certain = lambda self, now_ns: True  # type: ignore[method-assign]


def unreadable_cells_are_fatal() -> None:
    """A checkpoint cell that cannot be read ends the worker that loads it."""

    def raise_faults(call: Callable[..., None], *arguments: Any) -> str:
        call(*arguments)
        return ""

    partition.fault_of = raise_faults  # type: ignore[attr-defined]


def one_verdict_for_all() -> None:
    """Every channel is called what the pipeline as a whole is called: live while anything lives."""

    def of(self: Freshness, *_: Any) -> Verdict:
        alive = self._pipeline is not None and any(source.state == "live" for source in self._pipeline.sources.values())
        return LIVE if alive and not self._absent else self.verdict

    Freshness.of = of  # type: ignore[method-assign]


def a_server_is_like_another() -> None:
    """Nobody asks whether the cache is still the same process: one that came back with older data goes on in the same epoch."""

    async def server(self: Writer) -> str:
        return ""

    Writer._server = server  # type: ignore[method-assign]


def a_holder_keeps_its_epoch() -> None:
    """A tenure that ran out is followed by one of the same epoch while Redis still keeps the lease."""
    RedisLease.forget = lambda self: None  # type: ignore[method-assign]


def nobody_is_ahead() -> None:
    """What comes again after a crash is given to the watched symbols once more, although they have had it."""
    Ahead.split = lambda self, events, *_: ([], list(events))  # type: ignore[method-assign]


MENDS: dict[str, Callable[[], None]] = {
    made.__name__: made
    for made in (
        one_publisher_a_queue,
        leases_never_run_out,
        one_verdict_for_all,
        unreadable_cells_are_fatal,
        a_server_is_like_another,
        a_holder_keeps_its_epoch,
        nobody_is_ahead,
    )
}


def take_out(name: str) -> None:
    """Undo the mend `name` in this process; nothing for the empty name.  Raises: KeyError for an unknown one."""
    if name:
        MENDS[name]()

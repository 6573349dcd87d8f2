"""Takes mends out again, so that the simulator can show that it finds the faults they mend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mdp import partition
from mdp.tenure import Tenure
from mdq.gaps import GapCounter


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

    partition._fault_of = raise_faults


MENDS: dict[str, Callable[[], None]] = {
    made.__name__: made for made in (one_publisher_a_queue, leases_never_run_out, unreadable_cells_are_fatal)
}


def take_out(name: str) -> None:
    """Undo the mend `name` in this process; nothing for the empty name.  Raises: KeyError for an unknown one."""
    if name:
        MENDS[name]()

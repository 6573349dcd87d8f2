"""Runs several feeds at once and looks like one; each part reconnects by itself.

A group of one says exactly what its part says. Of several, one that is live makes the group live; those that are not, or are
live without some of their data, are named in `reason` and `ailing`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from mdl.feeds.feed import Feed, FeedRefused, State

PRECEDENCE: tuple[State, ...] = ("live", "connecting", "refused", "standby", "stopped", "ended")
log = structlog.get_logger()


class FeedGroup:
    """The feeds of one listener. A lossless one is alone: it waits for the processors, which the others never do."""

    def __init__(self, parts: Sequence[Feed]) -> None:
        assert parts, "a group of nothing"
        self.parts = tuple(parts)
        assert not self.lossless or len(parts) == 1, "a lossless feed is alone"

    @property
    def name(self) -> str:
        return "+".join(part.name for part in self.parts)

    @property
    def lossless(self) -> bool:
        return any(part.lossless for part in self.parts)

    @property
    def state(self) -> State:
        return min((part.state for part in self.parts), key=PRECEDENCE.index)

    @property
    def reason(self) -> str:
        if len(self.parts) == 1:
            return self.parts[0].reason
        return "; ".join(f"{part.name} {part.state}: {part.reason}" for part in self.parts if part.state != "live" or part.reason)

    @property
    def ailing(self) -> list[str]:
        """What to tell of parts that fail, wholly or in part, while the group goes on; a part that has ended has not failed."""
        if self.state != "live":
            return []
        failed = [part for part in self.parts if part.state not in ("live", "ended")]
        told = [f"feed {part.name} {part.state}: {part.reason}" for part in failed]
        return told + [f"feed {part.name}: {part.ailing}" for part in self.parts if part.state == "live" and part.ailing]

    @property
    def reconnects(self) -> int:
        return sum(part.reconnects for part in self.parts)

    @property
    def malformed(self) -> int:
        return sum(part.malformed for part in self.parts)

    @property
    def dropped_frames(self) -> int:
        return sum(part.dropped_frames for part in self.parts)

    async def run(self, receive: Callable[[Feed], Coroutine[Any, Any, None]]) -> None:
        """Receive of every part until all have ended.

        Raises: FeedRefused when a part was refused and all others have ended; until then it is `ailing`.
        """
        refusals: list[FeedRefused] = []

        async def follow(part: Feed) -> None:
            try:
                await receive(part)
            except FeedRefused as refused:
                refusals.append(refused)
                if len(self.parts) > 1:
                    log.error("feed_refused", feed=part.name, error=str(refused))

        tasks = [asyncio.create_task(follow(part)) for part in self.parts]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if refusals:
            raise refusals[0]

"""Draws from a seed what a simulated deployment looks like and what will happen to it.

Invariant: the same seed draws the same plan in every Python; nothing else decides what a run does.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

WARM_S = 2.5  # everything starts and settles
CHAOS_S = 8.0  # faults begin within this time
HEAL_S = WARM_S + CHAOS_S + 0.5  # all faults have ended
OWNED_S = 5.0  # within so long everything is owned and fresh again
QUIET_S = HEAL_S + OWNED_S + 0.2  # the feeds stop
END_S = QUIET_S + 2.0  # what was under way has arrived

PROCESS_FAULTS = ("pause", "kill", "restart")
LINK_FAULTS = ("hang", "hang_up", "hang_down", "refuse", "slow", "reset", "lose_answers")
QUEUE_FAULTS = ("queues_restart", "queues_drop", "queues_pause")
CACHE_FAULTS = ("cache_empty", "cache_roll_back", "cache_fail_over", "cache_restart", "cache_pause", "cache_poison")
CLOCK_FAULTS = ("clock_jump",)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong: what, to whom (chosen by `dice` among who is there), when and for how long."""

    what: str
    at_s: float
    for_s: float
    dice: float
    other: float

    def __str__(self) -> str:
        return f"{self.what} at {self.at_s:.2f} s for {self.for_s:.2f} s"


@dataclass(frozen=True)
class Plan:
    """A deployment and its faults."""

    seed: int
    partitions: int = 4
    workers: int = 2
    services: int = 1
    sources: tuple[str, ...] = ("stocks",)
    standbys: int = 0
    symbols: int = 3  # a source
    pace_s: float = 0.2  # between two events of a symbol
    flush_ms: int = 100
    analyzers: str = "quote,trades"
    named: bool = False  # workers keep their names when they are started again
    faults: list[Fault] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.workers} workers, {self.services} services, sources {', '.join(self.sources)}"
            f" (+{self.standbys} standby), {self.partitions} partitions, flush {self.flush_ms} ms, {self.analyzers}{', fixed names' if self.named else ''}"
        ]
        return "\n".join(lines + [f"  {fault}" for fault in self.faults])


SOURCES = ("stocks", "crypto", "options-2", "exchange")


def draw(seed: int) -> Plan:
    """Return the plan of `seed`: mostly small deployments with few faults, sometimes large ones with many."""
    dice = random.Random(f"plan:{seed}")
    sources = SOURCES[: dice.choice((1, 1, 2, 2, 3, 4))]
    kinds = _kinds(dice)
    many = dice.choice((0, 1, 1, 1, 2, 2, 3, 5))
    return Plan(
        seed=seed,
        partitions=dice.choice((1, 2, 2, 4)),
        workers=dice.choice((1, 2, 2, 2, 2, 3, 3, 4, 5, 8)),
        services=dice.choice((1, 1, 1, 1, 2, 3)),
        sources=sources,
        standbys=dice.choice((0, 0, 1)),
        symbols=dice.choice((2, 3, 4)) if len(sources) < 3 else 2,
        pace_s=dice.choice((0.15, 0.3)),
        flush_ms=dice.choice((50, 100, 200, 400)),
        analyzers=dice.choice(
            ("quote,trades", "quote,trades", "quote,trades", "quote,trades,boards", "quote,bars,trades,boards,range")
        ),
        faults=sorted((_fault(dice, kinds) for _ in range(many)), key=lambda fault: fault.at_s),
        named=dice.random() < 0.25,
    )


def _kinds(dice: random.Random) -> list[str]:
    # Swarm testing: a seed knows only some kinds of faults, so that rare combinations of few come up, too.
    families = (PROCESS_FAULTS, LINK_FAULTS, LINK_FAULTS, QUEUE_FAULTS, CACHE_FAULTS, CLOCK_FAULTS)
    return [kind for family in dice.sample(families, dice.randint(1, 4)) for kind in family]


def _fault(dice: random.Random, kinds: list[str]) -> Fault:
    at_s = WARM_S + dice.random() * (CHAOS_S - 1)
    for_s = min(dice.choice((0.3, 1.0, 2.5, 5.0, 8.0, 8.0)) * (0.5 + dice.random()), HEAL_S - 0.1 - at_s)
    return Fault(dice.choice(kinds), at_s, for_s, dice.random(), dice.random())

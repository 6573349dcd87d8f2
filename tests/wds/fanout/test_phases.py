"""Checks which phases of a rate are sent together."""

from __future__ import annotations

import pytest

from wds.fanout.phases import WRITES_S_MAX, due, parts
from wds.protocol import PERIOD_S, PHASES

TIERS = list(PERIOD_S)


@pytest.mark.parametrize("hz", TIERS)
def test_every_phase_is_sent_once_a_period(hz: float) -> None:
    """However many parts there are; what waits longest waits no longer than its part of the period."""
    for number in range(1, PHASES[hz] + 1):
        sent = [list(due(hz, phase, number)) for phase in range(PHASES[hz])]
        assert [phase for some in sent for phase in some] == list(range(PHASES[hz]))
        assert len([some for some in sent if some]) == number
        assert max(map(len, sent)) <= -(-PHASES[hz] // number)


@pytest.mark.parametrize(("clients", "expected"), [(0, 5), (1, 5), (400, 5), (401, 4), (1000, 2), (2000, 1), (100_000, 1)])
def test_many_clients_get_fewer_and_larger_writes(clients: int, expected: int) -> None:
    """Up to WRITES_S_MAX writes a second a rate keeps its phases; beyond, it has as many parts as keep to it, at least one."""
    readers = {(4, phase): clients for phase in range(PHASES[4])} | {("raw", 0): 9999}
    assert parts(4, readers) == expected
    assert expected == 1 or expected * clients / PERIOD_S[4] <= WRITES_S_MAX


def test_clients_of_one_channel_keep_their_phases() -> None:
    """What counts is writes: a thousand clients that follow one channel each are written to once a period as they are."""
    assert parts(4, {(4, 2): 1000}) == 5

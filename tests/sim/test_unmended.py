"""Shows that the simulator finds each fault again when its mend is taken out: the table of README.md."""

from __future__ import annotations

import pytest

from tests.sim.test_seeds import runner
from tests.sim.unmended import MENDS

FOUND_BY = {
    "one_publisher_a_queue": 2,
    "leases_never_run_out": 1422,
    "one_verdict_for_all": 43,
    "unreadable_cells_are_fatal": 23,
    "a_server_is_like_another": 1,
    "a_holder_keeps_its_epoch": 8,
    "nobody_is_ahead": 10,
}


@pytest.mark.faults
@pytest.mark.parametrize("mend", MENDS)
def test_a_fault_comes_back_without_its_mend(mend: str) -> None:
    """The seed passes as things are, and fails when the mend is taken out."""
    seed = FOUND_BY[mend]
    assert runner(SEEDS=1, FIRST=seed).returncode == 0
    without = runner(SEEDS=1, FIRST=seed, UNMENDED=mend)
    assert without.returncode == 1, without.stdout
    assert "replay: make sim" in without.stdout

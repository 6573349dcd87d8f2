"""Each queue keeps its order and none waits for another: the numbers are the oracle's all the same."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from tests.days import comparing
from tests.days.calendar import AROUND_IT, AUTUMN, SPRING, THANKSGIVING, at
from tests.days.oracle import Oracle
from tests.days.queues import LEVEL, Queues
from tests.days.tape import Plan, write, write_reference

PLANS = {
    "spring": Plan(12, SPRING, at(SPRING[1], 11)),
    "autumn": Plan(12, AUTUMN, at(AUTUMN[1], 20, 0, 30)),
    "thanksgiving": Plan(12, AROUND_IT, at(AROUND_IT[1], 17, 0, 30), THANKSGIVING),
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("chunk", [200, 4_000])
def test_days_equal_the_oracle_however_far_one_queue_is_ahead(tmp_path: Path, name: str, chunk: int) -> None:
    """With queues up to minutes or a day ahead of each other, flushes and hand-overs at any moment, everything equals the oracle.

    Also where indices and aggregates, in a queue of their own, tell a later time than that of the trades that wait in theirs.
    """
    tape, reference, plan = tmp_path / "tape.ndjson", tmp_path / "reference.csv", PLANS[name]
    write(tape, plan)
    write_reference(reference, plan)
    oracle, queues = Oracle(tape, reference), Queues(reference, Random(f"{name} {chunk}"))
    queues.play(tape, chunk)
    faults = [
        *comparing.of_alerts(queues.alerts(), oracle), *comparing.of_boards(queues, oracle), *comparing.of_symbols(queues, oracle)
    ]  # fmt: skip
    assert not faults, "\n".join([f"{len(faults)} differences", *faults[:40]])
    assert queues.earlier_day == oracle.earlier_day > 0
    for document in queues.mget([f"ch:quote:{name}" for pair in queues.beside for name in pair]):
        data = json.loads(document or "{}")["data"]
        assert (data["last"], data["prev_close"], data["high"], data["low"]) == (LEVEL, LEVEL, LEVEL, LEVEL)

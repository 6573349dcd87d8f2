"""Checks how a source's status facts become metrics."""

from __future__ import annotations

from typing import Any

from mdl.pulse import COUNTED, MEASURED, Pulse
from service.metrics import exposition


def value(line: str) -> float:
    return next(float(text.split()[-1]) for text in exposition().decode().splitlines() if text.startswith(line + " "))


def facts(**more: Any) -> dict[str, Any]:
    return dict.fromkeys([*COUNTED, *MEASURED], 0) | {"state": "live"} | more


def test_totals_become_increments() -> None:
    """Two listeners of one process add up; a total that goes back adds nothing."""
    before = (
        value('tapeline_mdl_malformed_events_total{source="a"}')
        if b'tapeline_mdl_malformed_events_total{source="a"}' in exposition()
        else 0
    )
    one, two = Pulse("a"), Pulse("a")
    one.beat(facts(malformed=5))
    one.beat(facts(malformed=7))
    two.beat(facts(malformed=3))
    two.beat(facts(malformed=1))
    assert value('tapeline_mdl_malformed_events_total{source="a"}') == before + 10


def test_the_feed_is_in_one_state() -> None:
    """And the gauges show the last beat."""
    pulse = Pulse("b")
    pulse.beat(facts(state="standby", buffer_bytes=17))
    assert pulse.state == "standby"
    assert value('tapeline_mdl_feed_state{source="b",state="standby"}') == 1
    assert value('tapeline_mdl_feed_state{source="b",state="live"}') == 0
    assert value('tapeline_mdl_buffer_bytes{source="b"}') == 17

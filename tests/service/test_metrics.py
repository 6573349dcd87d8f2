"""Checks how metrics are named, and that each is created once a process."""

from __future__ import annotations

from service import metrics


def test_a_metric_is_named_after_its_component() -> None:
    """Names are `tapeline_<component>_<what>`; durations are histograms with buckets in milliseconds."""
    metrics.counter("reel", "frames", "Frames.", ["feed"]).labels("tape").inc(3)
    metrics.gauge("reel", "age_ms", "Age.").set(7)
    metrics.histogram("reel", "turn_ms", "Turn.").observe(3)
    text = metrics.exposition().decode()
    assert 'tapeline_reel_frames_total{feed="tape"} 3.0' in text
    assert "tapeline_reel_age_ms 7.0" in text
    assert 'tapeline_reel_turn_ms_bucket{le="5.0"} 1.0' in text
    assert 'tapeline_reel_turn_ms_bucket{le="2.0"} 0.0' in text


def test_a_metric_is_made_once_a_process() -> None:
    """Building a component twice in one process uses the same metric."""
    assert metrics.counter("reel", "twice", "Twice.") is metrics.counter("reel", "twice", "Twice.")

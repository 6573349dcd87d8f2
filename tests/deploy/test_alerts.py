"""deploy/prometheus/rules.yml: each alert fires in its fault and is silent in an ordinary hour, says `promtool`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tapes import absent

ROOT = Path(__file__).resolve().parent.parent.parent
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
HOUR = 60

# An ordinary hour, a sample a minute: counters grow, latencies lie in the lowest bucket, everything is there.
ORDINARY = {
    'up{job="mdp",instance="a:9102"}': "1x60",
    'tapeline_mdl_feed_state{source="stocks",state="live",instance="a"}': "1x60",
    'tapeline_mdl_feed_state{source="stocks",state="live",instance="standby"}': "0x60",
    'tapeline_mdl_feed_state{source="stocks",state="ended",instance="a"}': "0x60",
    'tapeline_mdl_received_events_total{source="stocks"}': "0+1000x60",
    'tapeline_mdl_dropped_events_total{source="stocks"}': "7x60",
    'tapeline_mdp_lost_events_total{source="stocks",stream="trades",reason="expired"}': "7x60",
    'tapeline_mdp_receive_to_cache_ms_bucket{le="100"}': "0+100x60",
    'tapeline_mdp_receive_to_cache_ms_bucket{le="5000"}': "0+100x60",
    'tapeline_mdp_receive_to_cache_ms_bucket{le="+Inf"}': "0+100x60",
    'tapeline_mdp_partitions{instance="a"}': "4x60",
    'tapeline_mdp_partitions{instance="b"}': "4x60",
    'tapeline_mdp_plugin_off_partitions{plugin="spread",instance="a"}': "0x60",
    'tapeline_wds_fresh{instance="a"}': "1x60",
    'tapeline_wds_data_age_ms_bucket{le="100"}': "0+100x60",
    'tapeline_wds_data_age_ms_bucket{le="5000"}': "0+100x60",
    'tapeline_wds_data_age_ms_bucket{le="+Inf"}': "0+100x60",
    "tapeline_wds_slow_clients": "1x60",
    "tapeline_wds_connections": "100x60",
    'tapeline_engine_refused_total{why="busy"}': "7x60",
    'tapeline_engine_replication_standbys{job="engine"}': "1x60",
    'tapeline_engine_replication_standbys{job="standby"}': "0x60",
    'tapeline_engine_replication_lag_ms{job="engine"}': "1x60",
    'tapeline_engine_replication_lag_ms{job="standby"}': "-1x60",
    'tapeline_engine_commit_ms_bucket{le="2"}': "0+100x60",
    'tapeline_engine_commit_ms_bucket{le="100"}': "0+100x60",
    'tapeline_engine_commit_ms_bucket{le="+Inf"}': "0+100x60",
    "tapeline_engine_snapshot_age_seconds": "60x60",
    'tapeline_engine_store_age_ms{store="mdl"}': "100x60",
    'tapeline_engine_store_suspension_distance_ms{store="mdl"}': "59900x60",
    "tapeline_oms_lag_ms": "20x60",
}

# What differs from minute 30 on, and what the alert then says of it.
FAULTS: dict[str, dict[str, str]] = {
    "TapelineTargetDown": {'up{job="mdp",instance="a:9102"}': "1x30 0x30"},
    "TapelineFeedDown": {'tapeline_mdl_feed_state{source="stocks",state="live",instance="a"}': "1x30 0x30"},
    "TapelineFeedSilent": {'tapeline_mdl_received_events_total{source="stocks"}': "0+1000x30 30000x30"},
    "TapelineListenerDrops": {'tapeline_mdl_dropped_events_total{source="stocks"}': "7x30 7+9x30"},
    "TapelineEventsLost": {'tapeline_mdp_lost_events_total{source="stocks",stream="trades",reason="expired"}': "7x30 7+9x30"},
    "TapelineLateToCache": {'tapeline_mdp_receive_to_cache_ms_bucket{le="100"}': "0+100x30 3000x30"},
    "TapelinePartitionsUnowned": {'tapeline_mdp_partitions{instance="b"}': "4x30 0x30"},
    "TapelinePluginOff": {'tapeline_mdp_plugin_off_partitions{plugin="spread",instance="a"}': "0x30 4x30"},
    "TapelineClientsStale": {'tapeline_wds_fresh{instance="a"}': "1x30 0x30"},
    "TapelineDataAge": {'tapeline_wds_data_age_ms_bucket{le="100"}': "0+100x30 3000x30"},
    "TapelineSlowClients": {"tapeline_wds_slow_clients": "1x30 30x30"},
    "TapelineEngineRefuses": {'tapeline_engine_refused_total{why="busy"}': "7x30 7+9x30"},
    "TapelineStandbyGone": {'tapeline_engine_replication_standbys{job="engine"}': "1x30 0x30"},
    "TapelineStandbyBehind": {'tapeline_engine_replication_lag_ms{job="engine"}': "1x30 60000x30"},
    "TapelineEngineSlowCommits": {'tapeline_engine_commit_ms_bucket{le="2"}': "0+100x30 3000x30"},
    "TapelineSnapshotOld": {"tapeline_engine_snapshot_age_seconds": "60x30 900x30"},
    "TapelineStoreNearSuspension": {
        'tapeline_engine_store_age_ms{store="mdl"}': "100x30 58000x30",
        'tapeline_engine_store_suspension_distance_ms{store="mdl"}': "59900x30 2000x30",
    },
    "TapelineOmsBehind": {"tapeline_oms_lag_ms": "20x30 60000x30"},
}


def rules() -> list[dict[str, Any]]:
    """Return the alerts."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def series(changed: dict[str, str]) -> list[dict[str, str]]:
    """Return the hour's series in promtool's form."""
    assert changed.keys() <= ORDINARY.keys()
    return [{"series": name, "values": values} for name, values in (ORDINARY | changed).items()]


def promtool(*arguments: str | Path) -> str:
    """Return what promtool says.  Absent: the test is skipped; in CI it fails."""
    if shutil.which("promtool") is None:
        absent("no promtool: apt-get install prometheus (tests/run does on Debian and Ubuntu)")
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_alert_has_its_fault_and_its_page() -> None:
    """An alert without a page to read at night, or without a test, is not added."""
    assert {rule["alert"] for rule in rules()} == FAULTS.keys()
    for rule in rules():
        page = ROOT / rule["annotations"]["runbook"]
        text = page.read_text()
        assert rule["alert"] in text
        assert rule["expr"] in text, f"{page.name} shows another expression than the rule"
        assert "## What to do" in text


def test_alerts_fire_in_their_fault_and_are_silent_in_an_ordinary_hour(tmp_path: Path) -> None:
    """At minute 29 nothing fires; at minute 45 of each fault its own alert does."""
    tests = [{"interval": "1m", "input_series": series({}), "promql_expr_test": [silent(at) for at in ("10m", "29m", "59m")]}]
    for alert, changed in FAULTS.items():
        firing = f'count(ALERTS{{alertstate="firing",alertname="{alert}"}}) > bool 0'
        tests.append({
            "interval": "1m",
            "input_series": series(changed),
            "promql_expr_test": [
                silent("29m"), {"expr": firing, "eval_time": "45m", "exp_samples": [{"labels": "{}", "value": 1}]}
            ],
        })  # fmt: skip
    (tmp_path / "rules.yml").write_text(RULES.read_text())
    (tmp_path / "tests.yml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests})
    )
    assert "SUCCESS" in promtool("test", "rules", tmp_path / "tests.yml")


def silent(at: str) -> dict[str, Any]:
    return {"expr": 'ALERTS{alertstate="firing"}', "eval_time": at, "exp_samples": []}


def test_a_broken_rule_is_found(tmp_path: Path) -> None:
    """The check above can fail: a threshold that an ordinary hour reaches is reported."""
    broken = RULES.read_text().replace("> 600", "> 6")
    (tmp_path / "rules.yml").write_text(broken)
    tests = [{"interval": "1m", "input_series": series({}), "promql_expr_test": [silent("29m")]}]
    (tmp_path / "tests.yml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests})
    )
    with pytest.raises(AssertionError, match="SnapshotOld"):
        promtool("test", "rules", tmp_path / "tests.yml")

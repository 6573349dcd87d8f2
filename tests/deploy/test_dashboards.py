"""deploy/grafana and deploy/prometheus: alerts and panels name only metrics that a running Tapeline really has."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest
import yaml

from engine.oms import consumer as oms
from service import metrics
from tests.local_run import LocalRun

ROOT = Path(__file__).resolve().parent.parent.parent
BOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
FILES = ROOT / "helm" / "tapeline" / "files"


def expressions() -> list[str]:
    """Return every expression of the alerts and panels."""
    found = [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    for board in BOARDS:
        found += [target["expr"] for panel in json.loads(board.read_text())["panels"] for target in panel["targets"]]
    return found


def named(expression: str) -> set[tuple[str, str]]:
    """Return the metrics of an expression, as (name, labels that it chooses by or shows)."""
    return set(re.findall(r"\b((?:tapeline|process)_\w+|up\b)(?:\{([^}]*)\})?", expression))


def scraped(text: str) -> dict[str, set[str]]:
    """Return metric → the names of its labels, of a text in Prometheus's format; a metric without samples has its name alone."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            names = [f"{name}_{part}" for part in ("bucket", "sum", "count")] if kind == "histogram" else [name]
            found |= {one: found.get(one, set()) for one in names}
        elif line and not line.startswith("#"):
            name, _, labels = line.partition(" ")[0].partition("{")
            found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


@pytest.mark.live
def test_every_metric_exists_in_a_real_scrape(tmp_path: Path, mdc_url: str) -> None:
    """A renamed metric turns a panel into an empty one and an alert into a silent one: neither may pass."""
    with LocalRun(tmp_path, FEED="simulator+engine", SYMBOLS="20", RATE="200", MDC_URL=mdc_url) as run:
        run.says("ready")
        text = "".join(scrape(run.port(name)) for name in run.facts["ports"] if name.endswith("_ADMIN_PORT"))
        run.interrupt()
        run.ends()
    assert oms.__name__  # whose metrics are in this process
    have = scraped(text + metrics.exposition().decode())
    used = {pair for expression in expressions() for pair in named(expression)} - {("up", "")}
    missing = {name for name, _ in used if name != "up" and name not in have}
    assert not missing
    chosen = {(name, label) for name, labels in used for label in re.findall(r"(\w+)\s*=", labels)} - {("up", "job")}
    wrong = {(name, label) for name, label in chosen if label not in have.get(name, set()) | {"job", "instance"}}
    assert not wrong


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def test_what_is_looked_at_is_there() -> None:
    """Two boards, every panel with a title, a unit and an expression; identifiers are unique."""
    for board in BOARDS:
        made = json.loads(board.read_text())
        assert made["uid"].startswith("tapeline-")
        assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"])
        assert all(panel["title"] and panel["targets"] for panel in made["panels"])
    assert len(BOARDS) == 2
    assert named('sum(rate(tapeline_mdp_events_total{source="a"}[1m]))') == {("tapeline_mdp_events_total", 'source="a"')}


def test_the_chart_carries_the_same_files() -> None:
    """Compose and chart watch with the same rules and boards."""
    for path in (RULES, *BOARDS):
        assert (FILES / path.name).read_text() == path.read_text(), f"copy {path.name} into helm/tapeline/files"

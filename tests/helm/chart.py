"""Finds helm, renders the chart with values, and gives its objects."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.tapes import absent

ROOT = Path(__file__).resolve().parent.parent.parent
CHART = ROOT / "helm" / "tapeline"
FOREIGN = {"PodMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication", "RabbitmqCluster", "Redis"}

SECRET = {"name": "given", "key": "url"}
PRODUCTION: dict[str, Any] = {
    "partitions": 64,
    "mdl": {"replicas": 2, "feed": "massive", "apiKeySecret": {"name": "vendor"}},
    "mdp": {"autoscaling": {"enabled": True, "minReplicas": 4, "maxReplicas": 64}, "restUrl": "https://rest.example.com"},
    "wds": {"autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 20}},
    "scp": {"replicas": 2, "database": SECRET},
    "rabbitmq": {"mode": "external", "urlSecret": SECRET},
    "redis": {"mode": "external", "urlSecret": SECRET, "streamsUrlSecret": SECRET},
    "ingress": {"enabled": True, "className": "nginx", "host": "desk.example.com", "tlsSecret": "desk-tls"},
}
EXCHANGE: dict[str, Any] = {
    "mdl": {"feed": "simulator+engine+news"},
    "engine": {"enabled": True}, "bots": {"enabled": True}, "oms": {"enabled": True, "database": SECRET},
}  # fmt: skip
STANDBY = EXCHANGE | {
    "engine": {
        "enabled": True, "replication": "sync", "standby": {"enabled": True, "leader": "standby"},
        "extraMounts": [{"path": "/etc/tapeline/tls", "secret": "engine-tls"}, {"path": "/etc/tapeline/x", "configMap": "x"}],
    },
    "scp": {"extraEnv": {"SCP_MAIL_FROM": "desk@example.com"}, "extraSecrets": {"SCP_SMTP_URL": {"name": "mail", "key": "url"}}},
}  # fmt: skip
METRICS = {"metrics": {name: {"enabled": True} for name in ("serviceMonitor", "rules", "dashboards")}}
MATRIX: dict[str, dict[str, Any]] = {
    "minimal": {},
    "production": PRODUCTION,
    "exchange": EXCHANGE,
    "exchange without streams": EXCHANGE | {"engine": {"enabled": True, "streams": False}},
    "exchange with standby": STANDBY,
    "production with exchange": PRODUCTION | EXCHANGE | {"mdl": PRODUCTION["mdl"] | {"feed": "massive+engine"}},
    "operators": {"rabbitmq": {"mode": "operator"}, "redis": {"mode": "operator"}},
    "keda": {"mdp": {"autoscaling": {"enabled": True, "keda": {"enabled": True, "managementUrlSecret": {"name": "queue"}}}}},
    "metrics": METRICS,
    "own secret": {"existingSecret": "ours", "networkPolicy": {"enabled": False}, "podDisruptionBudget": {"enabled": False}},
}


@cache
def helm() -> str:
    """Return the command: HELM names one, else it is on PATH.  Absent: the test is skipped; in CI it fails."""
    found = os.environ.get("HELM") or shutil.which("helm")
    if not found:
        absent("no helm: install it (tests/run does on Linux), or set HELM to its path")
    return str(found)


def run(*arguments: str, values: dict[str, Any] | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run helm with values on its stdin."""
    command = [helm(), *arguments, str(CHART), "--values", "-"]
    done = subprocess.run(command, input=yaml.safe_dump(values or {}), capture_output=True, text=True, timeout=120)
    assert not check or done.returncode == 0, done.stderr
    return done


@cache
def rendered(case: str) -> str:
    """Return the manifest of a case of the matrix."""
    return run("template", "t", "--namespace", "n", values=MATRIX[case]).stdout


@cache
def _objects(case: str) -> list[dict[str, Any]]:
    return parsed(rendered(case))


def parsed(manifest: str) -> list[dict[str, Any]]:
    """Return the objects of a manifest."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a tenth of the time where libyaml is there
    return [document for document in yaml.load_all(manifest, loader) if document]


def objects(case: str) -> list[dict[str, Any]]:
    """Return the objects of a case."""
    return list(_objects(case))


def of_kind(case: str, *kinds: str) -> list[dict[str, Any]]:
    """Return those of some kinds."""
    return [one for one in objects(case) if one["kind"] in kinds]


def pods(case: str) -> dict[str, dict[str, Any]]:
    """Return component → pod template of everything that runs."""
    found = {}
    for one in objects(case):
        template = one if one["kind"] == "Pod" else one.get("spec", {}).get("template")
        if template and "containers" in template.get("spec", {}):
            found[template["metadata"]["labels"]["app.kubernetes.io/component"]] = template
    return found

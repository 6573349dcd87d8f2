"""Writes the chart's README out of its values: `python -m tests.helm.readme --write`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parent.parent.parent / "helm" / "tapeline"
HEAD = """# Tapeline on Kubernetes

```
helm install tapeline helm/tapeline -n tapeline --create-namespace                  # a simulated market, everything bundled
helm install tapeline helm/tapeline -n tapeline --values production.yaml            # your servers, vendor, Ingress
helm test tapeline -n tapeline
```

Helm 3 or 4, Kubernetes 1.29 or newer. Every pod fits the `restricted` Pod Security Standard, on a read-only root. The image is
`deploy/Dockerfile`'s; no registry has one yet: build it and set `image.repository`.

- **Secrets** are made at the first install and kept over upgrades and an uninstall, or are yours (`existingSecret`). Pods read them as files.
- **Listener**: an upgrade starts the new pod as a standby; it connects to the vendor when the old one has given its lease back.
- **Processors**: never more than `partitions`; the templates refuse it, also as a bound of the autoscaler.
- **Exchange**: one pod with a volume, or two (`engine.standby`), of which one copies the other's journal and takes over by
  `python -m engine promote` (deploy/README.md). **Control plane**: one pod with a volume, or several with PostgreSQL; a Job brings its database up to
  date before an upgrade.
- **Data services**: a pod that ends leaves the Service, then sends its clients off over `wds.drainSeconds`; they resume elsewhere.
- **Settings** without a value of their own: `extraEnv`, `extraSecrets` and `extraMounts` of each component.
- **Plug-ins** of the processors come in an image of your own, `FROM` ours (deploy/README.md has the five lines); it may be everybody's.
  One whose packages were built for Python 3.11 can also be mounted: `mdp.extraMounts` and `mdp.extraEnv: { PYTHONPATH: "/app:/plugins" }`.
- **Access** is the table of `deploy/README.md`, as NetworkPolicies. The cluster's network has to enforce them.
- **An upgrade from another major version** of the chart is not tried: read CHANGELOG.md first.

A small production:

```yaml
image: { repository: registry.example.com/tapeline }
partitions: 64
mdl: { replicas: 2, feed: massive, apiKeySecret: { name: vendor-key } }
mdp: { autoscaling: { enabled: true, minReplicas: 4, maxReplicas: 32 } }
wds: { replicas: 4 }
scp: { replicas: 2, database: { name: scp-database } }
rabbitmq: { mode: operator }
redis: { mode: external, urlSecret: { name: cache } }
ingress: { enabled: true, className: nginx, host: desk.example.com, tlsSecret: desk-tls }
metrics: { serviceMonitor: { enabled: true }, rules: { enabled: true }, dashboards: { enabled: true } }
```

## Values

| value | default | meaning |
|---|---|---|
"""


def rows() -> Iterator[tuple[str, str, str]]:
    """Yield (path, default, meaning) of each value down to two levels; the meaning is the comment above it."""
    text = (CHART / "values.yaml").read_text()
    values, about = yaml.safe_load(text), meanings(text)
    for name, value in values.items():
        if isinstance(value, dict) and value and any(f"{name}.{inner}" in about for inner in value):
            for inner, default in value.items():
                if inner.startswith("extra") and f"{name}.{inner}" not in about:
                    continue  # the same for each component, and said with the first one
                yield f"{name}.{inner}", json.dumps(default), about.get(f"{name}.{inner}", "")
        else:
            yield name, json.dumps(value), about.get(name, "")


def meanings(text: str) -> dict[str, str]:
    """Return path → the `# --` comment that stands above it."""
    found, section, comment = {}, "", ""
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("# --"):
            comment = bare.removeprefix("# --").strip()
        elif bare and not bare.startswith("#"):
            name = bare.partition(":")[0]
            section = section if line.startswith(" ") else name
            found[f"{section}.{name}" if line.startswith(" ") else name] = comment
            comment = ""
    return {path: meaning for path, meaning in found.items() if meaning}


def readme() -> str:
    """Return the whole text."""
    return HEAD + "".join(f"| `{path}` | `{default}` | {meaning} |\n" for path, default, meaning in rows())


if __name__ == "__main__":
    if "--write" in sys.argv:
        (CHART / "README.md").write_text(readme())
    else:
        sys.stdout.write(readme())

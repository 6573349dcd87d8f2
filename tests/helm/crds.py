"""The schemas of operators' kinds that the chart renders, each with where it is from: `crds/<Kind>.json`.

`source` names the module and version whose CRD was read; descriptions and status are left out, nothing else. Those of RabbitmqCluster
and Redis, whose operators no package registry gave us, are written down from the operators' published types at the commit that is
named, and know only the fields that they list: a field that the chart begins to use has to be looked up first.

`python -m tests.helm.crds SOURCE CRD.yaml …` makes them anew, for example of the files that `go mod download
github.com/kedacore/keda/v2@v2.21.0` fetches: config/crd/bases/keda.sh_scaledobjects.yaml.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

FOLDER = Path(__file__).parent / "crds"


@cache
def known(kind: str) -> dict[str, Any]:
    """Return what is known of a kind: source, apiVersion, schema."""
    return dict(json.loads((FOLDER / f"{kind}.json").read_text()))


def faults(one: dict[str, Any]) -> list[str]:
    """Return what an API server with the operator's CRD would refuse, or silently drop, of an object."""
    about = known(one["kind"])
    found = (
        [] if one["apiVersion"] == about["apiVersion"] else [f"{one['kind']} is {about['apiVersion']}, not {one['apiVersion']}"]
    )
    validator = jsonschema.Draft202012Validator(closed(about["schema"], top=True))
    return found + [f"{one['kind']} {error.json_path}: {error.message[:200]}" for error in validator.iter_errors(one)]


def closed(node: Any, top: bool = False) -> Any:
    """Return a schema in which an object has no other fields than those that are named: the server drops them in silence."""
    if isinstance(node, list):
        return [closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {name: closed(value) for name, value in node.items()}
    if isinstance(node.get("properties"), dict):
        made["properties"] = {name: closed(value) for name, value in node["properties"].items()}
        if top:
            made["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}
        if not node.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    return made


def without_words(node: Any) -> Any:
    """Return a schema without its descriptions; a property of that name stays."""
    if isinstance(node, dict):
        return {name: without_words(value) for name, value in node.items() if name != "description" or not isinstance(value, str)}
    return [without_words(item) for item in node] if isinstance(node, list) else node


def main(source: str, *paths: str) -> None:
    """Write what is known of the kinds of some CRDs; of several versions the one that is stored."""
    for path in paths:
        spec = yaml.safe_load(Path(path).read_text())["spec"]
        version = next(one for one in spec["versions"] if one["storage"])
        schema = without_words(version["schema"]["openAPIV3Schema"])
        schema["properties"].pop("status", None)
        made = {"source": f"{source} {Path(path).name}", "apiVersion": f"{spec['group']}/{version['name']}", "schema": schema}
        (FOLDER / f"{spec['names']['kind']}.json").write_text(json.dumps(made, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

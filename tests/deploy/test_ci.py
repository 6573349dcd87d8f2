"""What continuous integration elsewhere runs is what `.ci/run` and the Makefile have: no step names a target that is not there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
MAKE = (ROOT / "Makefile").read_text()


def jobs() -> dict[str, dict[str, Any]]:
    """Return the jobs of the workflow."""
    return dict(yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"])


def commands() -> dict[str, str]:
    """Return job → everything it runs."""
    return {name: "\n".join(step["run"].strip() for step in job["steps"] if "run" in step) for name, job in jobs().items()}


def test_every_step_can_be_run_here() -> None:
    """Each is a make target with a line of help, or `.ci/run`; nothing hangs for six hours."""
    targets = set(re.findall(r"^([a-z-]+):", MAKE, re.MULTILINE))
    for name, text in commands().items():
        for line in filter(None, text.splitlines()):
            words = line.split()
            assert words[0] == ".ci/run" or (words[0] == "make" and {w for w in words[1:] if "=" not in w} <= targets), line
        assert jobs()[name]["timeout-minutes"] <= 60
    for target in re.findall(r"\.PHONY: (.*)", MAKE)[0].split()[1:]:
        assert re.search(rf'echo "make {target} |make {target} ', MAKE), f"make help does not explain {target}"


def test_image_chart_bill_and_advisories_are_among_them() -> None:
    """Beside the tests: the image built twice and run, the chart with two versions of Helm, what is in the image, what is known of it."""
    run = commands()
    assert run["tests"] == ".ci/run"
    assert "make stack ARGS=--twice" in run["stack"]
    assert "make chart" in run["chart"]
    assert {version.split(".")[0] for version in jobs()["chart"]["strategy"]["matrix"]["helm"]} == {"v3", "v4"}
    assert {"make sbom", "make audit"} <= set(run["supply"].splitlines())
    assert "deploy/requirements.lock" in MAKE.partition("\nsbom:")[2].partition("\n\n")[0]

"""The ten commands of engine/README.md, taken out of it and pasted into a shell: each does what the README says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.local_run import ROOT, LocalRun

pytestmark = pytest.mark.live
FENCE = re.compile(r"```sh\n(.*?)```", re.S)


def test_a_stranger_gets_from_nothing_to_history(tmp_path: Path, postgres_url: str) -> None:
    """A filled order, the private stream of it, its row in PostgreSQL, its history by id; only the addresses are other ones."""
    assert shutil.which("curl"), "the commands need curl"
    first, others = FENCE.findall((ROOT / "engine" / "README.md").read_text())[:2]
    assert first == "make run FEED=engine\n"
    assert len(others.strip().splitlines()) == 9
    with LocalRun(tmp_path / "run", FEED="engine", BOTS_RATE="100") as run:
        run.says("ready after")
        for line, ours in (
            ("E=http://127.0.0.1:8181", f"E=http://127.0.0.1:{run.port('ENGINE_PORT')}"),
            ("PG=postgresql://localhost/tapeline", f"PG={postgres_url}"), ("RUN=$PWD/.run", f"RUN={run.dir}"),
        ):  # fmt: skip
            assert others.count(line) == 1
            others = others.replace(line, ours)
        script = f"set -e\n{others}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env={**LocalRun.clean_environment(), "OMS_ADMIN_PORT": "0", "HOME": str(tmp_path)},
            capture_output=True, text=True, timeout=150, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    log = (run.dir / "oms.log").read_text() if (run.dir / "oms.log").exists() else ""
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log[-1_500:]}"
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    order = next(one for one in told if one.get("clOrdID") == "first")
    assert order["ordStatus"] == "Filled"
    assert {one.get("type") for one in told} >= {"subscribed", "update"}
    update = next(one for one in told if one.get("type") == "update")
    assert update["executions"][0]["clOrdID"] == "first"
    assert re.search(rf"{order['orderId']}\s*\|\s*Filled", done.stdout), "the row in PostgreSQL"
    history = told[-1]
    assert order["orderId"] in json.dumps(history)
    assert os.path.isdir(run.dir)

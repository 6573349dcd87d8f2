"""deploy/compose.yaml, read as text: every variable is one a component reads, and nothing is open that the README does not name."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from deploy.credentials import make
from deploy.health import PORTS
from mdl.vendor.desk_routes import PREFIX
from scp.settings import ScpSettings
from service.settings import variables
from tests.helm.test_chart import SETTINGS

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"
OURS = ("mdl", "mdp", "wds", "scp", "engine", "standby", "bots", "oms")


class Loader(yaml.SafeLoader):
    """Reads Compose's own tags as what they stand before."""


Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node, deep=True))  # type: ignore[no-untyped-call]


def services(name: str = "compose.yaml") -> dict[str, dict[str, Any]]:
    """Return the services of a file."""
    return dict(yaml.load((DEPLOY / name).read_text(), Loader)["services"])


@pytest.mark.parametrize("service", OURS)
def test_every_variable_is_one_that_the_component_reads(service: str) -> None:
    """A misspelt variable would be ignored in silence; secrets come as files, which the service is given."""
    known, given = variables(SETTINGS[service]), services()[service]
    secrets = {s if isinstance(s, str) else s.get("target", s["source"]) for s in given["secrets"]}
    for name, value in given["environment"].items():
        assert name in known or name.removesuffix("_FILE") in known, name
        assert not known.get(name), f"the secret {name} stands in the environment"
        if str(value).startswith("/run/secrets/"):
            assert value.rsplit("/", 1)[1] in secrets, f"{service} is not given {value}"
    assert {f"settings/{service}.env", "settings/all.env"} <= {file["path"] for file in given["env_file"]}, (
        "for all other settings"
    )
    assert not any(file["required"] for file in given["env_file"])


def test_the_standby_is_the_exchange_with_a_volume_of_its_own() -> None:
    """It follows the first one, and whoever leads is where ENGINE_LEADER sends all clients."""
    engine, standby = services()["engine"], services()["standby"]
    assert standby["environment"]["ENGINE_FOLLOW"] == f"http://{engine['hostname']}:8181"
    same = engine.keys() - {"environment", "volumes", "profiles", "hostname", "env_file"}
    assert all(engine[name] == standby[name] for name in same)
    assert engine["environment"].keys() == standby["environment"].keys()
    assert set(engine["volumes"]).isdisjoint(standby["volumes"])
    urls = [
        value for one in services().values() for value in dict(one.get("environment") or {}).values() if ":8181" in str(value)
    ]
    assert sorted(set(urls)) == ["http://${ENGINE_LEADER:-engine}:8181", "http://engine:8181"]


def test_another_port_is_in_the_address_of_the_page_too() -> None:
    """`make up SCP_PORT=9000` alone: the page refuses other origins, and tells browsers where the stream is."""
    page, door = services()["scp"]["environment"], services()["door"]["ports"]
    assert page["SCP_PUBLIC_URL"] == "${PUBLIC_URL:-http://127.0.0.1:${SCP_PORT:-8000}}"
    assert page["WDS_PUBLIC_URL"] == "${WDS_PUBLIC_URL:-ws://127.0.0.1:${WDS_PORT:-8400}/v1/stream}"
    assert ["${SCP_PORT:-8000}" in door[0], "${WDS_PORT:-8400}" in door[1]] == [True, True]


def test_the_page_may_ask_the_listener_for_the_simulated_market() -> None:
    """What `make up` gives as SIMULATED_URL is the listener's admin port, which the control plane names as one of our own."""
    (url,) = re.findall(r"SIMULATED_URL=(\S+?)\)", (DEPLOY.parent / "Makefile").read_text())
    mdl, scp = services()["mdl"]["environment"], services()["scp"]["environment"]
    assert mdl["MDL_SIMULATED_REST"] == "true"
    assert scp["SCP_REST_URL"] == "${REST_URL:-${SIMULATED_URL:-}}"
    ScpSettings(rest_url=url, private_hosts=scp["SCP_PRIVATE_HOSTS"])
    assert (urlsplit(url).hostname, urlsplit(url).port, urlsplit(url).path) == ("mdl", PORTS["MDL"], PREFIX)


@pytest.mark.parametrize(
    "given", [["FEED=massive"], ["FEED=simulator+news", "REST_URL=https://api.example.com"], ["FEED=simulator"], []]
)
def test_make_up_asks_the_listener_only_beside_the_simulator(given: list[str]) -> None:
    """With a vendor's service that one is asked, and without either nobody."""
    said = subprocess.run(
        ["make", "--dry-run", "up", "BUILD=no", "STACK=/nowhere", *given],
        cwd=DEPLOY.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert ("SIMULATED_URL=" in said) == (given in (["FEED=simulator"], []))


@pytest.mark.parametrize("service", sorted(services()))
def test_every_container_is_hardened_and_bounded(service: str) -> None:
    """Read-only, without capabilities, with bounds for memory and processes; only the door, and Grafana on loopback, publish ports."""
    given = services()[service]
    assert given["read_only"] is True
    assert given["cap_drop"] == ["ALL"]
    assert given["mem_limit"]
    assert given["pids_limit"]
    assert ("ports" in given) == (service in ("door", "grafana"))
    assert "inside" in given["networks"]
    assert all("front" not in services()[name]["networks"] for name in OURS)


def test_the_inner_network_has_no_way_out() -> None:
    """What is only inside can neither call home nor be called."""
    assert yaml.load((DEPLOY / "compose.yaml").read_text(), Loader)["networks"]["inside"]["internal"] is True


def test_every_secret_is_made(tmp_path: Path) -> None:
    """Each file that a service is given is one that deploy/credentials.py makes."""
    make(tmp_path)
    wanted = yaml.load((DEPLOY / "compose.yaml").read_text(), Loader)["secrets"]
    made = {path.name for path in tmp_path.iterdir()}
    assert {secret["file"].rsplit("/", 1)[1] for secret in wanted.values()} <= made


@pytest.mark.parametrize("service", OURS)
def test_no_component_refuses_a_secret_as_it_is_made(service: str, tmp_path: Path) -> None:
    """A file that has to have a value has one from the start; an empty key is for settings that take a file which is filled later."""
    make(tmp_path)
    known, files = (
        variables(SETTINGS[service]),
        {s if isinstance(s, str) else s["source"] for s in services()[service]["secrets"]},
    )
    for name, value in services()[service]["environment"].items():
        secret = str(value).removeprefix("/run/secrets/")
        if name.endswith("_FILE") and name not in known and secret in files:
            assert (tmp_path / secret).read_text().strip(), f"{service} would not start: {name}"


def test_the_readme_has_a_row_for_every_port() -> None:
    """Who may reach a port, and why, is written down before the port is opened."""
    text = (DEPLOY / "README.md").read_text()
    rows = {int(port) for port in re.findall(r"^\| `(\d+)`", text, re.MULTILINE)}
    assert set(PORTS.values()) | {8000, 8181, 8400, 8443, 3000, 5432, 5671, 5672, 6379, 9090, 15672} <= rows


@pytest.mark.parametrize(
    ("states", "code", "says"),
    [
        (["mdl running healthy", "door running "], 0, ""),
        (["mdl running healthy", "scp restarting unhealthy"], 1, "not healthy: scp "),
        ([], 1, "nothing was started"),
    ],
)
def test_make_up_names_who_is_not_healthy(states: list[str], code: int, says: str, tmp_path: Path) -> None:
    """By the engine's own word on each container; one that dies again and again never passes."""
    docker = tmp_path / "docker"
    docker.write_text(f"""#!/bin/sh
[ "$1" = inspect ] || {{ echo {" ".join(str(at) for at in range(len(states)))}; exit; }}
printf '%s\\n' {" ".join(f"'{one}'" for one in states)}
""")
    docker.chmod(0o755)
    (tmp_path / "sleep").write_text("#!/bin/sh\n")
    (tmp_path / "sleep").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", str(DEPLOY / "stack" / "healthy.sh"), "docker", "compose"],
        env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr

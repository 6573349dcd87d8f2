"""scp/ctl: every route that a token may use is a command; what is printed, asked, refused, and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml  # type: ignore[import-untyped]
from click.testing import CliRunner

from scp.api.routes import ROUTES
from scp.ctl.__main__ import main, scpctl
from scp.ctl.client import ControlPlane, Refused, Unreachable
from scp.ctl.place import NotUsable, Place, file_of, found, keep
from scp.ctl.show import text_of
from scp.security.roles import TOKEN_SCOPES
from tests.scp.conftest import ROOT, Person, ScpProcess


class Shell:
    """A terminal in which scpctl is typed."""

    def __init__(self, scp: ScpProcess, folder: Path, token: str) -> None:
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("SCP_")}
        self.env |= {"XDG_CONFIG_HOME": str(folder), "SCP_URL": f"http://127.0.0.1:{scp.port}", "SCP_TOKEN": token}

    def __call__(self, *words: str, typed: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "scp.ctl", *words]
        env = self.env | variables
        return subprocess.run(argv, cwd=ROOT, env=env, input=typed, capture_output=True, text=True, timeout=180, check=False)


@pytest.fixture
def shell(scp: ScpProcess, tmp_path: Path) -> Shell:
    """A shell with a token of an administrator."""
    boss = Person(scp, scp.admin["value"])
    body = {"name": tmp_path.name[:40], "scopes": sorted(TOKEN_SCOPES), "days": 1}
    return Shell(scp, tmp_path, boss.change("POST", "/api/v1/me/tokens", body).body["token"])


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    """Return all commands by the words that one types."""
    made: dict[tuple[str, ...], click.Command] = {}
    for name, command in group.commands.items():
        made |= leaves(command, (*path, name)) if isinstance(command, click.Group) else {(*path, name): command}
    return made


def test_every_route_for_tokens_is_a_command_of_its_own() -> None:
    """None is forgotten, and none hides another. Streams are for pages."""
    asked = [route for route in ROUTES if "text/event-stream" not in route.content_types]
    wanted = [route for route in asked if route.need in TOKEN_SCOPES and route.path.startswith("/api/v1/")]
    named = leaves(scpctl)
    own = {("login",), ("completion",), ("api",)}
    assert len(named.keys() - own) == len(wanted)
    for words, command in named.items():
        done = CliRunner().invoke(scpctl, [*words, "--help"])
        assert done.exit_code == 0, words
        assert command.help, words


def test_a_list_as_table_json_and_yaml(shell: Shell) -> None:
    """The same rows."""
    table = shell("users", "list")
    assert table.returncode == 0, table.stderr
    assert table.stdout.split()[:3] == ["ID", "USERNAME", "EMAIL"]
    rows = json.loads(shell("users", "list", "-o", "json").stdout)["users"]
    assert "ann" in [row["username"] for row in rows]
    assert yaml.safe_load(shell("users", "list", "-o", "yaml").stdout)["users"] == rows


def test_pages_are_followed(shell: Shell, scp: ScpProcess) -> None:
    """To the last one, when that is asked for."""
    for number in range(3):
        assert shell("users", "invite", "--username", f"page-{number}-{os.getpid()}", "--role", "viewer").returncode == 0
    few = json.loads(shell("users", "list", "--limit", "2", "-o", "json").stdout)
    assert len(few["users"]) == 2
    assert few["next"]
    whole = json.loads(shell("users", "list", "--limit", "2", "--all", "-o", "json").stdout)
    assert len(whole["users"]) > 3
    with ControlPlane(shell.env["SCP_URL"], shell.env["SCP_TOKEN"]) as plane:
        assert list(plane.pages("/api/v1/users", "users", {"limit": 2})) == whole["users"]


def test_what_destroys_is_asked_about_and_can_be_tried_dry(shell: Shell) -> None:
    """Off a terminal it needs --yes; nothing is done before."""
    made = json.loads(shell("users", "invite", "--username", f"gone-{os.getpid()}", "--role", "viewer", "-o", "json").stdout)
    number = str(made["user"]["id"])
    unsure = shell("users", "remove", number)
    assert unsure.returncode == 2
    assert "--yes" in unsure.stderr
    dry = shell("users", "change", number, "--role", "operator", "--dry-run")
    assert json.loads(dry.stdout.partition("\n")[2]) == {"role": "operator"}
    assert json.loads(shell("users", "show", number, "-o", "json").stdout)["role"] == "viewer"
    assert shell("users", "change", number, "--body", '{"role": "operator"}').returncode == 0
    assert shell("users", "change", number, "--body", "-", typed='{"disabled": true}').returncode == 0
    shown = json.loads(shell("users", "show", number, "-o", "json").stdout)
    assert (shown["role"], shown["disabled"]) == ("operator", True)
    assert shell("users", "remove", number, "--yes").returncode == 0
    assert shell("users", "show", number).returncode == 1


@pytest.mark.parametrize(
    ("words", "variables", "code", "said"),
    [
        (("users", "list"), {"SCP_TOKEN": "tapeline_x_y"}, 4, "This token is wrong"),
        (("users", "list"), {"SCP_URL": "http://127.0.0.1:1"}, 3, "does not answer"),
        (("users", "list"), {"SCP_URL": "ftp://x"}, 3, "does not answer"),
        (("users", "list"), {"SCP_TOKEN": "", "SCP_URL": ""}, 2, "scpctl login"),
        (("users", "list"), {"SCP_TOKEN": "", "SCP_TOKEN_FILE": "/nowhere"}, 2, "/nowhere"),
        (("users", "show", "999999"), {}, 1, "[404 not_found]"),
        (("users", "invite", "--role", "viewer"), {}, 2, "missing: --username"),
        (("users", "invite", "--username", "x y", "--role", "viewer"), {}, 1, "[422 bad_username]"),
        (("users", "invite", "--body", "{"), {}, 2, "no JSON"),
        (("users", "invite", "--body", "@/nowhere"), {}, 2, "cannot be read"),
        (("users", "invite", "--body", "[]"), {}, 2, "JSON object"),
        (("users", "show", "../audit"), {}, 1, "404"),
        (("nothing",), {}, 2, "No such command"),
        (("users", "list", "-o", "xml"), {}, 2, "xml"),
        (("api", "GET", "/api/v1/nothing"), {}, 1, "404"),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_code(
    shell: Shell, words: tuple[str, ...], variables: dict[str, str], code: int, said: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Scripts go by the code, people read the line."""
    for name, value in (shell.env | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["scpctl", *words])
    assert main() == code
    done = capsys.readouterr()
    assert done.out == ""
    assert said in done.err
    assert "Traceback" not in done.err


def test_logging_in_keeps_address_and_token_for_its_owner(shell: Shell, tmp_path: Path) -> None:
    """After trying them; another address does not get that token."""
    token, url = shell.env.pop("SCP_TOKEN"), shell.env.pop("SCP_URL")
    assert shell("login", url, typed="tapeline_wrong_token\n").returncode == 4
    assert shell("login", url, typed=f"{token}\n").returncode == 0
    assert (tmp_path / "tapeline" / "scpctl.json").stat().st_mode & 0o777 == 0o600
    assert shell("users", "list").returncode == 0
    elsewhere = shell("users", "list", SCP_URL="http://127.0.0.1:1")
    assert (elsewhere.returncode, "no token" in elsewhere.stderr) == (2, True)
    (tmp_path / "tapeline" / "scpctl.json").write_text("{")
    assert "remove it" in shell("users", "list").stderr


def test_watching_asks_again(shell: Shell) -> None:
    """Until it is stopped."""
    argv = [sys.executable, "-m", "scp.ctl", "users", "list", "--watch", "0.2"]
    with subprocess.Popen(argv, cwd=ROOT, env=shell.env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        heads = 0
        for line in process.stdout:
            heads += line.startswith("ID")
            if heads == 3:
                break
        process.terminate()


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_shells_complete_our_words(shell: Shell, name: str) -> None:
    """With the words that there are."""
    assert "_SCPCTL_COMPLETE" in shell("completion", name).stdout
    told = shell(COMP_WORDS="scpctl users li", COMP_CWORD="2", _SCPCTL_COMPLETE="bash_complete").stdout
    assert "list" in told


def test_a_terminal_is_not_steered_by_what_others_wrote() -> None:
    """Escape sequences in names stay letters."""
    shown = text_of(
        [{"name": "\x1b]0;mine\x07\x1b[2J", "at_ms": 1_800_000_000_000, "wait_ms": 5, "ok": True, "of": ["a", 1]}], "table"
    )
    assert "\x1b" not in shown
    assert "2027-01-15T08:00:00Z" in shown
    assert shown.split("\n")[1].split()[-2:] == ["yes", "a,1"]
    assert text_of([], "table") == "none"


def test_a_table_stays_as_wide_as_a_screen() -> None:
    """Columns that do not fit, and what is nested, are left to the other forms, and that is said."""
    row = {"id": "a", "rates": {"x": 1}, **{f"c{number}": "x" * 15 for number in range(20)}}
    shown = text_of({"components": [row], "next": None, "total": 1, "states": {}}, "table").split("\n")
    assert all(len(line) <= 160 for line in shown)
    assert shown[-1] == "(12 more in -o json)"
    assert text_of({"queues": [{"name": "q"}], "next": "a", "streams": [{"a": 1}]}, "table") == "NAME\nq"


def test_a_place_by_variables_and_by_file(tmp_path: Path) -> None:
    """Variables win; a token stays with its address."""
    file = file_of({"XDG_CONFIG_HOME": str(tmp_path)})
    keep(file, Place("https://desk.example.com", "t1"))
    assert found({}, file) == Place("https://desk.example.com", "t1")
    assert found({"SCP_URL": "https://desk.example.com/"}, file).token == "t1"
    assert found({"SCP_URL": "https://other.example.com"}, file).token == ""
    (tmp_path / "token").write_text("t2\n")
    assert found({"SCP_TOKEN_FILE": str(tmp_path / "token")}, file).token == "t2"
    with pytest.raises(NotUsable):
        found({"SCP_TOKEN_FILE": str(tmp_path)}, file)


def test_the_client_says_what_it_met(scp: ScpProcess) -> None:
    """A problem as it is, anything else as no control plane."""
    with ControlPlane(f"http://127.0.0.1:{scp.port}", "") as plane, pytest.raises(Refused) as refused:
        plane.get("/api/v1/users")
    assert (refused.value.status, refused.value.code) == (401, "unauthorized")
    with ControlPlane(f"http://127.0.0.1:{scp.admin_port}", "") as plane, pytest.raises((Unreachable, Refused)):
        plane.get("/api/v1/users")


def test_a_token_is_made_without_a_page(scp: ScpProcess, shell: Shell) -> None:
    """At the database's side, for machines on which nobody opens a browser."""

    def make(*words: str) -> Any:
        argv = [sys.executable, "-m", "scp", "token", *words]
        env = shell.env | {"RUN_DIR": str(scp.run_dir)}
        return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=180, check=False)

    made = make("ann", "--scopes", "people,audit")
    assert made.returncode == 0, made.stderr
    assert shell("users", "list", SCP_TOKEN=made.stdout.strip()).returncode == 0
    assert shell("components", "list", SCP_TOKEN=made.stdout.strip()).returncode == 4
    assert "scopes" in make("ann", "--scopes", "account").stderr
    assert "nobody" in make("eve", "--scopes", "view").stderr

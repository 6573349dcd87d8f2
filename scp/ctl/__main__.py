"""scpctl: the control plane on the command line. `scpctl login` once; then every noun of the API is a command.

Exit codes: 0 done, 1 refused (the server's words are on stderr), 2 wrong usage, 3 no answer or a fault there, 4 not allowed.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from typing import Any

import click
from click.shell_completion import get_completion_class

from scp.api.routes import ROUTES
from scp.ctl.client import ControlPlane, Refused, Unreachable, document
from scp.ctl.commands import Asked, destroys, groups
from scp.ctl.place import NotUsable, Place, file_of, found, keep
from scp.ctl.show import rows_of, text_of

REFUSED, USAGE, UNREACHABLE, NOT_ALLOWED, INTERRUPTED = 1, 2, 3, 4, 130


@click.group(help=(__doc__ or "").partition("\n")[0], epilog=(__doc__ or "").strip().rpartition("\n")[2])
def scpctl() -> None:
    """The root of all commands."""


@scpctl.command()
@click.argument("url")
@click.option("--ca", help="File of a private certificate authority.", type=click.Path(exists=True, dir_okay=False))
def login(url: str, ca: str | None) -> None:
    """Keep a control plane's address and a token for it, after trying them. The token is asked for, or read from stdin."""
    token = (click.prompt("API token", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()).strip()
    try:
        with ControlPlane(url, token, ca or "") as plane:
            plane.get("/api/v1/me")
    except Refused as refused:
        if refused.status != 403:  # it is known, and has no account of its own: no token has
            raise
    file = file_of(os.environ)
    keep(file, Place(url.rstrip("/"), token, ca or ""))
    click.echo(f"kept in {file}, readable by you only")


@scpctl.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes the shell complete our words: eval "$(scpctl completion bash)"."""
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(scpctl, {}, "scpctl", "_SCPCTL_COMPLETE").source())


@scpctl.command()
@click.argument("method", type=click.Choice(["GET", "POST", "PUT", "PATCH", "DELETE"], case_sensitive=False))
@click.argument("path")
@click.option("--body", default="", help="JSON.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml", "table"]), default="json", show_default=True)
def api(method: str, path: str, body: str, output: str) -> None:
    """Send any request: scpctl api GET /api/v1/users."""
    document_ = _json(body) if body else None
    with _plane() as plane:
        headers = {"Idempotency-Key": secrets.token_hex(16)} if method.upper() != "GET" else {}
        click.echo(text_of(document(plane.call(method.upper(), path, document_, headers=headers)), output))


def run(asked: Asked) -> None:
    """Do what a command asks for, and show what came of it."""
    route = asked.route
    if asked.dry_run:
        click.echo(f"{route.method} {asked.path}" + (f"\n{text_of(asked.body, 'json')}" if asked.body is not None else ""))
        return
    if destroys(route) and not asked.yes:
        _ask(f"{(route.handler.__doc__ or '').partition(chr(10))[0]} ({route.method} {asked.path})")
    with _plane() as plane:
        while True:
            shown = text_of(_answer(plane, asked), asked.output)
            if asked.watch and sys.stdout.isatty():
                click.clear()
            if shown:
                click.echo(shown)
            if not asked.watch:
                return
            time.sleep(asked.watch)


def _answer(plane: ControlPlane, asked: Asked) -> Any:
    route = asked.route
    headers = {"Idempotency-Key": secrets.token_hex(16)} if route.rule.changes else {}
    if route.matches:
        headers["If-Match"] = asked.if_match or plane.call("GET", asked.path).headers.get("ETag", "*")
    given = document(plane.call(route.method, asked.path, asked.body, asked.query, headers))
    while asked.whole and isinstance(given, dict) and given.get("next") is not None:
        more = plane.get(asked.path, {**asked.query, str(asked.cursor): given["next"]})
        (rows_of(given) or []).extend(rows_of(more) or [])
        given["next"] = more["next"]
    return given


def _ask(what: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(f"this destroys something: {what}. Say --yes")
    click.confirm(f"{what} Sure?", abort=True, err=True)


def _plane() -> ControlPlane:
    place = found(os.environ, file_of(os.environ))
    if not place.token:
        raise NotUsable(
            f"no token for {place.url}. Make one on the page (Account, Tokens), then: scpctl login {place.url}; or set SCP_TOKEN"
        )
    return ControlPlane(place.url, place.token, place.ca)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--body is no JSON: {error}") from None


for _group in groups(ROUTES, run).values():
    scpctl.add_command(_group)


def main() -> int:
    """Entry point: what went wrong is one line on stderr, and an exit code that says which kind it is."""
    try:
        scpctl.main(prog_name="scpctl", standalone_mode=False)
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return USAGE
    except NotUsable as error:
        return _fail(str(error), USAGE)
    except Refused as refused:
        again = f" (again in {refused.after_s:g} s)" if refused.after_s else ""
        code = NOT_ALLOWED if refused.status in (401, 403) else UNREACHABLE if refused.status >= 500 else REFUSED
        return _fail(f"{refused} [{refused.status} {refused.code}]{again}", code)
    except Unreachable as error:
        return _fail(str(error), UNREACHABLE)
    except (KeyboardInterrupt, BrokenPipeError):
        return INTERRUPTED
    return 0


def _fail(text: str, code: int) -> int:
    click.echo(f"scpctl: {text}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())

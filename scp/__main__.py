"""Start the control plane, or do at its database what nobody can do on the page.

`python -m scp`: 1 settings, 2 database and keys, 3 the ports, 4 gunicorn until SIGTERM. `python -m scp link [USERNAME]` makes a
one-time link: for the first administrator, or a new password. `python -m scp migrate` brings the database's shape
up to date. `python -m scp audit verify [FILE]` checks the audit log. `python -m scp backup FILE` copies the database, also while
it is used, `python -m scp restore FILE` puts a copy where there is none; `-` is a pipe.
"""

from __future__ import annotations

import argparse
import sys

import structlog

from scp.command_line import make_backup, make_link, make_token, restore_backup, verify_audit
from scp.control import Control, open_store
from scp.server import Server
from scp.settings import ScpSettings, refuse_public_address
from service import logs
from service.admin import bind
from service.errors import OperatorError
from service.run import fail
from service.settings import load, shown

log = structlog.get_logger()


def start(settings: ScpSettings) -> None:
    """Run until SIGTERM.  Raises: OperatorError for what the operator must mend."""
    log.info("starting", **shown(settings))
    refuse_public_address(settings)
    store = open_store(settings)
    Control(settings, store).stream_keys.turn()  # a database or key that cannot be used ends here, in one line
    store.close()  # the worker is a child of ours, and two processes on one connection would damage the database
    bind(settings.admin_host, settings.admin_port, "SCP_ADMIN_PORT").close()  # the worker opens it; a taken one ends here
    Server(settings, bind(settings.host, settings.port, "SCP_PORT")).run()


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m scp", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="start the control plane (the default)")
    commands.add_parser("migrate", help="bring the database's shape up to date and end: before new control planes start")
    commands.add_parser("backup", help="copy the database, also while it is used").add_argument(
        "file", help="a new file; - is stdout"
    )
    commands.add_parser("restore", help="put a backup where there is no database").add_argument(
        "file", help="a backup; - is stdin"
    )
    link = commands.add_parser("link", help="make a one-time link, for the first administrator or for a new password")
    link.add_argument("username", nargs="?", default="")
    token = commands.add_parser("token", help="make an API token of somebody, for scripts")
    token.add_argument("username")
    token.add_argument("--scopes", required=True, help="some of what their role may, with commas: inspect,operate")
    token.add_argument("--days", type=int, default=90)
    verify = (
        commands.add_parser("audit", help="check the audit log").add_subparsers(dest="what", required=True).add_parser("verify")
    )
    verify.add_argument("file", nargs="?", help="an export (GET /api/v1/audit/export); without it the database")
    return parser.parse_args()


def main() -> int:
    """Entry point: an operating failure is one line on stderr."""
    asked = arguments()
    try:
        settings = load(ScpSettings)
        logs.setup("scp", settings.log_level, settings.log_format)
        if asked.command == "link":
            return make_link(settings, asked.username)
        if asked.command == "migrate":
            open_store(settings)
            return 0
        if asked.command == "backup":
            return make_backup(settings, asked.file)
        if asked.command == "restore":
            return restore_backup(settings, asked.file)
        if asked.command == "token":
            return make_token(settings, asked.username, asked.scopes, asked.days)
        if asked.command == "audit":
            return verify_audit(settings, asked.file)
        start(settings)
    except OperatorError as error:
        fail("scp", error)
    return 0


sys.exit(main())

"""Runs the server, or a script's token, get or watch: JSON lines on stdout, trouble in one line on stderr."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Any

import orjson
import structlog
from pydantic import Field, SecretStr
from websockets.exceptions import InvalidHandshake, InvalidURI, WebSocketException

from service import logs
from service.errors import OperatorError
from service.run import Shutdown, fail, main
from service.settings import ComponentSettings, load, shown
from service.tasks import Tasks
from service.tracing import check_installed
from wds.access.keys import KEY_FILE, mint_local
from wds.client import Client, WdsError, stream_url
from wds.settings import WdsSettings


class ScriptSettings(ComponentSettings):
    """What get, watch and token read."""

    url: str = Field("ws://127.0.0.1:8400/v1/stream", validation_alias="WDS_URL", description="ws://host:port")
    token: SecretStr | None = Field(None, validation_alias="WDS_TOKEN", description="a token; minted from RUN_DIR when absent")
    parent: int = Field(0, validation_alias="WDS_PARENT", description="set by the parent of several workers")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m wds", description="Tapeline widget data service")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="serve clients (default)")
    token = commands.add_parser("token", help="print a token signed by the key in RUN_DIR")
    token.add_argument("--ch", nargs="+", default=["*"], metavar="GLOB", help="channel globs (default: *)")
    token.add_argument("--ttl", type=int, default=3600, metavar="S", help="seconds it is good for (default 3600)")
    token.add_argument("--sub", default="local", metavar="NAME", help="its subject (default: local)")
    get = commands.add_parser("get", help="print one JSON line a channel: ch epoch seq ts data")
    get.add_argument("channels", nargs="+", metavar="CHANNEL")
    get.add_argument("--timeout", type=float, default=5.0, metavar="S", help="seconds to wait for the replies (default 5)")
    get.add_argument("--limit", type=int, metavar="N", help="at most N rows, events or bars")
    watch = commands.add_parser("watch", help="subscribe and print every push as a JSON line")
    watch.add_argument("channels", nargs="+", metavar="CHANNEL")
    watch.add_argument("--hz", default=None, help="raw, 10, 4, 1 or 0.2 (default 4)")
    made = commands.add_parser("schema", help="print the AsyncAPI contract, or write it with --write")
    made.add_argument("--write", action="store_true", help="write wds/asyncapi.yaml, wds/openapi.yaml and wds/schema.json")
    return parser.parse_args()


def _serve() -> None:
    from wds.server import run  # scripts shall not wait for the server's imports
    from wds.workers import follow_parent, supervise

    settings = load(WdsSettings)
    logs.setup("wds", settings.log_level, settings.log_format)
    parent = load(ScriptSettings).parent

    async def body(shutdown: Shutdown) -> None:
        if settings.workers > 1 and not parent:
            check_installed(settings)
            structlog.get_logger().info("starting", **shown(settings))
            await supervise(settings, shutdown)
            return
        tasks = Tasks("wds", shutdown.fail)
        if parent:
            tasks.start("parent", follow_parent(shutdown), ends=True)
        await run(settings, shutdown)
        await tasks.close()

    main("wds", body)


def _token(settings: ScriptSettings, arguments: argparse.Namespace) -> None:
    if arguments.ttl <= 0:
        raise OperatorError("--ttl must be positive", "Give a number of seconds, such as 3600")
    print(mint_local(settings.run_dir, arguments.ch, arguments.ttl, arguments.sub))


def _credentials(settings: ScriptSettings) -> str:
    if settings.token is not None:
        return settings.token.get_secret_value()
    path = Path(settings.run_dir) / KEY_FILE
    if not path.exists():
        raise OperatorError(
            f"no token: WDS_TOKEN is not set and {path} does not exist", "Set WDS_TOKEN, or RUN_DIR to the server's"
        )
    return mint_local(settings.run_dir, sub="script")


def _line(value: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps(value) + b"\n")
    sys.stdout.buffer.flush()


async def _get(settings: ScriptSettings, arguments: argparse.Namespace) -> int:
    limit = {} if arguments.limit is None else {"limit": arguments.limit}
    async with Client(settings.url, _credentials(settings), reconnect=False) as client:
        reply = await client.command({"op": "get", "ch": arguments.channels, **limit}, arguments.timeout)
    faults = 0
    for snap in reply["snaps"]:
        if "error" in snap:
            faults += 1
            error = snap["error"]
            print(f"tapeline wds: error: {snap['ch']}: {error['message']} ({error['code']})", file=sys.stderr)
        else:
            _line({name: snap[name] for name in ("ch", "epoch", "seq", "ts", "data")})
    if not reply["snaps"]:
        print("tapeline wds: error: no channel matches", file=sys.stderr)
    return 1 if faults or not reply["snaps"] else 0


async def _watch(settings: ScriptSettings, arguments: argparse.Namespace) -> int:
    async with Client(settings.url, _credentials(settings)) as client:
        outcomes = await client.subscribe(*arguments.channels, hz=arguments.hz)
        for outcome in outcomes:
            if "error" in outcome:
                error = outcome["error"]
                print(f"tapeline wds: error: {outcome['ch']}: {error['message']} ({error['code']})", file=sys.stderr)
        if all("error" in outcome for outcome in outcomes):
            return 1
        async for push in client:
            _line(push.frame)
    return 1


def _script(arguments: argparse.Namespace) -> int:
    settings = load(ScriptSettings)
    if arguments.command == "token":
        _token(settings, arguments)
        return 0
    url = stream_url(settings.url)
    work = _get if arguments.command == "get" else _watch
    try:
        return asyncio.run(work(settings, arguments))
    except WdsError as refused:
        raise OperatorError(
            f"the widget data service at {url} refused: {refused}", "Check WDS_TOKEN and the channel names", 1
        ) from None
    except TimeoutError:
        raise OperatorError(f"no answer from {url} in time", "Look at its log, or give a longer --timeout", 3) from None
    except (OSError, InvalidURI, InvalidHandshake, WebSocketException) as fault:
        what = f"the widget data service at {url} cannot be reached: {fault}"
        raise OperatorError(what, "Start it with `python -m wds serve`, or set WDS_URL", 3) from None


def _command_line() -> int:
    arguments = _arguments()
    if arguments.command == "schema":
        from wds import schema

        return schema.main(arguments.write)
    if arguments.command in (None, "serve"):
        _serve()
        return 0
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        return _script(arguments)
    return 130


if __name__ == "__main__":
    try:
        sys.exit(_command_line())
    except OperatorError as error:
        fail("wds", error)

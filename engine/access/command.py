"""Makes, lists and withdraws keys from the command line, whether the engine runs or not.

python -m engine keys create --role trader --accounts 7,100-199 [--name desk-1] [--expires 2027-01-01T00:00:00Z] [--into FILE]
python -m engine keys create --role market-data [--stores oms]
python -m engine keys create --role operator
python -m engine keys list
python -m engine keys revoke ID
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from engine.access.key_file import KeyFile, replace
from engine.access.key_watch import used
from engine.access.keys import Key, KeyInvalid, Role, ranges, shown
from service.errors import OperatorError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `keys` takes."""
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="make a key and print it, once")
    create.add_argument("--role", required=True, choices=[role.value for role in Role])
    create.add_argument("--accounts", default="", metavar="7,100-199|all", help="a trader's accounts")
    create.add_argument("--stores", default="", metavar="NAME,NAME", help="message stores of a market-data key; all without it")
    create.add_argument("--name", default="", help="what people call it")
    create.add_argument("--expires", default="", metavar="ISO", help="when it ends, like 2027-01-01T00:00:00Z; never without it")
    create.add_argument("--into", type=Path, metavar="FILE", help="write it there, for its owner only, instead of printing it")
    actions.add_parser("list", help="print one JSON line a key, without secrets")
    revoke = actions.add_parser("revoke", help="let a key count no longer; its WebSockets are closed within a second")
    revoke.add_argument("id", metavar="ID", help="the eight characters between the underscores")


def run(file: KeyFile, given: argparse.Namespace, now_ns: int) -> None:
    """Do what the command line asks for and print the outcome.  Raises: OperatorError."""
    if given.action == "list":
        last = used(file.path)
        for key in file.read().keys.values():
            print(json.dumps({**facts(key), "lastUsed": last.get(key.id, "")}))
    elif given.action == "revoke":
        try:
            print(json.dumps(facts(file.withdraw(given.id, now_ns))))
        except KeyError:
            raise OperatorError(
                f"There is no key {given.id[:40]!r} in {file.path}", "python -m engine keys list shows the ids"
            ) from None
    else:
        _create(file, given, now_ns)


def _create(file: KeyFile, given: argparse.Namespace, now_ns: int) -> None:
    try:
        stores = tuple(filter(None, (name.strip() for name in given.stores.split(","))))
        key, text = file.create(now_ns, Role(given.role), given.name, ranges(given.accounts), stores, given.expires)
    except KeyInvalid as error:
        raise OperatorError(f"No key was made: {error}", "python -m engine keys create --help shows what it takes") from None
    if given.into is None:
        print(text)
        return
    try:
        replace(given.into, f"{text}\n".encode())
    except OperatorError:
        file.withdraw(key.id, now_ns)  # nobody has it
        raise
    print(json.dumps(facts(key)))


def facts(key: Key) -> dict[str, object]:
    """Return what may be told of a key."""
    return {
        "id": key.id, "role": key.role.value, "name": key.name, "accounts": shown(key.accounts), "stores": list(key.stores),
        "created": key.created, "expires": key.expires, "withdrawn": key.withdrawn,
    }  # fmt: skip

"""Makes a command of every route that a token may use: groups are the API's nouns, options the fields of its bodies.

So the command line has what the API has, with the API's words, and nothing is written twice.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints
from urllib.parse import quote

import click
import msgspec

from scp.api.calls import Route
from scp.security.roles import TOKEN_SCOPES

PREFIX = "/api/v1/"
SHOWN = {"read": "show"}


FORM = click.Option(["-o", "--output"], type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
DRY_RUN = click.Option(["--dry-run"], is_flag=True, help="Print the request that would be sent; change nothing.")
YES = click.Option(["-y", "--yes"], is_flag=True, help="Do not ask before it.")
WATCH = click.Option(["--watch"], type=click.FloatRange(0.2), metavar="SECONDS", help="Ask again and again.")
WHOLE = click.Option(["--all", "whole"], is_flag=True, help="Follow the list to its last page.")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that a command makes, and how: see the options above."""

    route: Route
    path: str
    query: dict[str, Any]
    body: Any
    if_match: str
    output: str
    watch: float
    whole: bool
    dry_run: bool
    yes: bool

    @property
    def cursor(self) -> str | None:
        """The query's word for where a list goes on."""
        return cursor_of(self.route)


Run = Callable[[Asked], None]


def groups(routes: Iterable[Route], run: Run) -> dict[str, click.Group]:
    """Return a group of commands for each noun of the API."""
    made: dict[str, click.Group] = {}
    for route in routes:
        streams = "text/event-stream" in route.content_types  # these are for pages
        if streams or route.need not in TOKEN_SCOPES or not route.path.startswith(PREFIX):
            continue
        noun = route.path.removeprefix(PREFIX).partition("/")[0]
        group = made.setdefault(noun, click.Group(noun, help=f"The API's {noun}."))
        name = verb_of(route.handler.__name__, noun)
        if name in group.commands:
            name = route.handler.__name__.replace("_", "-")
        group.add_command(command_of(route, name, run))
    return made


def verb_of(handler: str, noun: str) -> str:
    """Return a command's name: the handler's, without the group's noun. `read_user` of users is `show`."""
    known = {word for part in noun.split("-") for word in (part, part.removesuffix("s"))}
    words = [SHOWN.get(word, word) for word in handler.split("_")]
    return "-".join(word for word in words if word not in known) or words[0]


def command_of(route: Route, name: str, run: Run) -> click.Command:
    """Return the command of a route."""
    params: list[click.Parameter] = [click.Argument([part]) for part in re.findall(r"\{(\w+)\}", route.path)]
    params += [_query(*given) for given in route.query]
    fields = fields_of(route.takes)
    params += [_field(field) for field in fields]
    if route.takes is not None:
        params.append(click.Option(["--body"], help="The whole body as JSON, @FILE, or - for standard input."))
    if route.matches:
        params.append(click.Option(["--if-match"], help="ETag of what was read; without it, what is there now is replaced."))
    own_dry_run = "dry_run" in {
        *(field.name for field in fields),
        *(word[0] for word in route.query),
    }  # the server tries it then, which tells more
    params += [FORM, *([] if own_dry_run else [DRY_RUN] if route.rule.changes else [WATCH])]
    params += [YES] if destroys(route) else []
    params += [WHOLE] if cursor_of(route) else []

    def callback(**given: Any) -> None:
        path = route.path
        for part in re.findall(r"\{(\w+)\}", route.path):
            path = path.replace(f"{{{part}}}", quote(given[part.lower()], safe=""))
        query = {word[0]: given[f"query_{word[0]}"] for word in route.query if given.get(f"query_{word[0]}") is not None}
        body, word = _body(route, fields, given), str(given.get("if_match") or "")
        watch, whole = float(given.get("watch") or 0), bool(given.get("whole"))
        form, dry_run, yes = str(given["output"]), bool(given.get("dry_run")), bool(given.get("yes"))
        run(Asked(route, path, query, body, word, form, watch, whole, dry_run, yes))

    about = inspect.cleandoc(route.handler.__doc__ or "")
    return click.Command(name, params=params, callback=callback, help=about, short_help=about.partition("\n")[0])


def destroys(route: Route) -> bool:
    """Whether what the route takes away cannot be had back."""
    return route.destroys or route.method == "DELETE"


def cursor_of(route: Route) -> str | None:
    """Return the word of the query that says where a list goes on, if it has one."""
    return next((word[0] for word in route.query if word[0] in ("after", "before")), None)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a body: how its option is read. `many` = may be given several times."""

    name: str
    kind: type
    needed: bool
    many: bool
    json: bool


def fields_of(takes: type[msgspec.Struct] | None) -> list[Field]:
    """Return the fields of a body."""
    if takes is None:
        return []
    hints = get_type_hints(takes)
    return [_field_of(info.encode_name, hints[info.name], info.required) for info in msgspec.structs.fields(takes)]


def _field_of(name: str, hint: Any, needed: bool) -> Field:
    kinds = [kind for kind in (get_args(hint) if _is_union(hint) else (hint,)) if kind is not type(None)]
    first = kinds[0]
    many = get_origin(first) is list or first is list
    of = (get_args(first) or (str,))[0] if many else first
    plain = of if of in (str, int, float, bool) else str
    return Field(name, plain, needed, many, json=of not in (str, int, float, bool))


def _is_union(hint: Any) -> bool:
    return type(None) in get_args(hint) or "Union" in type(hint).__name__


def _field(field: Field) -> click.Option:
    word = field.name.replace("_", "-")
    about = ("JSON. " if field.json else "") + ("Several times, or with commas. " if field.many else "")
    about += "Needed." if field.needed else ""
    if field.kind is bool:
        return click.Option([f"--{word}/--no-{word}", f"body_{field.name}"], default=None, help=about)
    return click.Option([f"--{word}", f"body_{field.name}"], type=field.kind, multiple=field.many, help=about)


def _query(name: str, about: str, kind: str = "integer") -> click.Option:
    return click.Option(
        [f"--{name.replace('_', '-')}", f"query_{name}"], type=click.IntRange(0) if kind == "integer" else str, help=about
    )


def _body(route: Route, fields: list[Field], given: dict[str, Any]) -> Any:
    if route.takes is None:
        return None
    whole = given.get("body")
    body: dict[str, Any] = _read(whole) if whole else {}
    if not isinstance(body, dict):
        raise click.UsageError("--body is a JSON object")
    for field in fields:
        value = given.get(f"body_{field.name}")
        if value is None or value == ():
            continue
        if field.json:
            value = [_parsed(one, field.name) for one in value] if field.many else _parsed(value, field.name)
        elif field.many:
            value = [one for text in value for one in (text.split(",") if isinstance(text, str) else [text]) if one != ""]
        body[field.name] = value
    if missing := [f"--{field.name.replace('_', '-')}" for field in fields if field.needed and field.name not in body]:
        raise click.UsageError(f"missing: {', '.join(missing)}")
    return body


def _read(text: str) -> Any:
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        try:
            text = Path(text[1:]).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"{text[1:]} cannot be read: {error}") from None
    return _parsed(text, "body")


def _parsed(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--{name.replace('_', '-')} is no JSON: {error}") from None

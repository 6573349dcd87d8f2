"""What an API handler gets and gives, and the table row that says where it stands, who may call it and what it takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs

import msgspec

from scp.problems import Problem
from scp.security.audit import Asked, note
from scp.security.door import Caller
from scp.security.rules import Rule
from scp.store.database import StoreUnavailable
from service.errors import UNREADABLE

if TYPE_CHECKING:
    from scp.control import Control

T = TypeVar("T")


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """The base of all bodies: a field that we do not know is a mistake of the sender."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request: who, from where, the parts of the path, the query, the body."""

    control: Control
    caller: Caller | None
    asked: Asked
    path: Mapping[str, str]
    query: str
    raw: bytes
    if_match: str = ""
    idempotency_key: str = ""
    if_none_match: str = ""

    @property
    def me(self) -> Caller:
        """Return who asks, on a route that is not public."""
        assert self.caller is not None
        return self.caller

    def body(self, kind: type[T]) -> T:
        """Return the body.  Raises: Problem 400 saying which field is wrong."""
        try:
            return msgspec.json.decode(self.raw or b"{}", type=kind)
        except msgspec.ValidationError as error:
            raise Problem(400, "bad_request", f"The body is not right: {error}") from None
        except UNREADABLE as error:
            raise Problem(400, "bad_request", f"The body is no JSON: {error}") from None

    def number(self, name: str, default: int, most: int) -> int:
        """Return a whole number of the query.  Raises: Problem 400."""
        return whole(parse_qs(self.query).get(name, [str(default)])[-1], name, most)

    def word(self, name: str, default: str = "") -> str:
        """Return a word of the query."""
        return parse_qs(self.query, keep_blank_values=True).get(name, [default])[-1]

    def flag(self, name: str) -> bool:
        """Return whether a flag of the query is set (1).  Raises: Problem 400."""
        return bool(self.number(name, 0, 1))

    def note(self, action: str, target: str, **detail: Any) -> None:
        """Write into the audit log what was done elsewhere, in a transaction of its own.  Raises: StoreUnavailable."""
        with self.control.store.transaction() as db:
            note(db, self.asked, self.me.name, action, target, **detail)

    @contextlib.contextmanager
    def acting(self, action: str, target: str, **detail: Any) -> Iterator[dict[str, Any]]:
        """Write into the audit log that something is to be done elsewhere, and then how it ended.

        `action.begin` comes before; then `action` with what the body puts into the mapping, or `action.failed` with why. One that
        begins and does not end is one during which we died.  Raises: StoreUnavailable, before anything is done.
        """
        self.note(f"{action}.begin", target, **detail)
        result: dict[str, Any] = {}
        try:
            yield result
        except Exception as error:
            why = error.detail if isinstance(error, Problem) else type(error).__name__
            with contextlib.suppress(StoreUnavailable):  # that it was begun stands there
                self.note(f"{action}.failed", target, **detail, why=why[:400])
            raise
        self.note(action, target, **(detail | result))

    def check_match(self, tag: str) -> None:
        """Compare the header If-Match with what is there now.  Raises: Problem 412, 428."""
        if not self.if_match:
            raise Problem(428, "if_match_needed", f'Send If-Match with the ETag of what you have read; now it is "{tag}"')
        if self.if_match.strip().removeprefix("W/").strip('"') != tag:
            raise Problem(412, "changed_meanwhile", f'Somebody has changed it: its ETag is "{tag}" now. Read it again')

    def id(self, name: str) -> int:
        """Return a numeric id of the path.  Raises: Problem 404: nothing has such an id."""
        try:
            return whole(self.path[name], name, (1 << 62))
        except Problem:
            raise Problem(404, "not_found", f"There is no {name} {self.path[name][:40]!r}") from None


def whole(text: str, name: str, most: int) -> int:
    """Return the number that `text` is, 0 to `most`.  Raises: Problem 400."""
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise Problem(400, "bad_request", f"{name} is a whole number from 0 to {most}")
    return int(text)


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: a document (None = nothing), a cookie's secret to set ("" = to take away), further headers."""

    document: Any = None
    status: int = 200
    secret: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"
    stream: Any = None  # a place (`scp/handover.py`): the answer is a head, and goes on elsewhere


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the API. `takes` and `gives` are structs; `may_answer` are statuses beside the usual ones.

    `query` are (name, what it is) of whole numbers, or (name, what it is, "string"). `destroys`: it takes an Idempotency-Key.
    `keyed`: it must have one, which the exchange keeps. `matches`: it takes If-Match. `content_types` are those that
    a good answer may have.
    """

    method: str
    path: str
    need: str
    handler: Callable[[Call], Answer]
    takes: type[Body] | None = None
    gives: Any = None
    status: int = 200
    may_answer: tuple[int, ...] = ()
    query: tuple[tuple[str, ...], ...] = field(default=())
    destroys: bool = False
    matches: bool = False
    keyed: bool = False
    content_types: tuple[str, ...] = ("application/json",)

    @property
    def rule(self) -> Rule:
        return Rule(self.method, self.path, self.need)

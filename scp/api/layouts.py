"""One's own layouts of the desk: /api/v1/layouts. A layout says which widgets stand where, with their settings."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from scp.api.calls import Answer, Body, Call, Route
from scp.problems import Problem
from scp.security.forms import new_id
from scp.store import layouts

FORMAT = 1  # of a layout's content; the page of this version reads and writes it
COLUMNS, ROWS_MAX, WIDGETS_MAX, CONTENT_BYTES_MAX = 48, 400, 60, 49_152
DEPTH_MAX = 8  # of a widget's settings

Name = Annotated[str, Meta(min_length=1, max_length=64)]
Word = Annotated[str, Meta(pattern="^[a-z][a-z0-9_-]{0,31}$")]
Symbol = Annotated[str, Meta(max_length=64)]


class Place(Body):
    """A widget's place on a grid of 48 columns: its kind, the colour that links it, and its own settings."""

    id: Word
    kind: Word
    x: Annotated[int, Meta(ge=0, lt=COLUMNS)]
    y: Annotated[int, Meta(ge=0, le=ROWS_MAX)]
    w: Annotated[int, Meta(ge=1, le=COLUMNS)]
    h: Annotated[int, Meta(ge=1, le=ROWS_MAX)]
    link: Annotated[str, Meta(max_length=16)] = ""
    settings: dict[str, Any] = msgspec.field(default_factory=dict)


class Content(Body):
    """The widgets, and the symbol that each colour follows. `format` is the version of this shape."""

    format: int
    widgets: Annotated[list[Place], Meta(max_length=WIDGETS_MAX)]
    symbols: Annotated[dict[Word, Symbol], Meta(max_length=16)] = msgspec.field(default_factory=dict)


class LayoutBody(Body):
    """A layout: its name, what it is for, its widgets; whether it is opened first, and whether it may be moved about."""

    name: Name
    content: Content
    about: Annotated[str, Meta(max_length=400)] = ""
    default: bool = False
    locked: bool = False


class Layout(msgspec.Struct):
    """A layout. `revision` is also the answer's ETag; `changed_ms` is when it was saved last."""

    id: str
    name: str
    about: str
    default: bool
    locked: bool
    revision: int
    changed_ms: int
    content: dict[str, Any] | None = None


def list_layouts(call: Call) -> Answer:
    """List your layouts, without their content."""
    with call.control.store.transaction() as db:
        return Answer([_shown(row) for row in layouts.listed(db, call.me.user_id)])


def make_layout(call: Call) -> Answer:
    """Keep a new layout; as the default it takes the place of the present one."""
    given = _columns(call)
    with call.control.store.transaction() as db:
        try:
            row = layouts.make(db, call.me.user_id, new_id(call.control.draw), given, call.asked.now_ms)
        except layouts.TooManyLayouts:
            words = f"You have {layouts.PER_PERSON_MAX} layouts; remove one first"
            raise Problem(409, "too_many_layouts", words) from None
        return _answer(row, 201)


def read_layout(call: Call) -> Answer:
    """Get one of your layouts, with its content."""
    with call.control.store.transaction() as db:
        try:
            return _answer(layouts.find(db, call.me.user_id, call.path["layout"]))
        except KeyError:
            raise _missing() from None


def replace_layout(call: Call) -> Answer:
    """Replace a layout. If-Match names the revision that you changed; when it was changed meanwhile nothing is done."""
    given = _columns(call)
    revision = _revision(call.if_match)
    with call.control.store.transaction() as db:
        try:
            row = layouts.change(db, call.me.user_id, call.path["layout"], revision, given, call.asked.now_ms)
        except KeyError:
            raise _missing() from None
        except layouts.OtherRevision as other:
            words = "This layout was changed elsewhere meanwhile; load it, or keep yours under another name"
            raise Problem(412, "changed_elsewhere", words, [("ETag", f'"{other.revision}"')]) from None
        return _answer(row)


def remove_layout(call: Call) -> Answer:
    """Remove one of your layouts."""
    with call.control.store.transaction() as db:
        try:
            layouts.remove(db, call.me.user_id, call.path["layout"])
        except KeyError:
            raise _missing() from None
    return Answer(status=204)


def _columns(call: Call) -> dict[str, Any]:
    """Return the body as columns of the table.  Raises: Problem 400, 422."""
    body = call.body(LayoutBody)
    name = body.name.strip()
    if not name.isprintable() or not name or not body.about.replace("\n", "").isprintable():
        raise Problem(422, "bad_name", "A name has 1 to 64 characters that can be printed; so can what it is for, up to 400")
    if body.content.format != FORMAT:
        words = (
            f"This layout has format {body.content.format}; this Tapeline reads format {FORMAT}. Export it there in this format"
        )
        raise Problem(422, "layout_format", words)
    _check(body.content)
    text = msgspec.json.encode(body.content).decode()
    if len(text.encode()) > CONTENT_BYTES_MAX:
        raise Problem(422, "layout_too_large", f"A layout's content has {CONTENT_BYTES_MAX} bytes at most")
    if "\\u0000" in text:
        raise Problem(422, "bad_text", "A layout's texts have no NUL characters")
    return {
        "name": name, "about": body.about.strip(), "is_default": int(body.default), "locked": int(body.locked), "content": text,
    }  # fmt: skip


def _check(content: Content) -> None:
    ids = [place.id for place in content.widgets]
    if len(set(ids)) < len(ids):
        raise Problem(422, "same_widget_twice", "Two widgets have the same id; give each its own")
    for place in content.widgets:
        if place.x + place.w > COLUMNS:
            raise Problem(422, "outside_the_grid", f"The widget {place.id} reaches beyond the grid's {COLUMNS} columns")
        if _depth(place.settings) > DEPTH_MAX:
            raise Problem(422, "too_deep", f"The settings of {place.id} are nested deeper than {DEPTH_MAX} levels")


def _depth(value: Any) -> int:
    """Return how deep lists and objects are nested; nothing is followed past the bound."""
    level, deep = [value], 0
    while deep <= DEPTH_MAX:
        inner = [
            held for one in level if isinstance(one, dict | list) for held in (one.values() if isinstance(one, dict) else one)
        ]
        if not any(isinstance(one, dict | list) for one in level):
            return deep
        level, deep = inner, deep + 1
    return deep


def _revision(if_match: str) -> int:
    if not if_match:
        raise Problem(428, "if_match_needed", "Send the header If-Match with the ETag that GET of this layout gave")
    text = if_match.strip().removeprefix("W/").strip('"')
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else 0


def _shown(row: Any, content: Any = None) -> Layout:
    return Layout(
        row.public_id,
        row.name,
        row.about,
        bool(row.is_default),
        bool(row.locked),
        int(row.revision),
        int(row.changed_ms),
        content,
    )


def _answer(row: Any, status: int = 200) -> Answer:
    return Answer(_shown(row, msgspec.json.decode(row.content)), status, headers=(("ETag", f'"{row.revision}"'),))


def _missing() -> Problem:
    return Problem(404, "not_found", "You have no such layout")


ROUTES = (
    Route("GET", "/api/v1/layouts", "view", list_layouts, gives=list[Layout]),
    Route("POST", "/api/v1/layouts", "view", make_layout, LayoutBody, Layout, 201, (409, 422)),
    Route("GET", "/api/v1/layouts/{layout}", "view", read_layout, gives=Layout, may_answer=(404,)),
    Route("PUT", "/api/v1/layouts/{layout}", "view", replace_layout, LayoutBody, Layout, 200, (404, 412, 422, 428), matches=True),
    Route("DELETE", "/api/v1/layouts/{layout}", "view", remove_layout, status=204, may_answer=(404,)),
)

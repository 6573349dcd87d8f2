"""scp/api/layouts.py: layouts are one's own, bounded, and never overwritten unseen. On SQLite and PostgreSQL."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from scp.api.layouts import CONTENT_BYTES_MAX, WIDGETS_MAX
from scp.store.layouts import PER_PERSON_MAX
from tests.scp.conftest import Person, ScpProcess

PATH = "/api/v1/layouts"
WIDGET: dict[str, Any] = {"id": "w1", "kind": "board", "x": 0, "y": 0, "w": 12, "h": 6}


def layout(name: str = "Mine", *widgets: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a body with one widget, or with these."""
    return {"name": name, "content": {"format": 1, "widgets": list(widgets or (WIDGET,))}} | more


@pytest.fixture
def viewer(plane: ScpProcess) -> Person:
    """Somebody who has no layouts yet."""
    return plane.person("viewer")


def test_a_layout_is_kept_as_it_was_given(viewer: Person) -> None:
    """Also one whose names are markup: it is text, in and out."""
    wild = "<img src=x onerror=alert(1)>"
    body = layout(wild, WIDGET | {"settings": {"title": wild, "symbols": [wild, "Ω≈ç"]}}, about="two\nlines", locked=True)
    made = viewer.change("POST", PATH, body)
    assert (made.status, made.raw.getheader("ETag")) == (201, '"1"')
    got = viewer.get(f"{PATH}/{made.body['id']}").body
    assert (got["name"], got["about"], got["locked"], got["default"]) == (wild, "two\nlines", True, False)
    assert got["content"]["widgets"][0]["settings"] == {"title": wild, "symbols": [wild, "Ω≈ç"]}
    assert [one.get("content") for one in viewer.get(PATH).body] == [None]


def test_layouts_are_ones_own(plane: ScpProcess, boss: Person, viewer: Person) -> None:
    """Not even an administrator reads, changes or removes those of others."""
    path = f"{PATH}/{viewer.change('POST', PATH, layout()).body['id']}"
    assert boss.get(path).status == 404
    assert boss.change("PUT", path, layout("Taken"), If_Match='"1"').status == 404
    assert boss.change("DELETE", path).status == 404
    assert viewer.get(path).body["name"] == "Mine"
    assert plane.api("GET", PATH).status == 401


def test_who_saves_over_a_newer_one_is_told_and_nothing_is_lost(viewer: Person) -> None:
    """If-Match is needed; of two who save at once one wins, the other hears of it with the present revision."""
    path = f"{PATH}/{viewer.change('POST', PATH, layout()).body['id']}"
    assert viewer.change("PUT", path, layout("Blind")).status == 428
    word = viewer.csrf
    with ThreadPoolExecutor(4) as pool:
        put = lambda n: viewer.change("PUT", path, layout(f"Tab {n}"), csrf=word, If_Match='"1"')  # noqa: E731
        replies = list(pool.map(put, range(4)))
    assert sorted(one.status for one in replies) == [200, 412, 412, 412]
    won = next(one for one in replies if one.status == 200)
    lost = next(one for one in replies if one.status == 412)
    assert (lost.body["code"], lost.raw.getheader("ETag")) == ("changed_elsewhere", '"2"')
    assert viewer.get(path).body["name"] == won.body["name"]
    for odd in ("*", "abc", '"0"', '"-1"', "9" * 40):
        assert viewer.change("PUT", path, layout(), If_Match=odd).status == 412


def test_one_layout_is_the_default(viewer: Person) -> None:
    """Making another one the default takes it from the first."""
    first = viewer.change("POST", PATH, layout("One", default=True)).body["id"]
    viewer.change("POST", PATH, layout("Two", default=True))
    assert [one["default"] for one in viewer.get(PATH).body] == [False, True]
    viewer.change("PUT", f"{PATH}/{first}", layout("One", default=True), If_Match='"1"')
    assert [one["default"] for one in viewer.get(PATH).body] == [True, False]


def test_there_are_bounds(viewer: Person) -> None:
    """Layouts a person, widgets a layout, bytes: each refusal says the bound."""
    assert viewer.change("POST", PATH, layout("n" * 65)).status == 400
    many = [WIDGET | {"id": f"w{n}"} for n in range(WIDGETS_MAX + 1)]
    assert viewer.change("POST", PATH, layout("Many", *many)).status == 400
    large = layout("Large", WIDGET | {"settings": {"symbols": ["X" * 60] * (CONTENT_BYTES_MAX // 60)}})
    refused = viewer.change("POST", PATH, large)
    assert (refused.status, refused.body["code"]) == (422, "layout_too_large")
    assert viewer.change("POST", PATH, json.dumps(layout("x" * 70_000))).status == 413
    word = viewer.csrf
    for n in range(PER_PERSON_MAX):
        assert viewer.change("POST", PATH, layout(f"Layout {n}"), csrf=word).status == 201
    assert viewer.change("POST", PATH, layout("One more")).body["code"] == "too_many_layouts"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"name": "x"}, 400, "content"),
        (layout("  "), 422, "1 to 64"),
        (layout("a\u0000b"), 422, "printed"),
        (layout("x", WIDGET, WIDGET), 422, "same id"),
        (layout("x", WIDGET | {"x": 40, "w": 12}), 422, "beyond the grid"),
        (layout("x", WIDGET | {"h": 0}), 400, "h"),
        (layout("x", WIDGET | {"kind": "<b>"}), 400, "kind"),
        (layout("x", WIDGET | {"settings": {"a": [[[[[[[[[1]]]]]]]]]}}), 422, "nested"),
        (layout("x", WIDGET | {"settings": {"a": "\u0000"}}), 422, "NUL"),
        ({"name": "x", "content": {"format": 2, "widgets": []}}, 422, "format 2"),
        ({"name": "x", "content": {"format": 1, "widgets": []}, "owner": 1}, 400, "owner"),
    ],
)
def test_what_is_no_layout_is_refused_in_words(viewer: Person, body: dict[str, Any], status: int, said: str) -> None:
    """And nothing is kept of it."""
    refused = viewer.change("POST", PATH, body)
    assert refused.status == status
    assert said in refused.body["detail"]
    assert viewer.get(PATH).body == []

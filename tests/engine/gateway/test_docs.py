"""The documentation page: whatever the document says is shown as text, and prices are documented as numbers or decimals."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from litestar import Litestar, post
from litestar.params import JSONBody
from msgspec import Struct

from engine.gateway.docs import PriceSchema, config, page

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "T <b>", "description": "A & B <script>alert(1)</script>"},
    "paths": {
        "/Order": {
            "post": {
                "summary": "Place <it>", "tags": ["orders"],
                "parameters": [{"name": "account", "required": True, "description": "a <number>"}, {"name": "depth"}],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/PlaceBody"}}}},
                "responses": {"201": {"description": "Done"}, "400": {"description": "No & no"}},
            }
        },
        "/Other": {"get": {"responses": {}}},
    },
}  # fmt: skip


class Priced(Struct):
    """A body with a price."""

    price: Decimal


def test_the_page_shows_every_operation_as_text() -> None:
    """Parameters, body and answers are rows; nothing of the document becomes markup."""
    shown = page(DOCUMENT)
    for text in (
        "<b>POST</b> /Order",
        "account",
        "depth ?",
        "PlaceBody",
        "201",
        "No &amp; no",
        "<b>GET</b> /Other",
        "OpenAPI 3.1.0",
    ):
        assert text in shown
    for markup in ("<script", "T <b>", "<it>", "<number>"):
        assert markup not in shown


def test_a_decimal_is_documented_as_a_number_or_a_string() -> None:
    """Both are taken, so both are written down; the document says that a key is shown."""

    @post("/p", sync_to_thread=False)
    def handler(data: JSONBody[Priced]) -> None: ...

    app = Litestar([handler], openapi_config=config(), plugins=[PriceSchema()])
    document = app.openapi_schema.to_schema()
    kinds = [one["type"] for one in document["components"]["schemas"]["Priced"]["properties"]["price"]["oneOf"]]
    assert kinds == ["number", "string"]
    assert document["security"] == [{"key": []}]
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"

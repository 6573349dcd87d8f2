"""Renders the OpenAPI document as one page for people: every path, its parameters and answers. No script."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from html import escape
from typing import Any

from litestar import Request, Response, Router
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import Components, OpenAPIType, Schema, SecurityScheme
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1d2430;background:#fff}"
    "h2{margin:2.5rem 0 .5rem}h3{margin:1.5rem 0 .2rem;font:600 16px/1.4 ui-monospace,monospace}"
    "b{display:inline-block;min-width:4.5rem;color:#0b5cad}table{border-collapse:collapse;width:100%}"
    "td{border-top:1px solid #d9dee6;padding:.2rem .8rem .2rem 0;vertical-align:top}"
    "td:first-child{font-family:ui-monospace,monospace;white-space:nowrap}"
    "pre{white-space:pre-wrap;background:#f3f5f8;padding:.8rem}p{margin:.2rem 0}"
)
KEYS = "A key of this exchange, `tl_<id>_<secret>`, or the operator's token. Books, contracts and this page need none."
DESCRIPTION = """\
Orders, accounts and message stores of one exchange. Prices are numbers in price units, quantities whole contracts, money whole \
units (millionths of the settlement currency), times ISO 8601 in UTC. Whatever is not done is answered with \
application/problem+json whose `code` is for programs.

Books, contracts and this page are public; everything else needs a key: Authorization: Bearer tl_<id>_<secret>, on a WebSocket's \
handshake too. A trader's key moves and shows its own accounts, a market-data key reads and purges message stores, an operator's \
does everything. Operators make keys by POST /Key or python -m engine keys create.

/v1/trade is a WebSocket for orders and private streams: {"op": "place" | "amend" | "cancel" | "cancelAll", "id": any, \
and the fields of the bodies here}; {"op": "batch", "orders": [up to 100 of these]}; {"op": "subscribe", "accounts": [7], \
"lastSeq": 123}. Answers: {"type": "results", "id", "results": [{"status", "order" | "problem"}]}, then {"type": \
"update", "seq", "prevSeq", "executions", "accountTransactions"} for every command that concerns the accounts. It closes with \
4401 when the key is withdrawn, 4429 when the key has too many WebSockets.

An order that was answered is on the disk. After a lost answer send it again under the same clOrdID: 409 and `orderId` say that \
it was there. Every request that changes something takes an Idempotency-Key header: with the same key and the same content it is \
done once, and every retry is answered as the first one was, for three days, whatever happens to the engine in between. The same \
key with another content is refused (422 IdempotencyKeyReused). A key belongs to the account of the request, if it has one.

One POST /Order may bring several orders: oco makes a pair of which one cancels the other, takeProfit and stopLoss make it \
the entry of a bracket. trailAmount and trailRate make a stop that follows the last trade. They are accepted or refused \
together, linkId is the orderId of the first, and each is amended and cancelled by its own clOrdID.

Messages: PUT /MessageStore?storeId=NAME, then open the WebSocket /joined?storeId=NAME&lastSeen=INDEX. Every text message is one \
JSON object with everything that one command did: messageIndex, prevMessageIndex, timestamp, executions (groups), \
accountTransactions, liquidations, fundingCharges, livenessChecks, bookUpdates. Indices rise and have holes; prevMessageIndex \
names the message before. Without lastSeen everything stored comes; lastSeen=0 is a consumer that has nothing yet. After \
storing a message DELETE /MessageStore/Purge?storeId=NAME&messageIndex=INDEX. A message that is a JSON string instead of an \
object says why the feed ends: 4400 bad parameters, 4401 the key was withdrawn, 4403 another key's \
store, 4404 no such store, 4410 messages are missing, 4429 too many consumers. \
1012 and 1013 mean: come again. The \
default store has no name: write %22%22. A store whose oldest message is older than its maximumUnpurgedItemAgeMillis suspends \
trading until it is purged or deleted.
"""


def config() -> OpenAPIConfig:
    """Return where and how the gateway documents itself: /docs/ for people, /docs/openapi.json and .yaml for programs."""
    return OpenAPIConfig(
        title="Tapeline engine",
        version="1",
        openapi_router=Router("/docs", route_handlers=[], include_in_schema=False, after_request=_no_page),
        description=DESCRIPTION,
        render_plugins=[Kept(Page(path="/")), Kept(JsonRenderPlugin()), Kept(YamlRenderPlugin())],
        components=Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer", description=KEYS)}),
        security=[{"key": []}],
    )


class PriceSchema(OpenAPISchemaPlugin):
    """Documents decimals as what they are in JSON: a number, or a decimal in a string."""

    @staticmethod
    def is_plugin_supported_type(value: Any) -> bool:
        """Return whether this is a decimal."""
        return value is Decimal

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: Any) -> Schema:
        """Return the schema of a decimal."""
        return Schema(
            one_of=[Schema(type=OpenAPIType.NUMBER), Schema(type=OpenAPIType.STRING, pattern=r"^-?\d{1,20}(\.\d{1,15})?$")]
        )


async def _no_page(response: Response[Any]) -> Response[Any]:
    """Let a path below /docs that is not there be a problem like any other."""
    if response.status_code == 404:
        raise NotFoundException
    return response


class Kept(OpenAPIRenderPlugin):
    """Renders once what another plugin renders: the public may ask, and YAML takes a tenth of a second."""

    def __init__(self, plugin: OpenAPIRenderPlugin) -> None:
        super().__init__(path=plugin.paths, media_type=plugin.media_type)
        self._plugin = plugin
        self._kept: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Return the document, which never changes."""
        if self._kept is None:
            self._kept = self._plugin.render(request, openapi_schema)
        return self._kept


class Page(OpenAPIRenderPlugin):
    """Renders the page."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Return the page as HTML."""
        return page(openapi_schema).encode()


def page(document: dict[str, Any]) -> str:
    """Return an OpenAPI document as a page."""
    info = document["info"]
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title><style>{STYLE}</style>"
    intro = (
        f"<h1>{escape(info['title'])}</h1><p>OpenAPI {escape(document['openapi'])}: <a href=/docs/openapi.json>openapi.json</a>, "
    )
    intro += f"<a href=/docs/openapi.yaml>openapi.yaml</a><pre>{escape(info.get('description') or '')}</pre>"
    return "".join([head, intro, *_groups(document)])


def _groups(document: dict[str, Any]) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for tag in operation.get("tags") or ["other"]:
                found.setdefault(tag, []).append(_operation(method, path, operation))
    for tag, operations in sorted(found.items()):
        yield f"<h2>{escape(tag)}</h2>"
        yield from operations


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = [
        (f"{p['name']}{'' if p.get('required') else ' ?'}", p.get("description") or "") for p in operation.get("parameters") or []
    ]
    body = operation.get("requestBody")
    if body:
        rows.append(("body", ", ".join(_name(media.get("schema") or {}) for media in body["content"].values())))
    rows += [(status, answer.get("description") or "") for status, answer in operation["responses"].items()]
    cells = "".join(f"<tr><td>{escape(str(left))}<td>{escape(str(right))}" for left, right in rows)
    title = f"<h3><b>{method.upper()}</b> {escape(path)}</h3><p>{escape(operation.get('summary') or '')}"
    return f"{title}<table>{cells}</table>"


def _name(schema: dict[str, Any]) -> str:
    return str(schema.get("$ref") or schema.get("title") or "JSON").rsplit("/", 1)[-1]

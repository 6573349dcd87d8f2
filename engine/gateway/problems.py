"""Answers what went wrong as application/problem+json, and reads JSON bodies strictly, for every route of the gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

import msgspec
import structlog
from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.datastructures import ResponseHeader
from litestar.dto import AbstractDTO
from litestar.dto.data_structures import DTOFieldDefinition
from litestar.enums import MediaType, ScopeType
from litestar.exceptions import (
    ClientException,
    HTTPException,
    InternalServerException,
    ValidationException,
)
from litestar.handlers import BaseRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.typing import FieldDefinition

from engine.core.events import RejectReason
from engine.gateway.bodies import PROBLEM, Problem
from engine.journal.sequencer import EngineBusy, EngineUnavailable, Sequencer

BODY_BYTES_MAX = 65_536
RETRY_AFTER_S = {EngineBusy: "1", EngineUnavailable: "2"}
JSON_HEADER = [ResponseHeader(name="Cache-Control", value="no-store")]

T = TypeVar("T")
Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]  # a plain function would get a thread
log = structlog.get_logger()

# What people are told; 422 unless the first word says otherwise.
REASONS: dict[RejectReason, tuple[int, str]] = {
    RejectReason.UNKNOWN_SYMBOL: (404, "There is no such contract; GET /Instrument lists them."),
    RejectReason.UNKNOWN_ACCOUNT: (404, "There is no such account; a first deposit opens one."),
    RejectReason.UNKNOWN_ORDER: (404, "The account has no open order with this clOrdID."),
    RejectReason.UNKNOWN_STORE: (404, "There is no such message store; PUT /MessageStore creates one."),
    RejectReason.DUPLICATE_CL_ORD_ID: (409, "The account has used this clOrdID before; orderId is that of the first order."),
    RejectReason.DUPLICATE_SYMBOL: (409, "The contract exists with other terms, or is delisted: a symbol is used once."),
    RejectReason.INVALID_INDEX: (400, "This index is above the last one of the exchange."),
    RejectReason.INVALID_INSTRUMENT: (
        422,
        "Check margins (0 < maintenance <= initial), fees, sizes and the largest order's value.",
    ),
    RejectReason.INVALID_AMOUNT: (422, "The number is outside what is allowed here."),
    RejectReason.INVALID_SIDE: (422, "The side is Buy or Sell."),
    RejectReason.INVALID_SIZE: (
        422,
        "The quantity is not above zero and up to orderQtyMax, or displayQty is larger than it, or less than a hundredth of it.",
    ),
    RejectReason.INVALID_PRICE: (422, "The price is not a multiple of the tick size, above zero and up to priceMax."),
    RejectReason.INVALID_EXPIRY: (422, "expireTime goes with GoodTillDate only and lies ahead; a timeout is at most one day."),
    RejectReason.INVALID_COMBINATION: (422, "These fields do not go together."),
    RejectReason.SUSPENDED: (422, "Trading is suspended; GET /ExchangeWideControls says why."),
    RejectReason.KILLED: (422, "The account's kill switch is on."),
    RejectReason.TOO_MANY_ORDERS: (422, "The account has as many open orders as it may."),
    RejectReason.PRICE_BAND: (422, "The price is too far from the mark price."),
    RejectReason.POST_ONLY: (422, "The order would trade at once, and it is post-only."),
    RejectReason.REDUCE_ONLY: (422, "There is no position that this order would reduce."),
    RejectReason.MARGIN: (422, "The account has not enough money for it."),
    RejectReason.FUNDING_UNDER_WAY: (409, "A funding of this contract is being charged; ask again when it is done."),
    RejectReason.DELISTED: (422, "The contract is delisted, or being closed for that; GET /Instrument lists those that trade."),
    RejectReason.OPEN_ORDERS: (
        409,
        "The contract has open orders; settle=true cancels them, closes positions at the mark.",
    ),
    RejectReason.OPEN_POSITIONS: (409, "There are positions in the contract; settle=true closes them at the mark."),
    RejectReason.INVALID_STORE: (422, "A storeId has up to 64 characters, and there are up to 64 stores."),
}
BY_STATUS = {
    400: "What was asked is not well formed.", 401: "The key is missing, unknown, withdrawn or expired.",
    403: "The key's role, accounts or stores do not allow it, or a web page of another origin asked.",
    404: "There is no such thing.", 405: "This path has other methods.",
    409: "It collides with what is there.", 413: "The body is larger than 64 kB.", 415: "The body is not said to be JSON.",
    421: "The host name is none of this machine's.", 422: "It was understood and rejected.",
    429: "Too many requests with this key, or without one from this address; see Retry-After.", 500: "The engine has a fault.",
    503: "Not now; see Retry-After.",
}  # fmt: skip


class Answered(Exception):
    """A request with an idempotency key is answered by these bytes, the first time and at every retry."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(body)
        self.status = status
        self.body = body


class Refused(Exception):
    """Something is not done; becomes a problem. `code` is for programs, `detail` for people."""

    def __init__(self, status: int, code: str, detail: str, order_id: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.order_id = order_id


def rejected(reason: RejectReason, order_id: str = "") -> Refused:
    """Return the problem of a command that the engine rejected."""
    status, detail = REASONS[reason]
    return Refused(status, reason.value, detail, order_id)


class Told(NamedTuple):
    """What a caller is told of something that went wrong."""

    status: int
    code: str
    detail: str
    order_id: str = ""
    headers: dict[str, str] = {}  # noqa: RUF012  # never changed
    errors: list[str] = []  # noqa: RUF012


def told(error: Exception, path: str) -> Told:
    """Return what is told of whatever a handler raised. Of a fault of ours nothing but the fact is told."""
    if isinstance(error, Refused):
        return Told(error.status, error.code, error.detail, error.order_id)
    if isinstance(error, EngineBusy | EngineUnavailable):
        return Told(503, error.code, str(error), headers={"Retry-After": RETRY_AFTER_S.get(type(error), "2")})
    log.error("gateway_failed", path=path, exc_info=error)
    return Told(500, "InternalError", "The engine could not answer; its log says why.")


def problem_of(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Return the answer to whatever a handler or the router raised."""
    headers: dict[str, str] = {}
    errors: list[str] = []
    if isinstance(error, Answered):
        media = PROBLEM if error.status >= 400 else MediaType.JSON
        return Response(error.body.encode(), status_code=error.status, media_type=media)
    if isinstance(error, HTTPException) and error.status_code < 500:
        headers.update({name: value for name, value in (error.headers or {}).items() if name.lower() in ("allow", "retry-after")})
        if isinstance(error, ValidationException) and isinstance(error.extra, list):
            errors = [_wrong(item.get("key", "request"), item.get("message", "")) for item in error.extra]
        status = HTTPStatus(error.status_code)
        code = status.phrase.title().replace(" ", "").replace("-", "")
        return _problem(Told(status, code, _detail(request, error), headers=headers, errors=errors))
    if isinstance(error, InternalServerException) and "disconnected" in error.detail:  # Litestar's word for a client that went
        return _problem(Told(400, "ClientGone", "The client went before its request was whole."))
    return _problem(told(error, request.url.path))


def not_as_documented(error: Exception) -> str:
    """Return what is told of a body that cannot be decoded."""
    return f"The body is not as documented: {error}"


def _detail(request: Request[Any, Any, Any], error: HTTPException) -> str:
    if error.status_code == 404:
        return f"There is nothing at {request.url.path[:200]}; GET /docs/ lists what there is."
    if error.status_code == 413:
        return f"A body has at most {BODY_BYTES_MAX} bytes."
    if error.status_code == 405:
        return f"{request.method} is none of the methods of this path: {(error.headers or {}).get('allow', 'GET')}."
    if isinstance(error, ValidationException) and error.extra:
        return "A parameter is missing or not as documented."
    return error.detail


def _wrong(name: str, message: str) -> str:
    """Return what is wrong with a parameter, under the name it has in a query."""
    if name == "data":
        return "body: it is missing"
    first, *rest = name.split("_")
    shown = "clOrdID" if name == "cl_ord_id" else first + "".join(word.title() for word in rest)
    return f"{shown}: {message}"


def _problem(what: Told) -> Response[bytes]:
    body = problem_bytes(what.status, what.code, what.detail, what.order_id, what.errors)
    return Response(body, status_code=int(what.status), media_type=PROBLEM, headers=what.headers)


def problem_bytes(status: int, code: str, detail: str, order_id: str = "", errors: list[str] | None = None) -> bytes:
    """Return a problem as JSON."""
    return msgspec.json.encode(problem_view(status, code, detail, order_id, errors))


def problem_view(status: int, code: str, detail: str, order_id: str = "", errors: list[str] | None = None) -> Problem:
    """Return a problem as RFC 9457 has it."""
    body = Problem(f"urn:tapeline:problem:{code}", HTTPStatus(status).phrase, int(status), detail, code)
    if order_id:
        body.order_id = order_id
    if errors:
        body.errors = errors
    return body


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """Return the documentation of the problems a route may answer with; every route may answer the first ones."""
    found = {}
    for status in sorted({400, 401, 403, 405, 415, 421, 422, 429, 500, 503, *statuses}):
        code = HTTPStatus(status).phrase.title().replace(" ", "")
        example = Problem(f"urn:tapeline:problem:{code}", HTTPStatus(status).phrase, status, BY_STATUS[status], code)
        found[status] = ResponseSpec(
            Problem, generate_examples=False, description=BY_STATUS[status], media_type=PROBLEM, examples=[Example(value=example)]
        )
    return found


def foreign_account(account: int) -> Refused:
    """Return the problem of a caller who names an account that is none of its own."""
    return Refused(403, "ForeignAccount", f"Account {account} is none of this key's; an operator makes keys for accounts.")


def require_journal(sequencer: Sequencer) -> Guard:
    """Return the guard that lets nobody see what the disk did not take: until the state is rebuilt there are no answers."""

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        if not sequencer.refusal or connection.scope["type"] != ScopeType.HTTP or connection.url.path.startswith("/docs"):
            return
        if sequencer.leader and not sequencer.doubtful and connection.scope["method"] == "GET":
            return  # a standby shows what it has
        if connection.url.path != "/Replication":
            raise sequencer.unavailable()

    return guard


class StrictBody(AbstractDTO[T]):
    """A JSON body as the struct says, to the letter: Litestar alone would take "1" for 1."""

    def decode_bytes(self, value: bytes) -> T:
        """Raises: ClientException."""
        try:
            return decoder(self.model_type).decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ClientException(not_as_documented(error)) from None

    def decode_builtins(self, value: dict[str, Any]) -> T:
        """Forms are not taken."""
        raise ClientException("The body must be JSON")

    @classmethod
    def create_for_field_definition(cls, field_definition: FieldDefinition, handler_id: str, backend_cls: Any = None) -> None:
        """Nothing is generated: the struct is what is decoded."""

    @classmethod
    def create_openapi_schema(cls, field_definition: FieldDefinition, handler_id: str, schema_creator: Any) -> Any:
        """Return the schema of the struct itself; it says that no other fields are taken."""
        found = schema_creator.for_field_definition(field_definition)
        registry, struct = schema_creator.schema_registry, FieldDefinition.from_annotation(cls.model_type)
        registry.get_schema_for_field_definition(struct).additional_properties = False
        return found

    @classmethod
    def generate_field_definitions(cls, model_type: type[Any]) -> Iterator[DTOFieldDefinition]:  # type: ignore[override]
        """There are none."""
        return iter(())

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        """There are none."""
        return False


_decoders: dict[type, msgspec.json.Decoder[Any]] = {}


def decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """Return the decoder of a body, made once."""
    if kind not in _decoders:
        _decoders[kind] = msgspec.json.Decoder(kind)
    return _decoders[kind]

"""Frames of `/v1/trade`, order entry and private streams over one WebSocket: JSON objects, one a text message.

What is asked has `op` and, if it likes, an `id` that the answer repeats; fields and their meaning are those of the HTTP bodies.
Answers come in the sequence of what was asked; updates of a subscription come between them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field
from msgspec.json import Decoder, Encoder

from engine.core.units import WHOLE_MAX
from engine.gateway.bodies import AccountView, CanceledView, OrderView, Problem
from engine.gateway.order_bodies import AccountNumber, AmendBody, Body, ClientId, PlaceBody, Symbol
from engine.stores.messages import Execution, Transaction

BATCH_MAX = 100
ACCOUNTS_MAX = 100

Id = Annotated[str, Meta(max_length=64)] | Annotated[int, Meta(ge=-WHOLE_MAX, le=WHOLE_MAX)]
Seq = Annotated[int, Meta(ge=0, le=WHOLE_MAX)]


class Place(PlaceBody, frozen=True, kw_only=True, tag_field="op", tag="place"):
    """Enter an order."""

    id: Id = ""


class Amend(AmendBody, frozen=True, kw_only=True, tag_field="op", tag="amend"):
    """Change an open order."""

    id: Id = ""


class Cancel(Body, frozen=True, kw_only=True, tag_field="op", tag="cancel"):
    """Cancel an open order."""

    account: AccountNumber
    cl_ord_id: ClientId
    id: Id = ""


class CancelEvery(Body, frozen=True, kw_only=True, tag_field="op", tag="cancelAll"):
    """Cancel all open orders of an account, or those in one contract."""

    account: AccountNumber
    symbol: Symbol | None = None
    id: Id = ""


Order = Place | Amend | Cancel | CancelEvery


class Batch(Body, frozen=True, kw_only=True, tag_field="op", tag="batch"):
    """Up to 100 of these, done one after the other; each has its own result, and one that is refused stops no other."""

    orders: Annotated[list[Order], Meta(min_length=1, max_length=BATCH_MAX)]
    id: Id = ""


class Subscribe(Struct, frozen=True, kw_only=True, tag_field="op", tag="subscribe", forbid_unknown_fields=True, rename="camel"):
    """Get what happens to some accounts, instead of those asked for before; after `lastSeq`, or from now on."""

    accounts: Annotated[list[AccountNumber], Meta(min_length=1, max_length=ACCOUNTS_MAX)]
    last_seq: Seq | None = None
    id: Id = ""


class Unsubscribe(Struct, frozen=True, kw_only=True, tag_field="op", tag="unsubscribe", forbid_unknown_fields=True):
    """Get no more updates."""

    id: Id = ""


class Ping(Struct, frozen=True, kw_only=True, tag_field="op", tag="ping", forbid_unknown_fields=True):
    """Ask whether everything asked before has been answered."""

    id: Id = ""


Asked = Order | Batch | Subscribe | Unsubscribe | Ping


class Result(Struct, omit_defaults=True):
    """What became of one order: what was done, or the problem."""

    status: int
    order: OrderView | UnsetType = UNSET
    canceled: CanceledView | UnsetType = UNSET
    problem: Problem | UnsetType = UNSET


class Answer(Struct, kw_only=True):
    """The results of one message, one, or as many as the batch had orders."""

    type: Literal["results"] = "results"
    id: Id
    results: list[Result]


class Subscribed(Struct, kw_only=True, rename="camel"):
    """The accounts as they are after command `seq`; none when the subscription goes on after `lastSeq`."""

    type: Literal["subscribed"] = "subscribed"
    id: Id
    seq: int
    accounts: list[AccountView]


class Update(Struct, kw_only=True, rename="camel"):
    """What one command did to the accounts; `prev_seq` is the `seq` of the update before, or of `subscribed`."""

    type: Literal["update"] = "update"
    seq: int
    prev_seq: int
    timestamp: str
    executions: list[Execution]
    account_transactions: list[Transaction]


class Said(Struct, kw_only=True):
    """That something is so: `pong`, `unsubscribed`."""

    type: str
    id: Id


class Failed(Struct, kw_only=True):
    """Why a message was not understood, or a subscription is not there (any more)."""

    type: Literal["problem"] = "problem"
    id: Id
    problem: Problem


class Told(Struct, rename="camel"):
    """What of a message of the exchange concerns accounts."""

    message_index: int
    timestamp: str
    executions: list[list[Execution]]
    account_transactions: list[Transaction] = field(default_factory=list)


ASKED: Decoder[Asked] = Decoder(Asked)
TOLD: Decoder[Told] = Decoder(Told)
ENCODER = Encoder()

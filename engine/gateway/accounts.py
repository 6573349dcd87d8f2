"""HTTP routes of accounts: their money, positions and open orders; deposits and withdrawals."""

from __future__ import annotations

from typing import Annotated

from litestar import get, post
from litestar.openapi.spec import Example
from litestar.params import Body, PathParameter, QueryParameter
from litestar.types import ControllerRouterHandler, Scope

from engine.core.commands import (
    Deposit,
    Withdraw,
)  # fmt: skip
from engine.core.units import WHOLE_MAX
from engine.gateway.bodies import (
    AccountSummary,
    AccountView,
    AmountBody,
    TransferView,
)  # fmt: skip
from engine.gateway.door import caller_of
from engine.gateway.orders import OrderDesk
from engine.gateway.problems import StrictBody, foreign_account, problems
from engine.gateway.views import Views
from engine.journal.sequencer import Outcome

ACCOUNTS_MAX = 1_000

AccountPath = Annotated[int, PathParameter(ge=-1, le=WHOLE_MAX, description="account number")]
AfterQuery = Annotated[int, QueryParameter(name="after", ge=-2, le=WHOLE_MAX, description="only accounts above this number")]
LimitQuery = Annotated[int, QueryParameter(name="limit", ge=1, le=ACCOUNTS_MAX, description="at most so many")]

AmountData = Annotated[AmountBody, Body(examples=[Example(value={"amount": 1_000_000})])]


class AmountDTO(StrictBody[AmountBody]):
    """The body of a transfer."""


def routes(views: Views, desk: OrderDesk) -> list[ControllerRouterHandler]:
    """Return the handlers of accounts."""

    def transfer(outcome: Outcome, account: int, amount: int) -> TransferView:
        return TransferView(outcome.index, account, amount, views.state.ledger.accounts[account].balance_units)

    @get("/Account", responses=problems(), tags=["accounts"], summary="The money of the caller's accounts, by number")
    async def accounts(scope: Scope, after: AfterQuery = -2, limit: LimitQuery = ACCOUNTS_MAX) -> list[AccountSummary]:
        return views.summaries(after, limit, caller_of(scope).may_see)

    @get(
        "/Account/{account:int}", responses=problems(404), tags=["accounts"], summary="An account, its positions and open orders"
    )
    async def account_of(account: AccountPath, scope: Scope) -> AccountView:
        if not caller_of(scope).may_see(account):
            raise foreign_account(account)
        return views.account(account)

    @post(
        "/Account/{account:int}/Deposit", status_code=200, dto=AmountDTO, return_dto=None, responses=problems(404, 413, 422),
        tags=["accounts"], summary="Bring money in; the first deposit opens the account",
    )  # fmt: skip
    async def deposit(account: AccountPath, data: AmountData, scope: Scope) -> TransferView:
        command = Deposit(account, data.amount)
        return await desk.answer(caller_of(scope), command, lambda outcome: transfer(outcome, account, data.amount))

    @post(
        "/Account/{account:int}/Withdraw", status_code=200, dto=AmountDTO, return_dto=None, responses=problems(404, 413, 422),
        tags=["accounts"], summary="Take money out that is not needed as margin",
    )  # fmt: skip
    async def withdraw(account: AccountPath, data: AmountData, scope: Scope) -> TransferView:
        command = Withdraw(account, data.amount)
        return await desk.answer(caller_of(scope), command, lambda outcome: transfer(outcome, account, -data.amount))

    return [accounts, account_of, deposit, withdraw]

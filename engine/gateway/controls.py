"""HTTP routes by which operators suspend trading and let it go on."""

from __future__ import annotations

from litestar import get, put
from litestar.types import ControllerRouterHandler, Scope

from engine.core.commands import (
    ResumeAll,
    Suspend,
)  # fmt: skip
from engine.gateway.bodies import (
    ControlsView,
)  # fmt: skip
from engine.gateway.door import caller_of
from engine.gateway.orders import OrderDesk
from engine.gateway.problems import problems
from engine.gateway.views import Views
from engine.stores.rules import MANUAL


def routes(views: Views, desk: OrderDesk) -> list[ControllerRouterHandler]:
    """Return the handlers of exchange-wide controls."""

    @get("/ExchangeWideControls", responses=problems(), tags=["controls"], summary="Whether trading is suspended, and why")
    async def controls() -> ControlsView:
        return views.controls(views.index)

    @put("/ExchangeWideControls/SuspendTrading", responses=problems(), tags=["controls"], summary="Suspend trading by hand")
    async def suspend(scope: Scope) -> ControlsView:
        return await desk.answer(caller_of(scope), Suspend(MANUAL), lambda outcome: views.controls(outcome.index))

    @put(
        "/ExchangeWideControls/ResumeTrading", responses=problems(), tags=["controls"],
        summary="Resume trading by hand, whatever suspended it; a store that is behind counts again when it has caught up",
    )  # fmt: skip
    async def resume(scope: Scope) -> ControlsView:
        return await desk.answer(caller_of(scope), ResumeAll(), lambda outcome: views.controls(outcome.index))

    return [controls, suspend, resume]

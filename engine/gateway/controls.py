"""HTTP routes by which operators suspend trading and let it go on."""

from __future__ import annotations

from litestar import get, put
from litestar.types import ControllerRouterHandler

from engine.core.commands import (
    Resume,
    Suspend,
)  # fmt: skip
from engine.gateway.bodies import (
    ControlsView,
)  # fmt: skip
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
    async def suspend() -> ControlsView:
        return await desk.carry_out(Suspend(MANUAL), lambda outcome: views.controls(outcome.index))

    @put(
        "/ExchangeWideControls/ResumeTrading", responses=problems(), tags=["controls"],
        summary="Lift the suspension by hand; stores that are behind keep theirs",
    )  # fmt: skip
    async def resume() -> ControlsView:
        return await desk.carry_out(Resume(MANUAL), lambda outcome: views.controls(outcome.index))

    return [controls, suspend, resume]

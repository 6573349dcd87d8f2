"""Answers the questions of `risk-requests` by a few limits: the sample risk service, `python -m engine risk`.

It keeps nothing: whatever the rules look at comes with the question, so that any number of these may run. What cannot be read
is answered with a refusal where there is somebody to answer, and taken off the queue.
"""

from __future__ import annotations

from functools import partial

import aiormq
import msgspec
import structlog
from aiormq.abc import DeliveredMessage
from pydantic import Field, field_validator

from engine.risk.rules import QUEUE_ARGUMENTS, REQUESTS, URL_SETTING, Limits, RiskRequest, Verdict, assess
from mdq.rabbit_calls import broker_errors, in_time
from mdq.rabbit_link import RabbitLink, Wire, answer, text
from service import logs, metrics
from service.admin import AdminServer
from service.heartbeat import Heartbeat, Vitals
from service.run import Shutdown
from service.settings import ComponentSettings, admin_token, check_url, shown

PREFETCH = 200

log = structlog.get_logger()
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(RiskRequest)


class RiskSettings(ComponentSettings):
    """What `python -m engine risk` reads."""

    url: str = Field("amqp://guest:guest@127.0.0.1:5672/", validation_alias=URL_SETTING, description="RabbitMQ of the engine")
    admin_port: int = Field(9109, ge=0, le=65535, validation_alias="RISK_ADMIN_PORT", description="0 = a free one")
    position_lots_max: int = Field(0, ge=0, validation_alias="RISK_POSITION_LOTS_MAX", description="of one contract; 0 = any")
    notional_units_max: int = Field(0, ge=0, validation_alias="RISK_NOTIONAL_UNITS_MAX", description="of one account; 0 = any")
    band_ppm: int = Field(0, ge=0, validation_alias="RISK_BAND_PPM", description="price from the mark; 0 = any")

    @field_validator("url")
    @classmethod
    def _orders_url(cls, value: str) -> str:
        return check_url(value, ("amqp", "amqps"), "amqp://guest:guest@127.0.0.1:5672/")

    @property
    def limits(self) -> Limits:
        return Limits(self.position_lots_max, self.notional_units_max, self.band_ppm)


class RiskService:
    """Answers by `limits`, which may be changed while it runs."""

    def __init__(self, url: str, limits: Limits) -> None:
        self._link = RabbitLink(url, "tapeline-risk", self._serve, URL_SETTING)
        self.limits = limits
        self._answered = metrics.counter("risk", "answers", "Questions by the answer", ["reason"])

    @property
    def ready(self) -> bool:
        """Whether questions arrive."""
        return self._link.ready

    @property
    def fault(self) -> str:
        """In words why it is not ready."""
        return self._link.fault

    def vitals(self) -> Vitals:
        """Return what the heartbeat tells."""
        return Vitals({"answers": metrics.total(self._answered)})

    def start(self) -> None:
        """Begin to connect and to answer."""
        self._link.start()

    async def close(self) -> None:
        """Disconnect; what was not answered goes to the next one."""
        await self._link.close()

    async def _serve(self, wire: Wire) -> None:
        await wire.declare({REQUESTS: QUEUE_ARGUMENTS})
        channel = await wire.channel(prefetch=PREFETCH)
        with broker_errors():
            await in_time(channel.basic_consume(REQUESTS, partial(self._on_request, channel)))
        wire.ready = True
        await wire.lost

    async def _on_request(self, channel: aiormq.Channel, message: DeliveredMessage) -> None:
        asked = message.header.properties
        with broker_errors():  # first: a `reply_to` that ends the connection must not come again
            await channel.basic_ack(message.delivery_tag or 0, wait=False)
        await answer(channel, asked, _ENCODER.encode(self.verdict(message.body, text(asked.correlation_id))))

    def verdict(self, body: bytes, correlation_id: str = "") -> Verdict:
        """Return the answer to a question."""
        try:
            request = _DECODER.decode(body)
        except ValueError as error:
            log.warning("risk_request_malformed", error=str(error))
            self._answered.labels("malformed").inc()
            return Verdict(False, "malformed_request", correlation_id)
        reason = assess(request.order, request.account, self.limits)
        self._answered.labels(reason or "approved").inc()
        return Verdict(not reason, reason, request.request_id)


async def run(settings: RiskSettings, shutdown: Shutdown) -> None:
    """Answer until the shutdown; the body of `python -m engine risk`.  Raises: OperatorError when the admin port is taken."""
    logs.setup("risk", settings.log_level, settings.log_format)
    log.info("starting", settings=shown(settings))
    service = RiskService(settings.url, settings.limits)
    admin = AdminServer(
        "risk",
        settings.admin_host,
        settings.admin_port,
        admin_token(settings),
        lambda: [] if service.ready else [service.fault],
        names=settings.host_names,
        drain=shutdown.ask,
    )
    await admin.start()
    heartbeat = Heartbeat("risk", settings, admin.port, lambda: [] if service.ready else [service.fault], service.vitals)
    await heartbeat.start()
    service.start()
    log.info("started", admin_port=admin.port, **msgspec.structs.asdict(settings.limits))
    try:
        await shutdown.wait()
    finally:
        await service.close()
        await heartbeat.stop()
        await admin.stop()

"""Reads the widget data service's settings from the environment; every bound of a worker is named here."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from service.settings import ComponentSettings, check_url


def _words(value: object) -> object:
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


class WdsSettings(ComponentSettings):
    """What WDS reads. Limits are per worker; WDS_WORKERS processes share one port."""

    host: str = Field("127.0.0.1", validation_alias="WDS_HOST", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(8400, ge=0, le=65535, validation_alias="WDS_PORT", description="port; 0 takes a free one")
    workers: int = Field(1, ge=1, le=64, validation_alias="WDS_WORKERS", description="processes on the port (SO_REUSEPORT)")
    worker: int = Field(0, ge=0, le=63, validation_alias="WDS_WORKER", description="number of this worker, set by the parent")
    admin_port: int = Field(9103, ge=0, le=65535, validation_alias="WDS_ADMIN_PORT", description="admin port of worker 0")

    issuers: Annotated[tuple[str, ...], NoDecode] = Field(
        ("tapeline",), validation_alias="WDS_ISSUERS", description="accepted `iss` of tokens, comma separated"
    )
    jwks_url: str | None = Field(None, validation_alias="WDS_JWKS_URL", description="the control plane's public keys")
    jwks_ttl_s: int = Field(300, ge=5, validation_alias="WDS_JWKS_TTL_S", description="seconds between fetches of the keys")
    local_keys: bool = Field(True, validation_alias="WDS_LOCAL_KEYS", description="also accept tokens signed by RUN_DIR/wds.key")
    origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), validation_alias="WDS_ORIGINS", description="allowed Origin values; empty = own host and localhost; * = any"
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), validation_alias="WDS_TRUSTED_PROXIES", description="addresses or networks whose X-Forwarded-For is believed"
    )

    compat: bool = Field(
        False, validation_alias="WDS_COMPAT", description="serve the original service's app at /ws, and its key at SCP"
    )

    frame_bytes_max: int = Field(16_384, ge=1024, validation_alias="WDS_FRAME_BYTES_MAX", description="largest client frame")
    subs_max: int = Field(200, ge=1, validation_alias="WDS_SUBS_MAX", description="subscriptions a connection")
    commands_s: float = Field(20.0, gt=0, validation_alias="WDS_COMMANDS_S", description="commands a second, sustained")
    commands_burst: int = Field(100, ge=1, validation_alias="WDS_COMMANDS_BURST", description="commands at once")
    violations_max: int = Field(50, ge=1, validation_alias="WDS_VIOLATIONS_MAX", description="bad frames before close 4029")
    connections_max: int = Field(20_000, ge=1, validation_alias="WDS_CONNECTIONS_MAX", description="connections a worker")
    per_user_max: int = Field(20, ge=1, validation_alias="WDS_PER_USER_MAX", description="connections a token subject")
    per_address_max: int = Field(2500, ge=1, validation_alias="WDS_PER_ADDRESS_MAX", description="connections an address")
    unauthenticated_max: int = Field(
        200, ge=1, validation_alias="WDS_UNAUTHENTICATED_MAX", description="connections an address before their token"
    )
    handshakes_max: int = Field(
        256, ge=1, validation_alias="WDS_HANDSHAKES_MAX", description="sockets an address (IPv6: /64) before their request"
    )
    auth_s: float = Field(5.0, gt=0, validation_alias="WDS_AUTH_S", description="seconds to present a token")
    ping_s: float = Field(20.0, gt=0, validation_alias="WDS_PING_S", description="seconds between pings, and to answer one")

    buffer_high_bytes: int = Field(65_536, ge=4096, validation_alias="WDS_BUFFER_HIGH_BYTES", description="conflate above")
    buffer_low_bytes: int = Field(16_384, ge=0, validation_alias="WDS_BUFFER_LOW_BYTES", description="normal again below")
    buffer_max_bytes: int = Field(1_048_576, ge=65_536, validation_alias="WDS_BUFFER_MAX_BYTES", description="close above")
    slow_pause_s: float = Field(2.0, gt=0, validation_alias="WDS_SLOW_PAUSE_S", description="seconds conflating before pause")
    slow_close_s: float = Field(10.0, gt=0, validation_alias="WDS_SLOW_CLOSE_S", description="seconds slow before close 4108")

    linger_s: float = Field(10.0, ge=0, validation_alias="WDS_LINGER_S", description="seconds a channel stays watched unused")
    read_timeout_s: float = Field(2.0, gt=0, validation_alias="WDS_READ_TIMEOUT_S", description="deadline of a snapshot read")
    silence_s: float = Field(5.0, gt=0, validation_alias="WDS_SILENCE_S", description="seconds without pipeline status = stale")
    drain_s: float = Field(5.0, gt=0, le=9, validation_alias="WDS_DRAIN_S", description="seconds over which clients are sent off")

    _split = field_validator("issuers", "origins", "trusted_proxies", mode="before")(_words)

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            ipaddress.ip_network(name, strict=False)
        return value

    @field_validator("jwks_url")
    @classmethod
    def _keys_url(cls, value: str | None) -> str | None:
        return check_url(value, ("http", "https"), "http://127.0.0.1:8000/jwks.json") if value else None

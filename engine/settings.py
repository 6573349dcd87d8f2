"""Settings of the engine's process, read from the environment and frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from service.settings import ComponentSettings, check_url


class EngineSettings(ComponentSettings):
    """What `python -m engine serve` reads."""

    host: str = Field("127.0.0.1", validation_alias="ENGINE_HOST", description="address of the gateway; 0.0.0.0 for all")
    port: int = Field(8181, ge=0, le=65535, validation_alias="ENGINE_PORT", description="port of the gateway; 0 takes a free one")
    admin_port: int = Field(9104, ge=0, le=65535, validation_alias="ENGINE_ADMIN_PORT", description="admin port; 0 a free one")
    folder: Path = Field(Path(".run/engine"), validation_alias="ENGINE_DIR", description="journal and snapshots")
    api_token: SecretStr | None = Field(
        None,
        validation_alias="ENGINE_API_TOKEN",
        min_length=16,
        description="a further operator's bearer token; empty = keys only",
    )
    market_data_token: SecretStr | None = Field(
        None,
        validation_alias="ENGINE_MARKET_DATA_TOKEN",
        min_length=16,
        description="a further bearer token that reads every message store, for the feed and the OMS of one deployment",
    )
    keys_path: Path | None = Field(
        None, validation_alias="ENGINE_KEYS_FILE", description="the keys, see python -m engine keys; empty = ENGINE_DIR/keys.json"
    )
    tls_cert: Path | None = Field(
        None, validation_alias="ENGINE_TLS_CERT", description="certificate chain of the gateway, PEM; empty = no TLS"
    )
    tls_key: Path | None = Field(
        None, validation_alias="ENGINE_TLS_KEY", description="its private key, PEM, without a passphrase"
    )
    orders_per_s: float = Field(
        50_000, ge=0, validation_alias="ENGINE_ORDERS_PER_S", description="orders, amends and cancels a key; 0 = any"
    )
    requests_per_s: float = Field(
        2_000, ge=0, validation_alias="ENGINE_REQUESTS_PER_S", description="other requests a key; 0 = any"
    )
    public_per_s: float = Field(
        200, ge=0, validation_alias="ENGINE_PUBLIC_PER_S", description="requests without a key an address; 0 = any"
    )
    connections_max: int = Field(
        512, ge=0, validation_alias="ENGINE_CONNECTIONS_MAX", description="HTTP connections an address; 0 = any"
    )
    opened_per_s: float = Field(
        200, ge=0, validation_alias="ENGINE_OPENED_PER_S", description="connections an address may open; 0 = any"
    )
    sockets_max: int = Field(64, ge=0, validation_alias="ENGINE_SOCKETS_MAX", description="WebSockets a key; 0 = any")
    head_ms: int = Field(10_000, ge=1, validation_alias="ENGINE_HEAD_MS", description="for the head of a request to arrive")
    body_ms: int = Field(20_000, ge=1, validation_alias="ENGINE_BODY_MS", description="for its body")
    queue_max: int = Field(10_000, ge=1, validation_alias="ENGINE_QUEUE_MAX", description="commands waiting before EngineBusy")
    group_max: int = Field(
        256, ge=1, le=10_000, validation_alias="ENGINE_GROUP_MAX", description="commands a disk write, at most"
    )
    tick_ms: int = Field(100, ge=10, validation_alias="ENGINE_TICK_MS", description="how often time is looked at: expiry, timers")

    snapshot_interval_ms: int = Field(
        60_000, ge=0, validation_alias=AliasChoices("ENGINE_SNAPSHOT_INTERVAL_MS", "SNAPSHOT_INTERVAL_MS"),
        description="between snapshots; 0 = none",
    )  # fmt: skip
    snapshots_kept: int = Field(3, ge=1, validation_alias="ENGINE_SNAPSHOTS_KEPT", description="generations of snapshots")

    archive: Path | None = Field(
        None, validation_alias="ENGINE_ARCHIVE_DIR", description="where segments go that nobody needs; empty = they stay"
    )
    prune: bool = Field(False, validation_alias="ENGINE_PRUNE", description="remove segments that nobody needs: no audit trail")

    ring_bytes: int = Field(64 << 20, ge=1 << 16, validation_alias="ENGINE_RING_BYTES", description="messages kept in memory")
    orders_url: str = Field(
        "", validation_alias="ENGINE_ORDERS_URL", description="RabbitMQ with the queue engine.orders; empty = no queue"
    )
    orders_trust: Literal["keys", "broker"] = Field(
        "keys",
        validation_alias="ENGINE_ORDERS_TRUST",
        description="keys = every order message shows one (x-api-key); broker = whoever may write to the queue is an operator",
    )
    risk: bool = Field(
        False, validation_alias="ENGINE_RISK", description="ask the risk service before every order; needs RabbitMQ"
    )
    risk_timeout_ms: int = Field(5_000, ge=1, validation_alias="ENGINE_RISK_TIMEOUT_MS", description="then an order is rejected")
    streams_url: str = Field(
        "", validation_alias="ENGINE_STREAMS_URL", description="Redis for events_stream and engine_events; empty = no streams"
    )
    streams_trades_max: int = Field(
        1_000_000, ge=0, validation_alias="ENGINE_STREAMS_TRADES_MAX", description="trades kept in events_stream; 0 = all"
    )

    follow: str = Field(
        "", validation_alias="ENGINE_FOLLOW", description="be a standby of the engine with this gateway; empty = lead"
    )
    standby: str = Field(
        "",
        validation_alias="ENGINE_STANDBY",
        description="a leader's standby, its gateway: a start that finds it leading in a later term follows it; empty = nobody",
    )
    rewind: bool = Field(
        False,
        validation_alias="ENGINE_REWIND",
        description="a standby sets aside what its leader never had (python -m engine set-aside) and follows; false = it stops",
    )
    follow_key: SecretStr | None = Field(
        None,
        validation_alias="ENGINE_FOLLOW_KEY",
        description="a key of that engine, or of the one of ENGINE_STANDBY, of the role replica or operator",
    )
    replication: Literal["async", "sync"] = Field(
        "async",
        validation_alias="ENGINE_REPLICATION",
        description="sync = an answer means that the standby's disk has it too, and without a standby no command is taken",
    )
    replication_timeout_ms: int = Field(
        2_000, ge=10, validation_alias="ENGINE_REPLICATION_TIMEOUT_MS",
        description="sync: how long a group waits for the standby before its senders are told that nothing is certain",
    )  # fmt: skip

    @field_validator("follow", "standby")
    @classmethod
    def _leader(cls, value: str) -> str:
        return check_url(value, ("http", "https"), "http://127.0.0.1:8181") if value else value

    @field_validator("orders_url")
    @classmethod
    def _orders(cls, value: str) -> str:
        return check_url(value, ("amqp", "amqps"), "amqp://guest:guest@127.0.0.1:5672/") if value else value

    @field_validator("streams_url")
    @classmethod
    def _streams(cls, value: str) -> str:
        return check_url(value, ("redis", "rediss", "unix"), "redis://127.0.0.1:6379/0") if value else value

    @property
    def keys_file(self) -> Path:
        """Where the keys are."""
        return self.keys_path or self.folder / "keys.json"

    @property
    def tls(self) -> tuple[Path, Path] | None:
        """The files of certificate and key, None without TLS."""
        return (self.tls_cert, self.tls_key) if self.tls_cert and self.tls_key else None

    @model_validator(mode="after")
    def _key_to_follow(self) -> Self:
        if (self.follow or self.standby) and self.follow_key is None:
            name = "ENGINE_FOLLOW" if self.follow else "ENGINE_STANDBY"
            raise ValueError(f"{name} needs ENGINE_FOLLOW_KEY: on the leader, python -m engine keys create --role replica")
        return self

    @model_validator(mode="after")
    def _both_files(self) -> Self:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("ENGINE_TLS_CERT and ENGINE_TLS_KEY go together: a certificate and its key")
        return self

    @model_validator(mode="after")
    def _one_way_out(self) -> Self:
        if self.prune and self.archive:
            raise ValueError("ENGINE_PRUNE and ENGINE_ARCHIVE_DIR exclude each other: segments are removed or moved")
        return self

"""Reads a component's settings from the environment into one frozen typed object; a bad value ends in one clear line.

Every variable NAME may come from a file instead, NAME_FILE=/path: secrets then stand in no process list and no `docker inspect`.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.address import one_host_each
from service.cluster_url import EXAMPLE as CLUSTER_EXAMPLE
from service.cluster_url import is_cluster, parse_cluster_url
from service.errors import OperatorError

FILE = "_FILE"
FILE_BYTES_MAX = 65_536


PARTITIONS_MAX = 1_024  # two for each of 500 workers


CACHE_URLS = "redis://host:port/db, redis-cluster://a:6379,b:6379,c:6379 (with TLS rediss:, rediss-cluster:), unix:, or memory://"


class ComponentSettings(BaseSettings):
    """What every component reads. Component classes add fields with their own prefix (MDL_, MDP_, WDS_, SCP_)."""

    # An empty variable is an absent one: Makefiles, compose files and charts pass on what was never set.
    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True)

    mdq_url: str = Field(
        "memory://",
        validation_alias="MDQ_URL",
        description="amqp://user:pass@host/vhost, for a cluster amqp://user:pass@a:5672,b:5672,c:5672/vhost, or memory://",
    )
    mdq_queue_type: Literal["classic", "quorum"] = Field(
        "classic",
        validation_alias="MDQ_QUEUE_TYPE",
        description="quorum = RabbitMQ keeps copies of the queues on three nodes of its cluster",
    )
    mdq_partitions: int = Field(8, ge=1, le=PARTITIONS_MAX, validation_alias="MDQ_PARTITIONS", description="partitions a stream")
    mdc_url: str = Field("memory://", validation_alias="MDC_URL", description=CACHE_URLS)
    run_dir: Path = Field(Path(".run"), validation_alias="RUN_DIR", description="keys, admin token, logs")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", validation_alias="LOG_LEVEL")
    log_format: Literal["json", "console"] = Field("json", validation_alias="LOG_FORMAT")
    admin_host: str = Field("127.0.0.1", validation_alias="ADMIN_HOST", description="address of the admin port")
    admin_token: SecretStr | None = Field(None, validation_alias="ADMIN_TOKEN", description="bearer token; generated when absent")
    admin_advertised: str = Field(
        "",
        validation_alias="ADMIN_ADVERTISED",
        description="where others find the admin port: an address of this host; empty = ADMIN_HOST, or the host name's",
    )

    trusted_hosts: str = Field(
        "",
        validation_alias="TRUSTED_HOSTS",
        description="further names of this host in requests, comma-separated; IP addresses are",
    )

    otlp_endpoint: str = Field(
        "",
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="http://host:4318 of an OpenTelemetry collector; needs the extra otel; empty = no traces",
    )
    trace_rate: float = Field(
        0.001,
        ge=0,
        le=1,
        validation_alias="OTEL_TRACES_SAMPLER_ARG",
        description="share of the batches that the listener draws for a trace: 0.001 = every thousandth, 0 = none",
    )

    @property
    def host_names(self) -> list[str]:
        """The further names by which the ports of this component may be addressed."""
        return [name.strip() for name in self.trusted_hosts.split(",") if name.strip()]

    @field_validator("mdq_url")
    @classmethod
    def _queue_url(cls, value: str) -> str:
        return check_url(value, ("amqp", "amqps", "memory"), "amqp://guest:guest@127.0.0.1:5672/")

    @field_validator("otlp_endpoint")
    @classmethod
    def _collector_url(cls, value: str) -> str:
        return check_url(value, ("http", "https"), "http://127.0.0.1:4318") if value else value

    @field_validator("mdc_url")
    @classmethod
    def _cache_url(cls, value: str) -> str:
        return check_cache_url(value)


def check_cache_url(value: str) -> str:
    """Return `value` when it names a Redis, a Redis Cluster or the cache in memory; raise ValueError with what to write."""
    if is_cluster(value):
        parse_cluster_url(value)
        return value
    if "," in value.partition("?")[0].rpartition("@")[2]:
        raise ValueError(f"names several servers: write a cluster like {CLUSTER_EXAMPLE}, or a single server")
    return check_url(value, ("redis", "rediss", "unix", "memory"), "redis://127.0.0.1:6379/0")


def check_url(value: str, schemes: tuple[str, ...], example: str) -> str:
    """Return `value` when its scheme is one of `schemes` and its port is a number; raise ValueError with an example."""
    several = value.startswith(("amqp:", "amqps:"))  # the nodes of a cluster
    if not all(_usable(url, schemes) for url in (one_host_each(value) if several else [value])):
        raise ValueError(f"is not a usable URL (schemes: {', '.join(schemes)}); write it like {example}")
    return value


def _usable(url: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(url)
        network = parts.scheme not in ("memory", "unix")
        return parts.scheme in schemes and parts.port != 0 and (not network or bool(parts.hostname))
    except ValueError:  # a port that is no number or too large, a broken IPv6 address
        return False


S = TypeVar("S", bound=ComponentSettings)


def load(cls: type[S], **overrides: Any) -> S:
    """Read `cls` from the environment and the files that it names.

    Raises: OperatorError naming every bad variable and what it must be.
    """
    try:
        return cls(**from_files(cls), **overrides)
    except ValidationError as bad:
        faults = "; ".join(_fault(cls, item) for item in bad.errors())
        raise OperatorError(faults, "Correct the environment variable and start again") from None


def variables(cls: type[ComponentSettings]) -> dict[str, bool]:
    """Return the names of the variables that `cls` reads, and whether each is typed as a secret."""
    return {name: "SecretStr" in str(field.annotation) for field in cls.model_fields.values() for name in _names(field)}


def _names(field: Any) -> Iterator[str]:
    alias = field.validation_alias
    yield from (str(choice) for choice in (alias.choices if isinstance(alias, AliasChoices) else [alias] if alias else []))


def from_files(cls: type[ComponentSettings]) -> dict[str, Any]:
    """Return variable → content of the file that NAME_FILE names, without newlines at its end, for the variables of `cls`.

    A NAME_FILE that is a setting of its own is left to it.  Raises: OperatorError for a file that gives no value.
    """
    known, found, faults = variables(cls), dict[str, Any](), list[str]()
    for name in known:
        if f"{name}{FILE}" not in known and (path := os.environ.get(f"{name}{FILE}")):
            try:
                found[name] = _value_in(Path(path), bool(os.environ.get(name)) and name)
            except ValueError as fault:
                faults.append(f"{name}{FILE}={path!r}: {fault}")
    if faults:
        raise OperatorError("; ".join(faults), "Put the value into the file, readable for this process's user, and start again")
    return found


def _value_in(path: Path, given: str | bool) -> str:
    if given:
        raise ValueError(f"{given} is set, too; set one of the two")
    try:
        with path.open("rb") as file:
            value = file.read(FILE_BYTES_MAX + 1).decode().rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise ValueError("is not text in UTF-8") from None
    if not value.strip():
        raise ValueError("is empty")
    if len(value) > FILE_BYTES_MAX:
        raise ValueError(f"is longer than {FILE_BYTES_MAX} bytes")
    return value


def _fault(cls: type[ComponentSettings], item: Any) -> str:
    name = str(item["loc"][0]) if item["loc"] else "settings"
    field = cls.model_fields.get(name)
    if field is not None and field.validation_alias:
        name = next(_names(field))
    message = str(item["msg"]).removeprefix("Value error, ")
    shown = "***" if variables(cls).get(name) else hide_password(str(item.get("input", "")))[:80]
    where = f" (from {os.environ[name + FILE]})" if os.environ.get(name + FILE) else ""
    return f"{name}={shown!r}{where}: {message}" if item["loc"] else message


PASSWORD = re.compile(r"(?<=://)([^:@/\s]*):\S*@")
QUERY_SECRET = re.compile(r"([?&][^=&\s]*(?:token|key|secret|password)[^=&\s]*=)[^&\s]+", re.IGNORECASE)


def hide_password(text: str) -> str:
    """Return `text` with the password of every URL in it replaced by ***, also of a URL too broken to take apart.

    So are tokens and keys in its query.
    """
    return QUERY_SECRET.sub(r"\1***", PASSWORD.sub(r"\1:***@", text))


def shown(settings: ComponentSettings) -> dict[str, Any]:
    """Return the settings for the one start-up log line: secrets and URL passwords hidden."""
    return {name: hide_password(str(value)) for name, value in settings.model_dump().items()}


def admin_token(settings: ComponentSettings) -> str:
    """Return the bearer token of the admin ports: ADMIN_TOKEN, or one made once in RUN_DIR/admin.token (mode 0600)."""
    if settings.admin_token is not None:
        return settings.admin_token.get_secret_value()
    return secret_file(settings.run_dir / "admin.token", lambda: secrets.token_urlsafe(32).encode()).decode()


def secret_file(path: Path, make: Callable[[], bytes]) -> bytes:
    """Return the content of `path`, made by `make()` when absent; safe when several processes start together."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            own = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
            own.touch(0o600, exist_ok=False)  # nobody else may read it, not even before it is complete
            own.write_bytes(make())
            with contextlib.suppress(FileExistsError):
                os.link(own, path)  # atomic, and only the first of several processes wins
            own.unlink()
        return path.read_bytes()
    except OSError as error:
        raise OperatorError(f"cannot keep a secret at {path}: {error.strerror}", "Set RUN_DIR to a writable directory") from None

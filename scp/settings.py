"""Reads the control plane's settings from the environment, and refuses addresses at which sign-in would not be safe."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from service.address import exposed, hosts_of
from service.errors import OperatorError
from service.settings import ComponentSettings, check_url

STREAM_PATH = "/v1/stream"
APPS = Path(__file__).parent / "apps"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ScpSettings(ComponentSettings):
    """What `python -m scp` reads."""

    host: str = Field(
        "127.0.0.1", validation_alias="SCP_HOST", description="address to listen on; not loopback: SCP_PUBLIC_URL too"
    )
    port: int = Field(8000, ge=0, le=65535, validation_alias="SCP_PORT", description="port of the page; 0 = a free one")
    admin_port: int = Field(9105, ge=0, le=65535, validation_alias="SCP_ADMIN_PORT", description="0 = a free one")
    threads: int = Field(8, ge=1, le=64, validation_alias="SCP_THREADS", description="requests served at a time")
    token_s: int = Field(
        120, ge=30, le=600, validation_alias="SCP_TOKEN_S", description="life of a stream token in seconds; the page renews it"
    )
    key_days: float = Field(
        30, ge=0.01, le=3650, validation_alias="SCP_KEY_DAYS", description="a key signs stream tokens for so long, then the next"
    )
    jwks_ttl_s: int = Field(
        300, ge=5, validation_alias="WDS_JWKS_TTL_S", description="seconds between WDS's fetches of the keys; the same for both"
    )
    public_url: str = Field(
        "",
        validation_alias="SCP_PUBLIC_URL",
        description="the one address in browsers: https://desk.example.com; empty = this machine's own names",
    )
    trusted_proxies: str = Field(
        "",
        validation_alias="SCP_TRUSTED_PROXIES",
        description="addresses or networks whose X-Forwarded-For counts, comma-separated",
    )
    database_url: SecretStr | None = Field(
        None,
        validation_alias="SCP_DATABASE_URL",
        description="postgresql://user:password@host:5432/name; empty = SQLite in RUN_DIR",
    )
    secret_key: SecretStr | None = Field(
        None, validation_alias="SCP_SECRET_KEY", description="closes second-factor secrets; empty = made in RUN_DIR/scp.key"
    )
    session_idle_s: int = Field(
        43_200, ge=300, validation_alias="SCP_SESSION_IDLE_S", description="a session ends this long after its last request"
    )
    session_s: int = Field(
        604_800, ge=600, validation_alias="SCP_SESSION_S", description="a session ends this long after signing in"
    )
    oidc_issuer: str = Field(
        "",
        validation_alias="SCP_OIDC_ISSUER",
        description="an OpenID Connect provider, as it calls itself: https://id.example.com",
    )
    oidc_client_id: str = Field("", validation_alias="SCP_OIDC_CLIENT_ID", description="what the provider calls us")
    oidc_client_secret: SecretStr | None = Field(
        None, validation_alias="SCP_OIDC_CLIENT_SECRET", description="empty = a public client, with PKCE alone"
    )
    oidc_name: str = Field("your company", max_length=40, validation_alias="SCP_OIDC_NAME", description="`Sign in with …`")
    oidc_role: str = Field(
        "", validation_alias="SCP_OIDC_ROLE", description="role of who comes from there the first time; empty = nobody uninvited"
    )
    oidc_claim: str = Field(
        "preferred_username", validation_alias="SCP_OIDC_CLAIM", description="the claim that names somebody new"
    )
    smtp_url: SecretStr | None = Field(
        None, validation_alias="SCP_SMTP_URL", description="smtp://user:password@host:587 or smtps://…:465; empty = no mail"
    )
    mail_from: str = Field("tapeline@localhost", validation_alias="SCP_MAIL_FROM", description="sender of mail")
    admin_networks: str = Field(
        "127.0.0.0/8,::1/128",
        validation_alias="SCP_ADMIN_NETWORKS",
        description="networks of admin ports; the admin token is sent to no address outside of them",
    )
    engine_url: str = Field(
        "http://127.0.0.1:8181", validation_alias="SCP_ENGINE_URL", description="gateway of the built-in exchange"
    )
    engine_token: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("SCP_ENGINE_TOKEN", "ENGINE_API_TOKEN"),
        description="an operator's key of the gateway; empty = none",
    )
    paper_deposit: int = Field(
        1_000_000, ge=0, le=1_000_000_000, validation_alias="SCP_PAPER_DEPOSIT",
        description="what a new paper account begins with, in the contracts' currency; 0 = nobody gets one",
    )  # fmt: skip
    rest_url: str = Field(
        "", validation_alias="SCP_REST_URL",
        description="the vendor's REST service, https://…, for company data and older candles; empty = nobody is asked",
    )  # fmt: skip
    rest_key: SecretStr = Field(
        SecretStr(""), validation_alias="SCP_REST_KEY", description="its API key; it goes nowhere else, and never to a browser"
    )
    rest_key_file: Path | None = Field(
        None, validation_alias="SCP_REST_KEY_FILE", description="holds it instead; read anew for every question, empty = no key"
    )
    private_hosts: str = Field(
        "", validation_alias="SCP_PRIVATE_HOSTS",
        description="hosts on a network of containers of our own, comma-separated: SCP_REST_URL may name them with http://",
    )  # fmt: skip
    rest_rate: float = Field(
        120, gt=0, le=6_000, validation_alias="SCP_REST_RATE",
        description="questions a minute to it, at most, of all people together; one may use a quarter",
    )  # fmt: skip
    wds_port: int = Field(8400, ge=0, le=65535, validation_alias="WDS_PORT", description="where the browser finds WDS here")
    compat: bool = Field(
        False,
        validation_alias="WDS_COMPAT",
        description="serve the original service's app at /api/get_config; as WDS",
    )
    wds_public_url: str = Field("", validation_alias="WDS_PUBLIC_URL", description="empty = ws://127.0.0.1:WDS_PORT/v1/stream")
    wds_probe_url: str = Field(
        "",
        validation_alias="SCP_WDS_PROBE_URL",
        description="where we ask whether WDS answers: ws://wds:8400; empty = as browsers",
    )

    @field_validator("wds_public_url", "wds_probe_url")
    @classmethod
    def _stream_url(cls, value: str) -> str:
        return value and check_url(value, ("ws", "wss"), "ws://127.0.0.1:8400/v1/stream")

    @field_validator("public_url")
    @classmethod
    def _page_url(cls, value: str) -> str:
        if not value:
            return value
        check_url(value, ("http", "https"), "https://desk.example.com")
        parts = urlsplit(value)
        if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
            raise ValueError("is scheme, name and port alone; write it like https://desk.example.com")
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ValueError("must be https: over http passwords and sessions can be read on the way")
        return f"{parts.scheme}://{parts.netloc.lower()}"

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: str) -> str:
        for name in filter(None, map(str.strip, value.split(","))):
            ipaddress.ip_network(name, strict=False)
        return value

    @field_validator("admin_networks")
    @classmethod
    def _admin_networks(cls, value: str) -> str:
        _networks(value)
        return value

    @field_validator("engine_url")
    @classmethod
    def _gateway(cls, value: str) -> str:
        return check_url(value, ("http", "https"), "http://127.0.0.1:8181").rstrip("/")

    @field_validator("rest_url")
    @classmethod
    def _rest(cls, value: str) -> str:
        if not value:
            return value
        check_url(value, ("https", "http"), "https://api.massive.com")
        parts = urlsplit(value)
        if parts.query or parts.fragment or parts.username:
            raise ValueError("is a scheme, a name and perhaps a path, without user, query and #: https://api.massive.com")
        return value.rstrip("/")

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_database_url(value.get_secret_value())
        return value

    @field_validator("smtp_url")
    @classmethod
    def _mail_server(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_url(value.get_secret_value(), ("smtp", "smtps"), "smtp://user:password@mail.example.com:587")
        return value

    @field_validator("oidc_issuer")
    @classmethod
    def _issuer(cls, value: str) -> str:
        if value:
            check_url(value, ("http", "https"), "https://id.example.com")
            if urlsplit(value).scheme == "http" and not is_loopback(urlsplit(value).hostname or ""):
                raise ValueError("must be https: over http anybody on the way signs in as anybody")
        return value

    @field_validator("oidc_role")
    @classmethod
    def _role(cls, value: str) -> str:
        if value not in ("", "viewer", "trader", "operator"):
            raise ValueError("is viewer, trader, operator or empty; administrators are made by administrators")
        return value

    @model_validator(mode="after")
    def _client(self) -> ScpSettings:
        if self.oidc_issuer and not self.oidc_client_id:
            raise ValueError("SCP_OIDC_ISSUER is set without SCP_OIDC_CLIENT_ID; register Tapeline there and give its client id")
        return self

    @model_validator(mode="after")
    def _no_key_in_clear(self) -> ScpSettings:
        if self.rest_url and exposed(self.rest_url, hosts_of(self.private_hosts)):
            raise ValueError(
                f"SCP_REST_URL={self.rest_url} would send the vendor's key in clear: write https://, use a loopback address, or "
                "name the host in SCP_PRIVATE_HOSTS when nobody else is on that network"
            )
        return self

    def rest_key_now(self) -> str:
        """Return the vendor's key, "" = none. A file is read each time: it is replaced without a restart."""
        if given := self.rest_key.get_secret_value().strip():
            return given
        try:
            return self.rest_key_file.read_text().strip() if self.rest_key_file is not None else ""
        except (OSError, UnicodeDecodeError):
            return ""

    @property
    def proxies(self) -> list[Network]:
        """The networks whose word on a client's address counts."""
        return _networks(self.trusted_proxies)

    @property
    def ports(self) -> list[Network]:
        """The networks in which admin ports are."""
        return _networks(self.admin_networks)

    @property
    def secure(self) -> bool:
        """Whether browsers reach us over https."""
        return self.public_url.startswith("https://")

    @property
    def wds_url(self) -> str:
        """Return the WebSocket address that the browser opens."""
        return self.wds_public_url or f"ws://127.0.0.1:{self.wds_port}/v1/stream"

    @property
    def compat_url(self) -> str:
        """Return the WebSocket address that the original service's app opens; empty = it is not served."""
        return f"{self.wds_url.partition('?')[0].rstrip('/').removesuffix(STREAM_PATH)}/ws" if self.compat else ""

    @property
    def longest_s(self) -> int:
        """Return how long the longest-lived of what we sign for the stream is good, in seconds."""
        return max(self.token_s, self.session_s) if self.compat else self.token_s

    @property
    def wds_address(self) -> tuple[str, int]:
        """Return host and port of WDS, for the readiness probe."""
        parts = urlsplit(self.wds_probe_url or self.wds_url)
        return parts.hostname or "127.0.0.1", parts.port or (443 if parts.scheme == "wss" else 80)


def _networks(names: str) -> list[Network]:
    return [ipaddress.ip_network(name.strip(), strict=False) for name in names.split(",") if name.strip()]


def check_database_url(url: str) -> str:
    """Return `url` when it can be PostgreSQL's.  Raises: ValueError saying how to write it."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("postgres", "postgresql") and bool(parts.hostname) and len(parts.path) > 1 and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(
            "is not a usable URL; write it like postgresql://user:password@host:5432/name, or leave it empty for SQLite"
        )
    return url


def refuse_public_address(settings: ScpSettings) -> None:
    """Raise OperatorError when other machines reach us and nobody has said under which address browsers do.

    That address is https, or one of the browser's own machine: a container listens on 0.0.0.0 and is published on 127.0.0.1.
    The gate answers to no other name.
    """
    if not is_loopback(settings.host) and not settings.public_url:
        what = f"SCP_HOST={settings.host!r} shows the page to other machines, and passwords would pass readable"
        fix = (
            "Set SCP_PUBLIC_URL=https://… to the address of the proxy that ends TLS before it, "
            "SCP_PUBLIC_URL=http://127.0.0.1:8000 when only this machine reaches it (a published container), "
            "or SCP_HOST=127.0.0.1"
        )
        raise OperatorError(what, fix)


def is_loopback(host: str) -> bool:
    """Tell whether `host` names this machine only, without asking a resolver."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"

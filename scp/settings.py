"""Reads the control plane's settings from the environment. Until sign-in exists it listens to this machine only."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from service.errors import OperatorError
from service.settings import ComponentSettings, check_url

APPS = Path(__file__).parent / "apps"


class ScpSettings(ComponentSettings):
    """What `python -m scp` reads."""

    host: str = Field("127.0.0.1", validation_alias="SCP_HOST", description="address to listen on; loopback only")
    port: int = Field(8000, ge=0, le=65535, validation_alias="SCP_PORT", description="port of the page; 0 = a free one")
    admin_port: int = Field(9105, ge=0, le=65535, validation_alias="SCP_ADMIN_PORT", description="0 = a free one")
    threads: int = Field(8, ge=1, le=64, validation_alias="SCP_THREADS", description="requests served at a time")
    token_s: int = Field(
        600, ge=120, le=600, validation_alias="SCP_TOKEN_S", description="life of a viewer's token in seconds; the page renews it"
    )
    wds_port: int = Field(8400, ge=0, le=65535, validation_alias="WDS_PORT", description="where the browser finds WDS here")
    wds_public_url: str = Field("", validation_alias="WDS_PUBLIC_URL", description="empty = ws://127.0.0.1:WDS_PORT/v1/stream")

    @field_validator("wds_public_url")
    @classmethod
    def _stream_url(cls, value: str) -> str:
        return value and check_url(value, ("ws", "wss"), "ws://127.0.0.1:8400/v1/stream")

    @property
    def wds_url(self) -> str:
        """Return the WebSocket address that the browser opens."""
        return self.wds_public_url or f"ws://127.0.0.1:{self.wds_port}/v1/stream"

    @property
    def wds_address(self) -> tuple[str, int]:
        """Return host and port of WDS, for the readiness probe."""
        parts = urlsplit(self.wds_url)
        return parts.hostname or "127.0.0.1", parts.port or (443 if parts.scheme == "wss" else 80)


def refuse_public_address(settings: ScpSettings) -> None:
    """Raise OperatorError unless SCP_HOST is this machine: whoever reaches the port gets a token without a password."""
    if not is_loopback(settings.host):
        what = f"SCP_HOST={settings.host!r} would show the page to other machines, and sign-in does not exist yet"
        raise OperatorError(what, "Set SCP_HOST to 127.0.0.1, and reach it from elsewhere through an SSH tunnel")


def is_loopback(host: str) -> bool:
    """Tell whether `host` names this machine only, without asking a resolver."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"

"""Where the control plane is and by which token: variables, else what `scpctl login` kept."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LOCAL = "http://127.0.0.1:8000"


class NotUsable(Exception):
    """A file that cannot be used; the text says which and what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """A control plane's address, a token for it, and the file of a private authority."""

    url: str
    token: str
    ca: str = ""


def found(environment: Mapping[str, str], file: Path) -> Place:
    """Return SCP_URL, SCP_TOKEN (or the file SCP_TOKEN_FILE) and SCP_CA_FILE, each else as it was kept.  Raises: NotUsable."""
    kept = _read(file)
    token = environment.get("SCP_TOKEN", "")
    if not token and (name := environment.get("SCP_TOKEN_FILE")):
        try:
            token = Path(name).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise NotUsable(f"SCP_TOKEN_FILE={name} cannot be read: {error}") from None
    url = environment.get("SCP_URL", "")
    # A kept token goes to the address it was kept for, and nowhere else.
    if not token and (not url or url.rstrip("/") == kept.url):
        token = kept.token
    return Place((url or kept.url).rstrip("/"), token, environment.get("SCP_CA_FILE", kept.ca))


def keep(file: Path, place: Place) -> None:
    """Keep it, for its owner only."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        json.dump({"url": place.url, "token": place.token, "ca": place.ca}, out)
    new.replace(file)


def file_of(environment: Mapping[str, str]) -> Path:
    """Return where `scpctl login` keeps it."""
    folder = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(folder) / "tapeline" / "scpctl.json"


def _read(file: Path) -> Place:
    if not file.exists():
        return Place(LOCAL, "")
    try:
        kept = json.loads(file.read_text())
        return Place(str(kept["url"]), str(kept["token"]), str(kept.get("ca", "")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotUsable(f"{file} cannot be used ({error}); remove it and run: scpctl login") from None

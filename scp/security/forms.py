"""The forms of our secrets, and what is kept of them: only a SHA-256, which for 256 random bits is as good as a slow hash."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable

Draw = Callable[[int], str]  # n random bytes as URL-safe text: secrets.token_urlsafe
TOKEN_PREFIX = "tapeline_"  # noqa: S105  # by which secret scanners find a token in a repository
TOKEN = re.compile(r"tapeline_([A-Za-z0-9-]{6,32})_([A-Za-z0-9_-]{43})")


def kept(secret: str) -> str:
    """Return what the database keeps of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def csrf_of(session_secret: str) -> str:
    """Return the word that a page sends with each change; it cannot be had without the session's cookie."""
    return hmac.new(session_secret.encode(), b"csrf", hashlib.sha256).hexdigest()


def same(one: str, other: str) -> bool:
    """Compare in a time that tells nothing."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def new_id(draw: Draw) -> str:
    """Return a name that is public: letters, digits and hyphens."""
    return draw(9).replace("_", "-")

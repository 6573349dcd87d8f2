"""Names the tables for the query layer. The shape itself is made by `migrations.py`; pydal never changes it."""

from __future__ import annotations

from typing import Any

TEXTS = {
    "auth_user": ("username", "email", "password_hash", "role", "totp_secret", "totp_pending"),
    "recovery_code": ("code_hash",),
    "user_session": ("public_id", "secret_hash", "address", "agent"),
    "api_token": ("public_id", "secret_hash", "name", "scopes"),
    "one_time_link": ("secret_hash", "purpose"),
    "revocation": ("session_id",),
    "stream_key": ("kid", "public_x", "closed"),
    "oidc_try": ("state_hash", "browser_hash", "nonce", "verifier"),
    "oidc_identity": ("issuer", "subject", "email"),
    "audit_head": ("hash",),
    "listener_configuration": ("listener", "wanted", "note", "who"),
    "listener_secret": ("listener", "name", "closed", "place"),
    "repeated_answer": ("name", "asked", "headers", "body"),
    "audit_entry": ("who", "action", "target", "detail", "address", "request_id", "previous", "hash"),
    "layout": ("public_id", "name", "about", "content"),
}
NUMBERS = {
    "auth_user": ("created_ms", "disabled_ms", "password_ms", "totp_step"),
    "recovery_code": ("user_id", "used_ms"),
    "user_session": ("user_id", "half_open", "created_ms", "seen_ms", "ends_ms", "revoked_ms"),
    "api_token": ("user_id", "created_ms", "ends_ms", "used_ms", "revoked_ms"),
    "one_time_link": ("user_id", "created_ms", "ends_ms", "used_ms"),
    "revocation": ("at_ms",),
    "stream_key": ("number", "made_ms", "signs_ms"),
    "oidc_try": ("user_id", "ends_ms"),
    "oidc_identity": ("user_id", "created_ms"),
    "audit_head": ("entries",),
    "listener_configuration": ("version", "managed", "at_ms"),
    "listener_secret": ("at_ms",),
    "repeated_answer": ("status", "at_ms"),
    "audit_entry": ("at_ms",),
    "layout": ("user_id", "is_default", "locked", "revision", "changed_ms"),
}


def define(db: Any, field: Any) -> None:
    """Tell pydal of every table; `field` is its Field class."""
    for name, texts in TEXTS.items():
        fields = [field(text, "text", default="") for text in texts]
        fields += [field(number, "bigint", default=0) for number in NUMBERS[name]]
        db.define_table(name, *fields, migrate=False)

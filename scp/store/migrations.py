"""The database's shape, step by step: each step is applied once, in order, in one transaction.

A step that was released is never changed; a new one is added. `{id}` is the dialect's own automatic key. Times are milliseconds
since the epoch, 0 = never; flags are 0 or 1.
"""

from __future__ import annotations

from typing import NamedTuple


class Step(NamedTuple):
    """One change of the shape."""

    number: int
    about: str
    statements: tuple[str, ...]


AUTOMATIC_KEY = {"sqlite": "INTEGER PRIMARY KEY AUTOINCREMENT", "postgres": "BIGSERIAL PRIMARY KEY"}

STEPS = (
    Step(
        1,
        "people, their sessions and tokens, one-time links, throttling, audit",
        (
            """CREATE TABLE auth_user (
                id {id}, username VARCHAR(64) NOT NULL UNIQUE, email VARCHAR(254) NOT NULL, password_hash VARCHAR(255) NOT NULL,
                role VARCHAR(16) NOT NULL, created_ms BIGINT NOT NULL, disabled_ms BIGINT NOT NULL, password_ms BIGINT NOT NULL,
                totp_secret VARCHAR(255) NOT NULL, totp_pending VARCHAR(255) NOT NULL, totp_step BIGINT NOT NULL)""",
            """CREATE TABLE recovery_code (
                id {id}, user_id BIGINT NOT NULL REFERENCES auth_user (id) ON DELETE CASCADE, code_hash VARCHAR(64) NOT NULL,
                used_ms BIGINT NOT NULL)""",
            "CREATE INDEX recovery_code_user ON recovery_code (user_id)",
            """CREATE TABLE user_session (
                id {id}, public_id VARCHAR(32) NOT NULL UNIQUE, secret_hash VARCHAR(64) NOT NULL UNIQUE,
                user_id BIGINT NOT NULL REFERENCES auth_user (id) ON DELETE CASCADE, half_open BIGINT NOT NULL,
                created_ms BIGINT NOT NULL, seen_ms BIGINT NOT NULL, ends_ms BIGINT NOT NULL, revoked_ms BIGINT NOT NULL,
                address VARCHAR(64) NOT NULL, agent VARCHAR(200) NOT NULL)""",
            "CREATE INDEX user_session_user ON user_session (user_id)",
            """CREATE TABLE api_token (
                id {id}, public_id VARCHAR(32) NOT NULL UNIQUE, secret_hash VARCHAR(64) NOT NULL, name VARCHAR(64) NOT NULL,
                user_id BIGINT NOT NULL REFERENCES auth_user (id) ON DELETE CASCADE, scopes VARCHAR(400) NOT NULL,
                created_ms BIGINT NOT NULL, ends_ms BIGINT NOT NULL, used_ms BIGINT NOT NULL, revoked_ms BIGINT NOT NULL)""",
            "CREATE INDEX api_token_user ON api_token (user_id)",
            """CREATE TABLE one_time_link (
                id {id}, secret_hash VARCHAR(64) NOT NULL UNIQUE, purpose VARCHAR(16) NOT NULL, user_id BIGINT NOT NULL,
                created_ms BIGINT NOT NULL, ends_ms BIGINT NOT NULL, used_ms BIGINT NOT NULL)""",
            """CREATE TABLE revocation (
                id {id}, session_id VARCHAR(32) NOT NULL, at_ms BIGINT NOT NULL)""",
            "CREATE INDEX revocation_at ON revocation (at_ms)",
            """CREATE TABLE throttle (
                name VARCHAR(200) PRIMARY KEY, hits BIGINT NOT NULL, ends_s DOUBLE PRECISION NOT NULL)""",
            """CREATE TABLE audit_head (id BIGINT PRIMARY KEY, entries BIGINT NOT NULL, hash VARCHAR(64) NOT NULL)""",
            "INSERT INTO audit_head (id, entries, hash) VALUES (1, 0, '" + "0" * 64 + "')",
            """CREATE TABLE audit_entry (
                id BIGINT PRIMARY KEY, at_ms BIGINT NOT NULL, who VARCHAR(100) NOT NULL, action VARCHAR(64) NOT NULL,
                target VARCHAR(200) NOT NULL, detail TEXT NOT NULL, address VARCHAR(64) NOT NULL, request_id VARCHAR(32) NOT NULL,
                previous VARCHAR(64) NOT NULL, hash VARCHAR(64) NOT NULL)""",
        ),
    ),
    Step(
        2,
        "people's layouts of the desk",
        (
            """CREATE TABLE layout (
                id {id}, public_id VARCHAR(32) NOT NULL UNIQUE,
                user_id BIGINT NOT NULL REFERENCES auth_user (id) ON DELETE CASCADE, name VARCHAR(64) NOT NULL,
                about VARCHAR(400) NOT NULL, is_default BIGINT NOT NULL, locked BIGINT NOT NULL, revision BIGINT NOT NULL,
                content TEXT NOT NULL, changed_ms BIGINT NOT NULL)""",
            "CREATE INDEX layout_user ON layout (user_id)",
        ),
    ),
)
NEWEST = STEPS[-1].number

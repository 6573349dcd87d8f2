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
        "the listeners' wanted configurations, answers to be repeated",
        (
            """CREATE TABLE listener_configuration (
                id {id}, listener VARCHAR(32) NOT NULL, version BIGINT NOT NULL, managed BIGINT NOT NULL, wanted TEXT NOT NULL,
                note TEXT NOT NULL, who VARCHAR(100) NOT NULL, at_ms BIGINT NOT NULL, UNIQUE (listener, version))""",
            """CREATE TABLE listener_secret (
                id {id}, listener VARCHAR(32) NOT NULL, name VARCHAR(32) NOT NULL, closed TEXT NOT NULL, place TEXT NOT NULL,
                at_ms BIGINT NOT NULL, UNIQUE (listener, name))""",
            """CREATE TABLE repeated_answer (
                id {id}, name VARCHAR(200) NOT NULL UNIQUE, asked VARCHAR(64) NOT NULL, status BIGINT NOT NULL,
                headers TEXT NOT NULL, body TEXT NOT NULL, at_ms BIGINT NOT NULL)""",
            "CREATE INDEX repeated_answer_at ON repeated_answer (at_ms)",
            "CREATE INDEX audit_entry_action ON audit_entry (action)",
        ),
    ),
    Step(
        3,
        "keys that sign stream tokens",
        (
            """CREATE TABLE stream_key (
                id {id}, kid VARCHAR(64) NOT NULL UNIQUE, number BIGINT NOT NULL UNIQUE, public_x VARCHAR(64) NOT NULL,
                closed TEXT NOT NULL, made_ms BIGINT NOT NULL, signs_ms BIGINT NOT NULL)""",
        ),
    ),
    Step(
        4,
        "people who sign in at an OpenID Connect provider",
        (
            """CREATE TABLE oidc_try (
                id {id}, state_hash VARCHAR(64) NOT NULL UNIQUE, browser_hash VARCHAR(64) NOT NULL, nonce VARCHAR(64) NOT NULL,
                verifier VARCHAR(64) NOT NULL, user_id BIGINT NOT NULL, ends_ms BIGINT NOT NULL)""",
            """CREATE TABLE oidc_identity (
                id {id}, issuer VARCHAR(400) NOT NULL, subject VARCHAR(255) NOT NULL, email VARCHAR(254) NOT NULL,
                user_id BIGINT NOT NULL REFERENCES auth_user (id) ON DELETE CASCADE, created_ms BIGINT NOT NULL,
                UNIQUE (issuer, subject))""",
            "CREATE INDEX oidc_identity_user ON oidc_identity (user_id)",
        ),
    ),
    Step(
        5,
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
    Step(
        6,
        "people's accounts for paper trading",
        (
            """CREATE TABLE paper_account (
                id {id}, user_id BIGINT NOT NULL UNIQUE REFERENCES auth_user (id) ON DELETE CASCADE,
                account BIGINT NOT NULL UNIQUE, opened_ms BIGINT NOT NULL)""",
        ),
    ),
)
NEWEST = STEPS[-1].number

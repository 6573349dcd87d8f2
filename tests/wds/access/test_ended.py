"""Sessions of the control plane that have ended: their sockets close, their tokens open nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import jwt

from mdc.connect import forget_in_process, open_cache
from mdc.revoked import Revoked
from tests.wds.talk import Talk
from wds.access.keys import local_key
from wds.access.tokens import kid_of
from wds.server import Server

Token = Callable[..., str]


def with_session(run_dir: Path, token: str, session: str) -> str:
    """Return the same token as one of a session."""
    key = local_key(run_dir)
    body = jwt.decode(token, options={"verify_signature": False})
    return jwt.encode({**body, "sid": session}, key, algorithm="EdDSA", headers={"kid": kid_of(key.public_key())})


async def test_an_ended_session_closes_its_sockets_and_no_others(
    wds: Server, cache_url: str, token: Token, tmp_path: Path
) -> None:
    """4001, without a time to come back; another session of the same person and a script's token go on."""
    ended = await Talk.to(wds.port, with_session(tmp_path, token(), "s1"))
    other, script = await Talk.to(wds.port, with_session(tmp_path, token(), "s2")), await Talk.to(wds.port, token())
    for talk in (ended, other, script):
        await talk.ask(op="sub", ch=["quote:A"])
    await Revoked(open_cache(cache_url)).tell(["s1"])
    bye = await ended.find(t="bye")
    assert (bye["code"], "after_ms" in bye) == (4001, False)
    for talk in (other, script):
        assert (await talk.ask(op="get", ch=["quote:A"]))["id"]
        await talk.close()


async def test_a_token_of_an_ended_session_opens_nothing(wds: Server, cache_url: str, token: Token, tmp_path: Path) -> None:
    """Neither a new socket nor a running one's renewal; also when the cache was emptied and told again."""
    revoked = Revoked(open_cache(cache_url))
    await revoked.tell(["s1"])
    stolen = with_session(tmp_path, token(), "s1")
    await until_refused(wds, stolen)
    forget_in_process(cache_url)
    await Revoked(open_cache(cache_url)).tell(["s1"])
    await until_refused(wds, stolen)


async def until_refused(wds: Server, token: str) -> None:
    """Fail unless the token is refused soon after the cache was told: within two seconds on a quiet machine."""
    for _ in range(100):
        talk = await Talk.to(wds.port)
        reply = await talk.ask(op="auth", token=token)
        await talk.close()
        if reply.get("error"):
            assert reply["error"]["code"] == "unauthorized"
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the token of an ended session was taken")

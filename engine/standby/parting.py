"""Asks another engine whether it leads, and finds the last place that its journal and this one share.

Both journals are alike byte for byte up to there, names of segments included, so that one question a segment is enough: newest
first, until the other engine has one of that name which begins alike.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus, WebSocketException

from engine.journal.format import CHAIN_BYTES, START
from engine.journal.reader import segments
from engine.standby import frames
from engine.standby.frames import CHAINS, Refusal, Status, Trace, Unreadable
from engine.standby.line import CONNECT_S, Line, Refused, said_by
from engine.standby.source import links
from service.errors import OperatorError

ANSWER_S = 10.0  # a segment of a busy exchange has some hundred thousand groups


class Parting(NamedTuple):
    """The last place that two journals share: a segment of this one, its bytes up to there, the chain there, the other's term."""

    segment: Path
    size: int
    chain: bytes
    leader_term: int


class Away(Exception):
    """The other engine says nothing, or nothing that helps now; asked again it may."""


class NothingShared(OperatorError):
    """Two journals have no record in common that both still have."""

    def __init__(self, url: str) -> None:
        what = f"The journal of {url} and this one share no record that both still have: this one cannot be rewound"
        super().__init__(what, "Start with an empty ENGINE_DIR (keep a copy of this one)", 3)


async def leading(line: Line, name: str, term: int) -> Status | None:
    """Return the word of the engine there when it leads, None when it does not or says nothing.

    One that leads in a term before `term` hears of it, and stops.
    """
    try:
        async with asyncio.timeout(CONNECT_S), await line.connected() as socket:
            return (await _asked(socket, Trace(name, term)))[0]
    except (OSError, TimeoutError, WebSocketException, Unreadable, Refused):
        return None


async def parting(line: Line, name: str, term: int, journal: Path) -> Parting | None:
    """Return where this journal and that of the leader part, None when nothing was written here yet.

    Raises: Away, NothingShared, OSError of this disk.
    """
    own = await asyncio.to_thread(segments, journal)
    if not own:
        return None
    try:
        async with asyncio.timeout(CONNECT_S):
            socket = await line.connected()
        async with socket:
            for path in reversed(own):
                status, content = await _asked(socket, Trace(name, term, int(path.stem)))
                if status.term < term:
                    raise Away(f"{line.leader.url} leads in term {status.term}, and term {term} has begun")
                if found := await asyncio.to_thread(_shared, path, content):
                    if found[1] == START:
                        break
                    return Parting(path, *found, status.term)
    except InvalidStatus as error:
        raise Away(said_by(error)) from None
    except Refused as error:
        raise Away(error.refusal.detail) from None
    except (TimeoutError, WebSocketException, Unreadable, OSError) as error:
        raise Away(str(error) or f"{line.leader.url} says nothing") from None
    raise NothingShared(line.leader.url)


def _shared(path: Path, content: bytes) -> tuple[int, bytes] | None:
    """Return how many bytes of a segment the other one has as well, and the chain there; None when they begin differently."""
    theirs = (content[at : at + CHAIN_BYTES] for at in range(0, len(content), CHAIN_BYTES))
    found = None
    for (size, chain), other in zip(links(path), theirs, strict=False):
        if chain != other:
            break
        found = size, chain
    return found


async def _asked(socket: ClientConnection, trace: Trace) -> tuple[Status, bytes]:
    await socket.send(frames.encode(trace))
    async with asyncio.timeout(ANSWER_S):
        said = frames.from_leader(str(await socket.recv()))
        if isinstance(said, Refusal):
            raise Refused(said)
        content = await socket.recv()
    if not isinstance(said, Status) or not isinstance(content, bytes) or content[:1] != CHAINS:
        raise Unreadable("the leader does not say where the journals part: start the same version of both")
    return said, content[1:]

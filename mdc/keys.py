"""Spells the Redis keys; the one place that knows how.

In a cluster what `service/keyspace.py` says stands before each: the tag of a partition before what belongs to one, the shared tag
before everything else.
"""

from __future__ import annotations

from service import heartbeat
from service.partition import LAYOUT

EPOCH = "mdc:epoch"  # id of this life of the cache; gone when Redis was emptied
SERVER = "mdc:server"  # the server process (run_id) of this life
PARTITIONS = LAYOUT  # how many partitions the writers use
DEAD_LETTERS = "mdc:dead_letters"  # the last bad events, newest first
PLUGINS = "mdp:plugins"  # which plug-ins of the processors are off, and why
SINCE = "mdp:since"  # when a worker first saw this cache (ms)
ALL = -1  # in place of a partition: what belongs to none
WATCHED_NEWS = "mdc:watched_news"  # grows when somebody begins to watch something
COMPONENTS = heartbeat.KEY  # what every component says of itself, once a second
REVOKED = "scp:revoked"  # sessions that ended → until when their tokens could still be good


BOARD_VERSIONS = "part:board_versions"  # `partition board` → version of that partition's share of the board
FACTS = "mdp:facts"  # what is known of symbols for a trading day: which sheets there are


def facts(sheet: str, partition: int | str) -> str:
    """Hash: a partition's symbols of one sheet of facts, some in each field."""
    return f"facts:{sheet}:{partition}"


def document(channel: str) -> str:
    """A document (string), or the list of recent documents of an event channel."""
    return f"ch:{channel}"


def history(channel: str) -> str:
    """List of closed bars, oldest first."""
    return f"hist:{channel}"


def index(kind: str) -> str:
    """Set of the channels of a kind that were ever written."""
    return f"idx:{kind}"


def checkpoint(partition: int) -> str:
    """Hash: what the owner of a partition needs to go on where the last one stopped."""
    return f"cp:{partition}"


def watched(partition: int) -> str:
    """Sorted set: `kind symbol` of a partition's channels that somebody watches → when that ends (ms); `ALL`: of the boards."""
    return "watched:all" if partition == ALL else f"watched:{partition}"


def fence(partition: int) -> str:
    """Number that proves who owns a partition."""
    return f"fence:partition:{partition}"


OUT = "out"  # stream, in a cluster only: what a partition adds to channels that several write


def parts(what: str) -> str:
    """Hash partition → that partition's share of something merged (boards)."""
    return f"part:{what}"

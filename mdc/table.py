"""Writes the tables of mdc/README.md from the catalogue of channels and keys; a test keeps the two the same."""

from __future__ import annotations

from collections.abc import Iterable

from mdc import keys
from mdc.channels import FAMILIES, KINDS, SHARED, Kind
from mdc.writer import CHECKPOINT_MS

HOUR_MS = 3_600_000
KEYS = (
    (keys.document("{channel}"), "string", "kind", "the newest document of a merge or rows channel"),
    (keys.document("{channel}"), "list", "kind", "the newest documents of an event channel, oldest first"),
    (keys.history("{channel}"), "list", "kind", "closed bars `[t,open,high,low,close,volume,vwap,trades]`, oldest first"),
    (keys.index("{kind}"), "set", "", "names of the channels of a kind that were ever written (wildcards)"),
    ("seq:{channel}", "string", "", "last sequence number of a channel that several partitions write (group `shared`)"),
    ("cp:{partition}", "hash", "checkpoint", "`version life flush counts runs lags floor ahead position:… plugin:…`, cells"),
    (keys.parts("{what}"), "hash", "", "partition → its share of a board (`board:{name}`, `board_versions`) or the `counts`"),
    (keys.OUT, "stream", "checkpoint", "in a cluster: `c s d` (channel, ts, data) for channels that several partitions write"),
    (keys.DEAD_LETTERS, "list", "", "the newest 1000 bad events, newest first"),
    (keys.PLUGINS, "hash", "", "plug-in of the processors → `state why by at_ms`: that it is off, and who said so"),
    (keys.EPOCH, "string", "", "id of this life of the cache: another one means that it was emptied or rolled back"),
    (keys.SERVER, "string", "", "`run_id` of the server process of this life: a restart or fail-over begins a new one"),
    (keys.PARTITIONS, "string", "", "how many partitions the writers use"),
    ("watched:{partition}", "sorted set", "watched", "`kind symbol` of a watched channel (`all`: boards) → when that ends (ms)"),
    ("scp:revoked", "sorted set", "revoked", "session of the control plane that ended → until when it is told (ms)"),
    (keys.COMPONENTS, "hash", "components", "component → `at_ms seal beat`: what it last said of itself, and when"),
    (keys.WATCHED_NEWS, "string", "", "grows when somebody begins to watch something"),
    ("lease:partition:{partition}", "hash", "lease", "`holder`, `epoch` of who owns a partition"),
    ("fence:partition:{partition}", "string", "", "grows with every change of owner; an older number writes nothing"),
    ("mdp:workers", "sorted set", "", "worker → when its membership ends (ms)"),
    ("mdp:ranks", "sorted set", "", "the same workers by name: who is before whom"),
    ("mdp:held:{worker}", "set", "", "the partitions that a worker has claimed; their leases say whether it still owns them"),
    ("mdp:due", "sorted set", "", "partition → when to look again whether it is free (ms)"),
    ("mdp:since", "string", "", "when this cache was first seen by a worker (ms)"),
    (keys.FACTS, "hash", "", "`{trading day, ms}:past` (reference data) or `:today` (snapshot) → which sheet of facts there is"),
    (keys.facts("{sheet}", "{partition}"), "hash", "facts", "number → facts of up to 100 of the partition's symbols"),
    ("mdp:stats", "hash", "stats", "worker → what it said of its last second"),
)  # fmt: skip


def tables() -> str:
    """Return the tables of channels, fields and keys, as they stand in the README."""
    return "\n\n".join((_channels(), _fields(), _keys()))


def _channels() -> str:
    rows = ((f"`{_name(k)}`", k.mode, _lifetime(k.ttl_ms), str(k.keep or ""), _updates(k), k.about) for k in _all())
    return _table(("channel", "mode", "TTL", "keeps", "updates", "what it holds"), rows)


def _fields() -> str:
    return _table(("kind", "fields of `data`"), ((f"`{k.name}`", f"`{' '.join(k.fields)}`") for k in KINDS.values()))


def _keys() -> str:
    lifetimes = {
        "kind": "as its kind",
        "checkpoint": _lifetime(CHECKPOINT_MS),
        "lease": "2 s",
        "stats": "60 s",
        "facts": _lifetime(CHECKPOINT_MS),
        "watched": "15 s",
        "revoked": "1 h; `SCP_SESSION_S` with `WDS_COMPAT`",
        "components": "10 min",
        "": "none",
    }
    return _table(("key", "type", "TTL", "what it holds"), ((f"`{k}`", t, lifetimes[ttl], what) for k, t, ttl, what in KEYS))


def _all() -> tuple[Kind, ...]:
    return (*KINDS.values(), *FAMILIES.values())


def _name(kind: Kind) -> str:
    if kind.name in FAMILIES:
        return f"{kind.name}:PLUGIN:SYMBOL"
    return f"{kind.name}:{'|'.join(('SYMBOL', *kind.common) if kind.per_symbol else kind.names)}"


def _updates(kind: Kind) -> str:
    own = f"`up:{kind.group}:{{partition}}`" if kind.per_symbol else f"`{SHARED}`"
    return f"{own}; {' '.join(kind.common)}: `{SHARED}`" if kind.common else own


def _lifetime(ttl_ms: int) -> str:
    return f"{ttl_ms // HOUR_MS} h" if ttl_ms else "none"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])

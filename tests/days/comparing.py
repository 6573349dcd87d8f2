"""Compares what stands in the cache, and what was published, with what the oracle says; reads keys as mdc/README.md spells them."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from types import TracebackType
from typing import Any
from zlib import crc32

import redis

from tests.days.alerts import Alert
from tests.days.boards import NAMES
from tests.days.oracle import PARTITIONS, Oracle
from tests.days.windows import KEEPS

CHANNELS = ("alerts:range", "alerts:gap", "alerts:volume", "alerts:halts")
OF_QUOTES = ("bid", "ask", "bid_size", "ask_size", "spread", "ts")
BAR = ("t", "open", "high", "low", "close", "volume", "vwap", "trades")


# What a symbol says whose bands were those of a tape before this one.
CLEARED = {"state": "trading", "high_band": None, "low_band": None, "indicators": [], "ts": 0}


class Listening:
    """Keeps every alert that is published, from `with` on."""

    def __init__(self, url: str) -> None:
        self._redis: Any = redis.Redis.from_url(url)
        self._pubsub = self._redis.pubsub()
        self._docs: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Listening:
        self._pubsub.subscribe("up:shared:0")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        self._pubsub.close()
        self._redis.close()

    def _listen(self) -> None:
        while not self._over.is_set():
            message = self._pubsub.get_message(timeout=0.1)
            if message is not None and message["type"] == "message":
                for doc in json.loads(message["data"]):
                    if doc["ch"] in CHANNELS:
                        self._docs[doc["ch"]].append(doc)

    def since(self, before: dict[str, int]) -> dict[str, list[dict[str, Any]]]:
        """Return channel → documents after the first so many."""
        return {channel: self._docs[channel][before.get(channel, 0) :] for channel in CHANNELS}

    def counts(self) -> dict[str, int]:
        """Return channel → how many documents have come."""
        return {channel: len(self._docs[channel]) for channel in CHANNELS}


def _read(cache: Any, keys: list[str]) -> dict[str, Any]:
    bodies = []
    for n in range(0, len(keys), 500):
        bodies += cache.mget(keys[n : n + 500])
    return {key: None if body is None else json.loads(body)["data"] for key, body in zip(keys, bodies, strict=True)}


def _lists(cache: Any, keys: list[str], newest: dict[str, int]) -> dict[str, list[Any]]:
    found = {}
    for n in range(0, len(keys), 500):
        pipe = cache.pipeline(transaction=False)
        for key in keys[n : n + 500]:
            pipe.lrange(key, -newest[key], -1)
        found.update(zip(keys[n : n + 500], pipe.execute(), strict=True))
    return {key: [json.loads(body) for body in bodies] for key, bodies in found.items()}


def of_symbols(cache: Any, oracle: Oracle, sides: bool = True) -> list[str]:
    """Return every difference in the quotes, statistics, prints, halts and bars of all symbols.

    Without `sides` what was bought and sold is left out: who took is told by the quotes that have come, on a queue of their own.
    """
    names = list(oracle.symbols)
    states = {name: state for partition in oracle.partitions for name, state in partition.halts.states.items()}
    documents = _read(cache, [f"ch:{kind}:{name}" for kind in ("quote", "stats", "halts") for name in names])
    prints = _lists(cache, [f"ch:trades:{name}" for name in names], {f"ch:trades:{name}": 200 for name in names})
    found: list[str] = []
    for name, quote in oracle.quotes().items():
        found += _fields(f"quote:{name}", documents[f"ch:quote:{name}"], quote)
        windows = oracle.symbols[name].windows
        stats = windows.told(oracle.slice_ms) if windows.trades else None
        if stats is not None and stats["trades_60m"]:
            stats["ts"] = oracle.slice_ms
        if stats is not None and not sides:
            stats = {field: value for field, value in stats.items() if not field.startswith(("bought", "sold"))}
        found += _fields(f"stats:{name}", documents[f"ch:stats:{name}"], stats)
        bands = documents[f"ch:halts:{name}"]
        found += _fields(f"halts:{name}", None if bands == CLEARED and name not in states else bands, states.get(name))
        got = [doc["data"] for doc in prints[f"ch:trades:{name}"]]
        if got != (wanted := oracle.last_prints(name)):
            found.append(f"trades:{name}: {len(got)} {got[-2:]} is not {len(wanted)} {wanted[-2:]}")
    return found + _of_bars(cache, oracle, names)


def _of_bars(cache: Any, oracle: Oracle, names: list[str]) -> list[str]:
    keys = [f"bars:{width}:{name}" for width in KEEPS for name in names]
    current = _read(cache, [f"ch:{key}" for key in keys])
    newest = {f"hist:{key}": KEEPS[key.split(":")[1]] for key in keys}
    histories = _lists(cache, list(newest), newest)
    found = []
    for name in names:
        for width, rows in oracle.symbols[name].histories().items():
            key = f"bars:{width}:{name}"
            bar, history = current[f"ch:{key}"], histories[f"hist:{key}"]
            got = history + ([] if bar is None else [[bar[field] for field in BAR]])
            if got == rows:
                if bar is not None and bar["prev"] != (history[-1] if history else None):
                    found.append(f"{key}: prev {bar['prev']} is not the newest of the history")
                continue
            wrong = [(one, other) for one, other in zip(got, rows, strict=False) if one != other]
            found.append(
                f"{key}: {len(got)} bars, not {len(rows)}" if len(got) != len(rows) else f"{key}: {wrong[0]} of {len(wrong)}"
            )
    return found


def _fields(what: str, got: dict[str, Any] | None, wanted: dict[str, Any] | None) -> list[str]:
    if got is None or wanted is None:
        return [] if got is wanted else [f"{what}: {got} is not {wanted}"]
    return [f"{what}.{field}: {got.get(field)} is not {value}" for field, value in wanted.items() if got.get(field) != value]


def of_boards(cache: Any, oracle: Oracle) -> list[str]:
    """Return every difference in the thirteen boards."""
    documents = _read(cache, [f"ch:board:{name}" for name in NAMES])
    found = []
    for name, (order, rows) in oracle.boards().items():
        got = documents[f"ch:board:{name}"] or {"order": [], "rows": {}}
        if got["order"] != order:
            at = next((n for n, pair in enumerate(zip(got["order"], order, strict=False)) if pair[0] != pair[1]), -1)
            found.append(
                f"board:{name}: {len(got['order'])} rows, not {len(order)}; from {at}: {got['order'][at:][:3]} {order[at:][:3]}"
            )
        for symbol, row in rows.items():
            found += _fields(f"board:{name} {symbol}", got["rows"].get(symbol), row)
    return found


def of_alerts(told: dict[str, list[dict[str, Any]]], oracle: Oracle) -> list[str]:
    """Return every difference in the alerts: each once, those of a partition in their order, with what they say."""
    found = []
    for channel in CHANNELS:
        docs = told[channel]
        numbers = [doc["seq"] for doc in docs]
        if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            found.append(f"{channel}: its documents are not numbered one by one")
        for number in range(PARTITIONS):
            got = [doc["data"] for doc in docs if crc32(doc["data"]["sym"].encode()) % PARTITIONS == number]
            found += _of_partition(f"{channel} of {number}", got, oracle.partitions[number].alerts[channel])
    return found


def _of_partition(what: str, got: list[Alert], wanted: list[Alert]) -> list[str]:
    found: list[str] = []
    names = [[(one["sym"], one["kind"], one["ts"]) for one in alerts] for alerts in (got, wanted)]
    if names[0] != names[1]:
        at = next((n for n, pair in enumerate(zip(*names, strict=False)) if pair[0] != pair[1]), min(map(len, names)))
        more, less = (sorted(set(names[n]) - set(names[1 - n]))[:3] for n in (0, 1))
        return [
            f"{what}: {len(got)}, not {len(wanted)}; at {at} {names[0][at : at + 2]} {names[1][at : at + 2]}; only told {more}; missing {less}"
        ]
    for one, other in zip(got, wanted, strict=True):
        said = {field: value for field, value in other.items() if field != "quote"}
        found += _fields(f"{what} {one['sym']} {one['ts']}", one, said)
        found += _fields(f"{what} {one['sym']} {one['ts']} quote", one["quote"] if "quote" in other else None, other.get("quote"))
    return found


def of_lists(cache: Any, told: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return the channels whose list in the cache is not the newest of what was published."""
    kept = {channel: [json.loads(body) for body in cache.lrange(f"ch:{channel}", -1000, -1)] for channel in CHANNELS}
    return [channel for channel in CHANNELS if kept[channel] != told[channel][-1000:]]


def by_partition(told: dict[str, list[dict[str, Any]]]) -> dict[tuple[str, int], list[Alert]]:
    """Return (channel, partition) → what alerts say, without what of another queue was known in the moment."""
    found: dict[tuple[str, int], list[Alert]] = defaultdict(list)
    for channel, docs in told.items():
        for alert in (doc["data"] for doc in docs):
            said = {name: value for name, value in (alert["quote"] or {}).items() if name not in OF_QUOTES}
            if channel == "alerts:halts":
                alert, said = {name: value for name, value in alert.items() if name not in ("price", "session")}, {}
            found[channel, crc32(alert["sym"].encode()) % PARTITIONS].append(alert | {"quote": said})
    return found

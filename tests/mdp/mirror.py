"""Shows what a cache would hold after flushes: scripts/flush.lua again, in plain Python and with assertions."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from mdc.writer import Flush


class Mirror:
    """One partition's view of the cache. Every document is checked: sequence, epoch, JSON."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.log: list[dict[str, Any]] = []
        self.history: defaultdict[str, list[list[Any]]] = defaultdict(list)
        self.cells: dict[bytes, bytes] = {}
        self.shares: dict[str, bytes] = {}
        self.index: set[str] = set()
        self.letters: list[dict[str, Any]] = []
        self.shared: list[tuple[str, int, Any]] = []
        self.gone: dict[str, int] = {}  # channel that was taken out → its last number
        self.removed: list[str] = []
        self.kept: list[str] = []
        self.flushes = 0
        self.epoch = ""

    @property
    def floor(self) -> int:
        """Where new channels begin to count."""
        return int(self.cells.get(b"floor", b"0"))

    def apply(self, flush: Flush | None, number: int = 0) -> None:
        """Take a flush as the script would."""
        if flush is None:
            return
        self.flushes += 1
        args = iter(flush.arguments(1, number or self.flushes))
        _, epoch, number, start_over, _ = (next(args) for _ in range(5))
        if start_over or epoch != self.epoch:
            self.cells.clear()
        self.epoch = epoch
        self._remove(args)
        for _ in range(next(args)):
            _, _, ttl_ms, count = (next(args) for _ in range(4))
            assert ttl_ms > 0
            for _ in range(count):
                self._take(next(args), next(args), epoch)
        for _ in range(next(args)):
            self._history(*(next(args) for _ in range(5)))
        self.cells |= {b"flush": b"%d" % number, b"life": epoch.encode()}
        for _ in range(next(args)):
            field, value = next(args), next(args)
            self.cells[field.encode()] = value if isinstance(value, bytes) else str(value).encode()
        for _ in range(next(args)):
            what, _, value = (next(args) for _ in range(3))
            self.shares[what.removeprefix("part:")] = value
        for _ in range(next(args)):
            self.index.add(f"{next(args)}/{next(args)}")
        self.letters += [json.loads(next(args)) for _ in range(next(args))]
        for _ in range(next(args)):
            channel, _, _, ts, data = (next(args) for _ in range(5))
            self.shared.append((channel, ts, json.loads(data)))
        assert next(args, None) is None

    def _remove(self, args: Iterator[Any]) -> None:
        for _ in range(next(args)):
            key = next(args)
            self.removed.append(key)
            kind, _, channel = key.partition(":")
            if kind == "hist":
                self.history.pop(channel, None)
            elif channel in self.documents:
                self.gone[channel] = self.documents.pop(channel)["seq"]
                self.log = [doc for doc in self.log if doc["ch"] != channel]
        for _ in range(next(args)):
            self.index.discard(f"{next(args)}/{next(args)}")
        for _ in range(next(args)):
            self.cells.pop(next(args).encode(), None)
        self.kept += [next(args) for _ in range(next(args))]

    def data(self, channel: str) -> Any:
        """Return the newest data of a channel."""
        return self.documents[channel]["data"]

    def channels(self, kind: str) -> dict[str, Any]:
        """Return name → newest data of a kind's channels."""
        return {ch.removeprefix(f"{kind}:"): doc["data"] for ch, doc in self.documents.items() if ch.startswith(f"{kind}:")}

    def events(self, channel: str) -> list[Any]:
        """Return the data of every document of a channel, in order."""
        return [doc["data"] for doc in self.log if doc["ch"] == channel]

    def versions(self) -> dict[str, tuple[int, Any]]:
        """Return channel → (seq, newest data): what two equal runs must share."""
        return {channel: (doc["seq"], doc["data"]) for channel, doc in self.documents.items()}

    def _take(self, key: str, body: bytes, epoch: str) -> None:
        doc = json.loads(body)
        before = self.documents.get(doc["ch"])
        assert key == f"ch:{doc['ch']}"
        assert list(doc) == ["ch", "src", "epoch", "seq", "ts", "data"]
        assert doc["epoch"] == epoch
        if doc["ch"] in self.gone:
            assert doc["seq"] > self.gone.pop(doc["ch"]), "a number that was given before"
        else:
            assert doc["seq"] == before["seq"] + 1 if before else doc["seq"] > self.floor, (doc, before)
        self.documents[doc["ch"]] = doc
        self.log.append(doc)

    def _history(self, key: str, drop: int, value: bytes, keep: int, ttl_ms: int) -> None:
        assert ttl_ms > 0
        rows = self.history[key.removeprefix("hist:")]
        if drop > 0:
            del rows[-drop:]
        while drop < 0 and rows and rows[-1][0] >= -drop:
            del rows[-1]
        if value:
            rows.append(json.loads(value))
            assert [row[0] for row in rows] == sorted({row[0] for row in rows}), "bars in order, each once"
        del rows[: max(0, len(rows) - keep)]

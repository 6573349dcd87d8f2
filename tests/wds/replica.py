"""Keeps what a careful client would show, and fails on the first break of the chain: a gap or a repeat."""

from __future__ import annotations

import json
from typing import Any


class Replica:
    """One client's copy of its channels, kept by nothing but the frames it gets."""

    def __init__(self) -> None:
        self.epoch: dict[str, str] = {}
        self.seq: dict[str, int] = {}
        self.state: dict[str, Any] = {}
        self.status: dict[str, str] = {}
        self.lost: dict[str, int] = {}
        self.events: dict[str, list[int]] = {}  # seqs of events that came one by one since the last snap
        self.frames = 0

    def take(self, payload: bytes) -> None:
        """Take one or more frames, a line each."""
        for line in payload.splitlines():
            frame = json.loads(line)
            for item in frame if isinstance(frame, list) else [frame]:
                if "ch" not in item:
                    continue  # pings and the like
                self.frames += 1
                getattr(self, "_" + item["t"])(item["ch"], item)

    def resumes_at(self, channel: str, epoch: str, seq: int, state: Any) -> None:
        self.epoch[channel], self.seq[channel], self.state[channel] = epoch, seq, state

    def forget(self, channel: str) -> None:
        for kept in (self.epoch, self.seq, self.state, self.events):
            kept.pop(channel, None)

    def _snap(self, ch: str, item: Any) -> None:
        self.epoch[ch], self.seq[ch], self.state[ch] = item["epoch"], item["seq"], item["data"]
        if isinstance(item["data"], dict):
            item["data"].pop("history", None)
        self.events[ch] = []

    def _chain(self, ch: str, item: Any) -> None:
        assert self.seq.get(ch) == item["prev"], f"{ch}: stands at {self.seq.get(ch)}, frame continues {item['prev']}"
        assert item["seq"] > item["prev"]
        self.seq[ch] = item["seq"]

    def _upd(self, ch: str, item: Any) -> None:
        self._chain(ch, item)
        self.state[ch] = {**self.state[ch], **item["data"]}

    def _rows(self, ch: str, item: Any) -> None:
        self._chain(ch, item)
        board = self.state[ch]
        rows = {**board["rows"], **item["set"]}
        for gone in item.get("del", ()):
            del rows[gone]
        order = item.get("order", board["order"])
        self.state[ch] = {"order": order, "rows": {sym: rows[sym] for sym in order}}

    def _event(self, ch: str, item: Any) -> None:
        self._chain(ch, item)
        assert item["seq"] == item["prev"] + 1
        self.state[ch] = [*self.state[ch], item["data"]]
        self.events.setdefault(ch, []).append(item["seq"])

    def _lost(self, ch: str, item: Any) -> None:
        assert item["n"] > 0
        self.seq[ch] += item["n"]
        self.lost[ch] = self.lost.get(ch, 0) + item["n"]

    def _status(self, ch: str, item: Any) -> None:
        self.status[ch] = item["state"]

"""Serves a WDS-protocol stream of made-up quotes, from a seed, at a given rate: load and looks for the page's tests.

It answers like WDS but checks nothing; the page's life with the real one is tests/live/page/test_desk.py's subject.
Run it by itself: python -m tests.scp.stand_in PORT [SYMBOLS] [UPDATES_S]; at 0 updates a second nothing moves at all, and the
pipeline goes on to report. Each SIGUSR1 breaks a partition off, or mends it.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from service.partition import partition_of

TICK_S = 0.05
PARTITIONS = 8
BREAKS = 1  # the partition that breaks off; BTC-PERP is in it
ODD = {"SKL-USD": (0.00001302, 1e-8), "USD/EUR": (1.08345, 1e-5), "BTC-PERP": (60_000.0, 0.5), "ETH-PERP": (3_000.0, 0.05)}
WITH_BOOKS = ("BTC-PERP", "ETH-PERP")
LEVELS = 20
HALTED = "TSLA"
ALERTS = {
    "range": ("new_high", "new_low"), "gap": ("gap_up", "gap_down"), "volume": ("surge", "rel_volume"), "news": ("news_high", "news"), "halts": ("halted", "resumed"),
}  # fmt: skip
EPOCH = "k1"


class Market:
    """A seeded walk of symbols with their boards, bars, prints and alerts. Documents are plain dicts."""

    def __init__(self, symbols: int, seed: int = 7) -> None:
        self.dice = random.Random(seed)
        self.quotes = {name: self._open(name) for name in _names(symbols, self.dice)}
        self.names = list(self.quotes)
        self.seq = dict.fromkeys(self.names, 1)
        self.next = 0
        self.resting: dict[tuple[str, str, int], float] = {}
        self.broken: set[int] = set()

    def break_off(self) -> None:
        """Let a partition stand still, or go on."""
        self.broken ^= {BREAKS}

    def stands(self, channel: str) -> bool:
        """Tell whether the channel is one symbol's, and of a partition that stands still."""
        name = channel.rpartition(":")[2]
        return bool(self.broken) and name in self.quotes and partition_of(name, PARTITIONS) in self.broken

    def status(self, channel: str) -> dict[str, Any]:
        """Return the status frame of a channel; boards and alerts suffer from every partition that stands still."""
        shared = channel.startswith(("board:", "alerts:")) and self.broken
        if not shared and not self.stands(channel):
            return {"t": "status", "ch": channel, "state": "live"}
        named = ", ".join(map(str, self.broken))
        return {"t": "status", "ch": channel, "state": "stale", "reason": f"processors do not read partition {named}"}

    def pipeline(self, events_s: int) -> dict[str, Any]:
        """Return the document of status:pipeline."""
        stale = sorted(self.broken)
        listener = {"state": "live", "feed": "simulator", "dropped_events": 0, "malformed": 0}
        source = {"state": "live", "reason": "", "stale_partitions": stale, "expired_events": 0, "listener": listener}
        return {
            "sources": {"simulator": source},
            "processors": {
                "events_s": events_s * 3, "lag_ms": 7, "flush_ms": 2.1, "stale_partitions": stale, "partitions_expected": PARTITIONS,
            },
            "ts": int(time.time() * 1000),
        }  # fmt: skip

    def _open(self, name: str) -> dict[str, Any]:
        prev, tick = ODD.get(name) or (round(self.dice.uniform(4, 900), 2), 0.01)
        last = prev + tick * round(prev * self.dice.gauss(0, 0.02) / tick)
        quote = {
            "prev_close": prev,
            "open": last,
            "high": last,
            "low": last,
            "volume": self.dice.randrange(10**3, 10**7),
            "tick": tick,
        }
        return (
            quote
            | {"last": last, "trades": self.dice.randrange(10, 9000), "session": "regular"}
            | self._around(name, last, prev, tick)
        )

    def _around(self, name: str, last: float, prev: float, tick: float) -> dict[str, Any]:
        spread = tick * self.dice.randint(1, 3)
        if name in WITH_BOOKS:
            sizes: dict[str, float] = {side: round(self.dice.uniform(0.001, 4), 3) for side in ("bid_size", "ask_size")}
        else:
            sizes = {side: self.dice.randint(1, 40) * 100 for side in ("bid_size", "ask_size")}
        return sizes | {
            "bid": round(last - spread, 8), "ask": round(last + spread, 8), "vwap": round(last * 0.999, 8),
            "change": round(last - prev, 8), "change_pct": round((last / prev - 1) * 100, 4),
        }  # fmt: skip

    def move(self) -> tuple[str, dict[str, Any]]:
        """Move the next symbol that does not stand still by a few ticks; return its name and the changed fields."""
        while self.stands(name := self.names[self.next % len(self.names)]):
            self.next += 1
        self.next += 1
        quote = self.quotes[name]
        last = round(max(quote["tick"], quote["last"] + quote["tick"] * self.dice.choice((-2, -1, -1, 0, 1, 1, 2))), 8)
        changed = {"last": last, "volume": quote["volume"] + 100, "trades": quote["trades"] + 1, "ts": int(time.time() * 1000)}
        changed |= {"high": max(quote["high"], last), "low": min(quote["low"], last)} | self._around(
            name, last, quote["prev_close"], quote["tick"]
        )
        quote |= changed
        return name, changed

    def book(self, name: str) -> dict[str, Any]:
        """Return twenty levels a side around the quote; a few change each time."""
        quote, tick = self.quotes[name], self.quotes[name]["tick"]
        sides = {
            side: [[round(quote[best] + sign * tick * n, 8), self._resting(name, side, n)] for n in range(LEVELS)]
            for side, best, sign in (("bids", "bid", -1), ("asks", "ask", 1))
        }
        top = {"bid": quote["bid"], "ask": quote["ask"], "spread": round(quote["ask"] - quote["bid"], 8)}
        return sides | top | {"ts": int(time.time() * 1000)}

    def _resting(self, name: str, side: str, level: int) -> float:
        key = (name, side, level)
        if key not in self.resting or self.dice.random() < 0.15:
            self.resting[key] = round(self.dice.lognormvariate(0.3 + level / 12, 0.9), 3)
        return self.resting[key]

    def board(self, name: str) -> dict[str, Any]:
        """Return a board's document."""
        by = "volume" if name == "volume" else "change_pct"
        order = sorted(self.names, key=lambda symbol: self.quotes[symbol][by], reverse=name != "losers")[:50]
        keep = ("last", "change", "change_pct", "volume")
        rows = {s: {"sym": s} | {k: self.quotes[s][k] for k in keep} for s in order}
        for s in order:
            rows[s]["gap_pct"] = round((self.quotes[s]["open"] / self.quotes[s]["prev_close"] - 1) * 100, 3)
        return {"order": order, "rows": rows}


def _names(n: int, dice: random.Random) -> list[str]:
    known = ["AAPL", "MSFT", "NVDA", "TSLA", "AMD", "SKL-USD", "USD/EUR", "ESH4", "BRK.B", *WITH_BOOKS]
    while len(known) < n:
        name = "".join(dice.choices("ABCDEFGHIJKLMNOPRSTUVWXYZ", k=dice.choice((3, 4, 4))))
        if name not in known:
            known.append(name)
    return known[:n]


class Session:
    """One connected page."""

    def __init__(self, connection: ServerConnection, market: Market, updates_s: int) -> None:
        self.connection = connection
        self.market = market
        self.updates_s = updates_s
        self.channels: set[str] = set()
        self.seqs: dict[str, int] = {}
        self.bars: dict[str, list[Any]] = {}
        self.paused = False
        self.broken: frozenset[int] = frozenset()  # as the page was told

    async def run(self) -> None:
        """Greet, then answer commands and push until the page goes."""
        await self.send([{"t": "hello", "v": 1, "conn": "1", "ping_s": 20, "limits": {"subs": 20000, "bytes": 16384}}])
        pushing = asyncio.create_task(self.push())
        try:
            async for message in self.connection:
                commands = json.loads(message)
                for command in commands if isinstance(commands, list) else [commands]:
                    await self.answer(command)
        finally:
            pushing.cancel()

    async def send(self, frames: list[dict[str, Any]]) -> None:
        if frames:
            await self.connection.send(json.dumps(frames))

    async def answer(self, command: dict[str, Any]) -> None:
        """Do one command."""
        op, channels = command["op"], command.get("ch", [])
        reply: dict[str, Any] = {"id": command["id"], "ok": True} if "id" in command else {}
        if op == "auth":
            reply["expires_s"] = 600
        if op == "set":
            self.paused = command.get("paused", self.paused)
        if op == "unsub":
            self.channels.difference_update(channels)
        asked = [name for pattern in channels for name in self.expand(pattern)]
        names = [name for name in asked if self.exists(name)]
        if op == "sub":
            self.channels.update(names)
            patterns = [name for name in channels if name.endswith(":*")]
            reply["subs"] = [{"ch": name, "hz": 4} for name in asked]
            reply["subs"] += [{"ch": name, "hz": 4, "matched": len(self.expand(name))} for name in patterns]
        snaps = [self.snap(name) for name in names if op in ("sub", "get")]
        if op == "get":
            reply["snaps"], snaps = [{k: v for k, v in snap.items() if k != "t"} for snap in snaps], []
            nothing = {"code": "unavailable", "message": "no data yet", "retry": True}
            reply["snaps"] += [{"ch": name, "error": nothing} for name in asked if name not in names]
        await self.send([reply] if reply else [])
        for at in range(0, len(snaps), 200):
            await self.send(snaps[at : at + 200])
        await self.send([self.market.status(name) for name in names if op == "sub"])

    def exists(self, channel: str) -> bool:
        """Tell whether there is anything in a channel: of a symbol that nobody quotes there is not."""
        return (
            channel.startswith(("board:", "alerts:", "status:", "news:latest"))
            or channel.rpartition(":")[2] in self.market.quotes
        )

    def expand(self, pattern: str) -> list[str]:
        """Return the channels of a name or `kind:*`."""
        if pattern == "quote:*":
            return [f"quote:{name}" for name in self.market.names]
        if pattern == "halts:*":
            return [f"halts:{name}" for name in self.market.names[:9]]
        if pattern.startswith("book:"):
            books = [f"book:{name}" for name in WITH_BOOKS if name in self.market.quotes]
            return books if pattern == "book:*" else [name for name in books if name == pattern]
        if pattern == "board:*":
            return [f"board:{name}" for name in ("volume", "gainers", "losers", "gappers")]
        return [pattern]

    def snap(self, channel: str) -> dict[str, Any]:
        """Return the channel's snapshot frame."""
        self.seqs.setdefault(channel, 1)
        return self.frame("snap", channel, self.data(channel), epoch=EPOCH)

    def frame(self, t: str, channel: str, data: Any, **more: Any) -> dict[str, Any]:
        return {"t": t, "ch": channel, "seq": self.seqs[channel], "ts": int(time.time() * 1000), "data": data} | more

    def data(self, channel: str) -> Any:
        """Return what a snapshot holds."""
        kind, _, name = channel.partition(":")
        if kind == "quote":
            return self.market.quotes[name]
        if kind == "board":
            return self.market.board(name)
        if kind == "book":
            return self.market.book(name)
        if kind == "status":
            return self.market.pipeline(self.updates_s)
        if kind == "bars":
            return self.first_bars(channel)
        if kind == "halts":
            bands = {"low_band": 1.0, "high_band": 999.0, "ts": int(time.time() * 1000)}
            return {"state": "halted" if name == HALTED else "trading"} | bands
        return [self.article(n, name) for n in range(3)] if kind == "news" else []

    def article(self, number: int, name: str) -> dict[str, Any]:
        """Return an article, as hostile as a source may be; one of a symbol names it, too."""
        named = self.market.names[:6] if name == "latest" else [name]
        urls = ("https://news.example.com/1", "javascript:alert(1)", "")
        return {
            "id": f"{name}-{number}", "title": f"<img src=x onerror=alert({number})> {name} rises", "url": urls[number % 3],
            "source": "Wire <b>", "summary": "<script>alert(1)</script>", "tickers": named, "more": 14 * (number % 2),
            "ts": int(time.time() * 1000) - number % 3 * 3_600_000,
        }  # fmt: skip

    def first_bars(self, channel: str) -> dict[str, Any]:
        """Return history of a walk that ends at the last price."""
        _, length, name = channel.split(":", 2)
        step = 1000 if length == "1s" else 60_000
        quote, now = self.market.quotes[name], int(time.time() * 1000)
        price, tick, bars = quote["last"], quote["tick"], []
        for back in range(1, 119):
            close, price = price, round(price + tick * self.market.dice.randint(-9, 9), 8)
            high, low = max(price, close) + tick * 3, min(price, close) - tick * 3
            bars.append(
                [now // step * step - back * step, price, high, low, close, self.market.dice.randint(100, 9000), close, 9]
            )
        self.bars[channel] = [118, now // step * step, quote["last"], quote["last"], quote["last"], quote["last"], 100]
        return self.bar(channel, None) | {"history": bars[::-1]}

    def bar(self, channel: str, prev: Any) -> dict[str, Any]:
        i, t, o, h, low, c, v = self.bars[channel]
        return {
            "t": t,
            "open": o,
            "high": h,
            "low": low,
            "close": c,
            "volume": v,
            "vwap": c,
            "trades": 5,
            "i": i,
            "prev": prev,
            "rev": 0,
        }

    async def push(self) -> None:
        """Send what moved, every 50 ms; boards, alerts and status less often."""
        sent, started, tick = 0, time.monotonic(), 0
        while True:
            tick += 1
            due = int((time.monotonic() - started) * self.updates_s) - sent
            sent += due
            frames = [frame for _ in range(due) if (frame := self.moved(*self.market.move())) is not None]
            frames += self.slow(tick) + self.news()
            if not self.paused:
                await self.send(frames)
            await asyncio.sleep(max(0.0, started + tick * TICK_S - time.monotonic()))

    def news(self) -> list[dict[str, Any]]:
        """Return the states of all channels when a partition broke off or came back."""
        if self.broken == self.market.broken:
            return []
        self.broken = frozenset(self.market.broken)
        return [self.market.status(channel) for channel in sorted(self.channels)]

    def moved(self, name: str, changed: dict[str, Any]) -> dict[str, Any] | None:
        channel = f"quote:{name}"
        return self.next_frame("upd", channel, changed) if channel in self.channels else None

    def next_frame(self, t: str, channel: str, data: Any, **more: Any) -> dict[str, Any]:
        prev = self.seqs[channel]
        self.seqs[channel] = prev + 1
        return self.frame(t, channel, data, prev=prev, **more)

    def slow(self, tick: int) -> list[dict[str, Any]]:
        """Return boards 2×/s, prints and alerts and bars 4×/s, status 1×/s."""
        frames = []
        for channel in sorted(self.channels):
            kind, _, name = channel.partition(":")
            if self.market.stands(channel) or (self.updates_s == 0 and kind != "status"):
                continue
            if kind == "board" and tick % 10 == 0:
                board = self.market.board(name)
                frame = self.next_frame("rows", channel, None, set=board["rows"], order=board["order"])
                del frame["data"]
                frames.append(frame)
            elif kind == "book" and tick % 2 == 0:
                frames.append(self.next_frame("upd", channel, self.market.book(name)))
            elif kind == "trades" and tick % 5 == 0:
                frames.append(self.next_frame("event", channel, self.print(name)))
            elif kind == "alerts" and tick % 5 == 0:
                frames.append(self.next_frame("event", channel, self.alert(name)))
            elif kind == "news" and tick % 40 == 0:
                frames.append(self.next_frame("event", channel, self.article(3 * tick, name)))
            elif kind == "bars" and tick % 5 == 0:
                frames.append(self.next_frame("upd", channel, self.grow(channel)))
            elif kind == "status" and tick % 20 == 0:
                frames.append(self.next_frame("upd", channel, self.market.pipeline(self.updates_s)))
        return frames

    def print(self, name: str) -> dict[str, Any]:
        price = self.market.quotes[name]["last"]
        conditions = self.market.dice.choice(([], [37], [12, 37]))
        size = round(self.market.dice.lognormvariate(-2, 1.2) + 0.001, 3) if name in WITH_BOOKS else 100
        return {"price": price, "size": size, "ts": int(time.time() * 1000), "exchange": 4, "conditions": conditions, "id": "1"}

    def alert(self, channel: str) -> dict[str, Any]:
        name = self.market.dice.choice(self.market.names)
        quote, kind = self.market.quotes[name], self.market.dice.choice(ALERTS[channel])
        said = {"session": "regular", "note": f"{kind.replace('_', ' ')} of {quote['last']}", "ts": int(time.time() * 1000)}
        return {"sym": name, "kind": kind, "price": quote["last"], "prev": quote["open"], "value": 5, **said}

    def grow(self, channel: str) -> dict[str, Any]:
        bar, (_, length, name) = self.bars[channel], channel.split(":", 2)
        step, now, last = 1000 if length == "1s" else 60_000, int(time.time() * 1000), self.market.quotes[name]["last"]
        prev = None
        if now - bar[1] >= step:
            prev = [*bar[1:7], bar[5], 5]
            bar[:] = [bar[0] + 1, now // step * step, last, last, last, last, 0]
        bar[3:] = [max(bar[3], last), min(bar[4], last), last, bar[6] + 100]
        return self.bar(channel, prev)


async def run(port: int, symbols: int, updates_s: int) -> None:
    """Serve until cancelled."""
    market = Market(symbols)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, market.break_off)
    async with serve(
        lambda c: Session(c, market, updates_s).run(),
        "127.0.0.1",
        port,
        subprotocols=[Subprotocol("wds.v1.json")],
        compression=None,
    ) as server:
        await server.serve_forever()


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    asyncio.run(run(*(given + [8400, 1250, 5000][len(given) :])))

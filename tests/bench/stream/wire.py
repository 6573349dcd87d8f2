"""How many bytes do the forms of the protocol take for the same quotes, and what does compressing them cost?

A tape is played through the real processors, flushed every 100 ms of its own time, and their quote documents through the real hub to
one member a form, all quotes at 4 Hz. `upd_bytes` are of single updates without what joins them; `page_bytes` are whole writes of a
page of all symbols, a tick's updates together, as the socket takes them. Without sockets; one process.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Raw

from mdc.documents import Doc
from mdp import roster
from mdp.partitions.partition import Partition
from mdq.batch import Batch
from service.partition import partition_of
from tests.mdp.mirror import Mirror
from wds.fanout.framing import deflated_frame, text_frame
from wds.fanout.freshness import Freshness
from wds.fanout.hub import Hub
from wds.fanout.member import Member, Want
from wds.fanout.outbox import Ladder
from wds.protocol import PHASES

ROOT = Path(__file__).resolve().parents[3]
PARTITIONS = 8
FLUSH_MS = 100
WALL_NS = 1_800_000_000_000_000_000
STREAMS = {"T": "trades", "XT": "trades", "Q": "quotes", "XQ": "quotes"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tape", type=Path, help="a recording (.ndjson, .ndjson.gz); default: one of the simulator")
    parser.add_argument("--symbols", type=int, default=1000)
    parser.add_argument("--events", type=int, default=150_000)
    parser.add_argument("--tiny", action="store_true", help="a moment of a few symbols: that it runs, not what it says")
    given = parser.parse_args()
    if given.tiny:
        given.symbols, given.events = 50, 12_000
    with tempfile.TemporaryDirectory() as folder:
        path = given.tape or simulated(Path(folder) / "tape.ndjson", given.symbols, given.events)
        workload = {
            "tape": given.tape.name if given.tape else "simulator",
            "symbols": given.symbols,
            "events": given.events,
            "hz": 4,
        }
        for figure, value, unit in figures(path):
            line = {"bench": "wire", "figure": figure, "value": round(value, 4), "unit": unit, "workload": workload}
            print(json.dumps(line), flush=True)


def simulated(path: Path, symbols: int, events: int) -> Path:
    """Write a tape of the simulator."""
    argv = ["mdl", "tape", "--symbols", str(symbols), "--seed", "7", "--events", str(events), "--quotes", "0.7", str(path)]
    subprocess.run([sys.executable, "-m", *argv], cwd=ROOT, check=True, stdout=sys.stderr)
    return path


def figures(path: Path) -> Iterator[tuple[str, float, str]]:
    """Play the tape; yield figure, value, unit."""
    written = play(path)
    per_update = {form: tally["single"] / tally["updates"] for form, tally in written.items()}
    yield "upd_bytes_json", per_update["json"], "B"
    yield "upd_bytes_compact", per_update["compact"], "B"
    yield "upd_bytes_ratio", per_update["compact"] / per_update["json"], ""
    for form, tally in written.items():
        yield f"page_bytes_ratio_{form}", tally["bytes"] / written["json"]["bytes"], ""
        yield f"wrap_us_per_write_{form}", tally["wrap_ns"] / tally["writes"] / 1000, "us"


def play(path: Path) -> dict[str, Counter[str]]:
    """Return what each form's member was written: bytes, writes, updates, bytes of updates alone, and the time framing took."""
    found: dict[str, Counter[str]] = {}
    hub = Hub(text_frame, Freshness(1e9, 0), base_ms=0)
    members = []
    for form in ("json", "compact", "json_deflate", "compact_deflate"):
        tally = found[form] = Counter()
        member = Member(_counting(tally), Ladder(), _timed(deflated_frame if "deflate" in form else text_frame, tally))
        hub.add(member)
        members.append((form, member))
    known: set[str] = set()
    for at_ms, docs in quote_documents(path):
        if not hub.base_ms:
            hub.base_ms = at_ms - 8 * 3_600_000  # a worker that was started eight hours ago
            for form, member in members:
                if form.startswith("compact"):
                    hub.compact(member)
        hub.on_docs(docs, 0)
        for doc in [doc for doc in docs if doc.ch not in known]:
            known.add(doc.ch)
            for _, member in members:
                hub.join(member, [Want(doc.ch, 4)], lambda _: lambda: None, 0)
            for request in hub.requests:
                if request.channel == doc.ch:
                    hub.on_snapshot(doc.ch, request.ticket, None, 0)
            hub.requests.clear()
            hub.on_docs([doc], 0)
        if at_ms // FLUSH_MS % 3 == 0:  # every 0.3 s of the tape, near enough to 4 Hz
            for phase in range(PHASES[4]):
                hub.tick(4, phase, 0)
    return found


def _counting(tally: Counter[str]) -> Callable[[bytes], None]:
    def write(blob: bytes) -> None:
        tally["bytes"] += len(blob)
        tally["writes"] += 1

    return write


def _timed(wrap: Callable[[bytes], bytes], tally: Counter[str]) -> Callable[[bytes], bytes]:
    def timed(payload: bytes) -> bytes:
        items = json.loads(payload)
        for item in items if isinstance(items, list) and not isinstance(items[0], int) else [items]:
            if isinstance(item, list) or item["t"] == "upd":
                tally["updates"] += 1
                tally["single"] += len(json.dumps(item, separators=(",", ":"), ensure_ascii=False).encode())
        began_ns = time.perf_counter_ns()
        blob = wrap(payload)
        tally["wrap_ns"] += time.perf_counter_ns() - began_ns
        return blob

    return timed


def quote_documents(path: Path) -> Iterator[tuple[int, list[Doc]]]:
    """Yield the time on the tape and the quote documents of each flush of the processors."""
    parts = [Partition(n, 1, "e1", roster.build(roster.ANALYZERS, {}, 500)) for n in range(PARTITIONS)]
    mirrors = [Mirror() for _ in range(PARTITIONS)]
    waiting: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    sent: Counter[tuple[str, int]] = Counter()
    told: dict[str, int] = {}
    time_ms, due_ms = 0, 0
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        for event in (event for line in lines for event in _events(line) if event["ev"] in STREAMS):
            time_ms = max(time_ms, event["t"])
            waiting[STREAMS[event["ev"]], partition_of(event.get("sym") or event["pair"], PARTITIONS)].append(json.dumps(event))
            if time_ms >= due_ms:
                due_ms = time_ms + FLUSH_MS
                yield time_ms, _flush(parts, mirrors, waiting, sent, told, time_ms)


def _events(line: bytes) -> list[dict[str, Any]]:
    frame = json.loads(line)
    return frame if isinstance(frame, list) else [frame]


def _flush(
    parts: list[Partition],
    mirrors: list[Mirror],
    waiting: dict[tuple[str, int], list[str]],
    sent: Counter[tuple[str, int]],
    told: dict[str, int],
    time_ms: int,
) -> list[Doc]:
    for key in list(waiting):
        bodies = waiting.pop(key)
        body = f"[{','.join(bodies)}]".encode()
        made = Batch("s", 0, *key, "p1", sent[key], len(bodies), 1, WALL_NS, time_ms * 1_000_000, body)
        sent[key] += len(bodies)
        parts[key[1]].on_batch(made, False, WALL_NS)
    docs = []
    for part, mirror in zip(parts, mirrors, strict=True):
        mirror.apply(part.collect(time_ms), part.flush_number)
        for channel, doc in mirror.documents.items():
            if channel.startswith("quote:") and told.get(channel) != doc["seq"]:
                told[channel] = doc["seq"]
                data = Raw(json.dumps(doc["data"], separators=(",", ":")).encode())
                docs.append(Doc(channel, doc["epoch"], doc["seq"], doc["ts"], data))
    return docs


if __name__ == "__main__":
    main()

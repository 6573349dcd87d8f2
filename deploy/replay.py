"""Runs analyzers over a recorded tape, without servers, and prints what they say: a back-test in one command.

python -m deploy.replay TAPE --analyzer range                 every alert, a JSON document a line, as clients would get it
python -m deploy.replay TAPE --analyzer quote --last          the last document of each channel
python -m deploy.replay TAPE --analyzer boards --channel 'board:gain*' --every 60
python -m deploy.replay TAPE --analyzer big_prints            a plug-in that is installed here: what it would have said

The tape goes through the listener's router and a processor's partition, by the tape's own clock and as fast as it can be read.
The processors' settings hold (`MDP_CALENDARS`, `MDP_REFERENCE`, `MDP_BOARDS` and the others).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase

from mdc.channels import FAMILIES
from mdc.writer import Flush
from mdl.feeds.replay import ReplayFeed
from mdl.router import Router
from mdp.analyzer import Analyzer
from mdp.analyzers.boards import merge_shares, read_share
from mdp.analyzers.ranks import BUILT_IN, CALM_MS, names_of, read_boards
from mdp.partitions.partition import Partition
from mdp.plugins.host import Limits
from mdp.plugins.installed import NONE, find, names_installed
from mdp.plugins.rack import Rack, hosts_of, take_failures
from mdp.reference import read_reference
from mdp.roster import ANALYZERS, build
from mdp.settings import MdpSettings
from mdq.batch import Batch
from service import logs
from service.errors import OperatorError
from service.run import Shutdown, main
from service.settings import load

SOURCE, EPOCH = "replay", "replay"
EVERY_S = 0.1


class Replay:
    """Analyzers over a tape. `frame()` what comes, `flush()` now and then; both give the documents that are due."""

    def __init__(self, analyzers: list[Analyzer], board_rows: int, time_ahead_ms: int, every_s: float = EVERY_S) -> None:
        self.malformed = 0
        self._partition = Partition(0, 1, EPOCH, analyzers, time_ahead_ms)
        self._router = Router(1)
        self._board_rows = board_rows
        self._every_ms = max(1, round(every_s * 1000))
        self._sent: Counter[str] = Counter()  # stream → events
        self._shared: Counter[str] = Counter()  # channel → its last sequence number
        self._due_ms = self._now_ms = 0

    def frame(self, data: bytes | str, at_ns: int) -> Iterator[tuple[str, bytes]]:
        """Take one frame of the tape; yield channel and document of what a flush before it has to say."""
        now_ms = at_ns // 1_000_000
        if now_ms >= self._due_ms:
            yield from self.flush()
            self._due_ms = now_ms + self._every_ms
        self._now_ms = now_ms
        self._router.route(data)
        for stream, _, events in self._router.take():
            body = b"[%b]" % b",".join(map(bytes, events))
            seq = self._sent[stream]
            self._sent[stream] += len(events)
            batch = Batch(SOURCE, 0, stream, 0, EPOCH, seq, len(events), at_ns, at_ns, at_ns, body)
            self._partition.on_batch(batch, False, at_ns)

    def flush(self) -> Iterator[tuple[str, bytes]]:
        """Yield channel and document of what has changed since the last flush."""
        if not self._now_ms or (flush := self._partition.collect(self._now_ms)) is None:
            return
        for document in flush.documents():
            yield document[7 : document.index(b'"', 7)].decode(), document  # {"ch":"quote:AAPL",…
        yield from (
            (channel, self._number(channel, ts, data)) for channel, ts, data in _merged(flush, self._now_ms, self._board_rows)
        )

    def finish(self) -> Iterator[tuple[str, bytes]]:
        """Yield what is left at the end of the tape, also of what is only written once a second."""
        yield from self.flush()
        self._now_ms += CALM_MS
        yield from self.flush()

    def events(self) -> int:
        return self._router.events

    def refused(self) -> Counter[str]:
        """Return how many events the analyzers did not get, by reason."""
        counts = self._partition.counts
        found = Counter({reason: n for reason, n in counts.discarded.items() if n})
        if self._router.malformed:
            found["unreadable"] += self._router.malformed
        return found

    def _number(self, channel: str, ts: int, data: bytes) -> bytes:
        self._shared[channel] += 1
        return b'{"ch":"%b","epoch":"%b","seq":%d,"ts":%d,"data":%b}' % (
            channel.encode(), EPOCH.encode(), self._shared[channel], ts, data,
        )  # fmt: skip


def _merged(flush: Flush, now_ms: int, rows: int) -> Iterator[tuple[str, int, bytes]]:
    yield from flush.shared()
    for name, share in flush.shares():
        if name.startswith("part:board:"):
            yield name.removeprefix("part:"), now_ms, merge_shares([read_share(share)], rows)


def chosen(names: list[str], settings: MdpSettings) -> tuple[list[Analyzer], set[str]]:
    """Return the analyzers, with those that they need, and the kinds of channels that only these write.

    Raises: OperatorError for a plug-in that cannot be run.
    """
    own = read_boards(settings.boards)
    reference, plugins = read_reference(settings.reference), [name for name in names if name not in ANALYZERS]
    found = find(plugins or [NONE], names_of(own))
    for one in found.refused:
        raise OperatorError(f"the plug-in {one.name}: {one.why}", "mdp/plugins/README.md says what a plug-in must be")
    rack = Rack(found, Limits(rows=settings.board_rows))
    made = build(
        names, reference, settings.board_rows, settings.markets, (*BUILT_IN, *own), settings.thresholds,
        rack.analyzers,
    )  # fmt: skip
    needed = {one.outlet.kind for one in made if one.outlet is not None and not _asked_for(one.name, names)}
    return made, needed


def _asked_for(analyzer: str, names: list[str]) -> bool:
    family, _, plugin = analyzer.partition(":")
    return (plugin if family in FAMILIES else family) in names


def _stop_at_failures(analyzers: list[Analyzer]) -> None:
    """A processor would start a plug-in that failed again; whoever tries one out wants to see where it did.

    Raises: OperatorError.
    """
    for name, failure in take_failures(hosts_of(analyzers)):
        print(failure.trace, end="", file=sys.stderr)
        raise OperatorError(f"the plug-in {name} failed in {failure.where}: {failure.fault}", "Mend it and run it again", 1)


async def replay(given: argparse.Namespace, shutdown: Shutdown) -> None:
    """Play the tape and print.  Raises: OperatorError naming what cannot be read."""
    settings = load(MdpSettings)
    logs.setup("replay", settings.log_level, settings.log_format)
    feed = ReplayFeed(given.tape, None)
    analyzers, needed = chosen(given.analyzer, settings)
    run = Replay(analyzers, settings.board_rows, settings.time_ahead_s * 1000, given.every)
    last: dict[str, bytes] = {}
    printed, began_s = 0, time.monotonic()

    def tell(found: Iterator[tuple[str, bytes]]) -> int:
        told = 0
        for channel, document in found:
            if channel.partition(":")[0] in needed or channel.rpartition(":")[0] in needed:
                continue
            if given.channel and not any(fnmatchcase(channel, pattern) for pattern in given.channel):
                continue
            if given.last:
                last[channel] = document
            else:
                print(document.decode())
                told += 1
        return told

    async for frame in feed:
        if shutdown.asked:
            break
        printed += tell(run.frame(frame.data, frame.feed_ns or frame.received_ns))
        _stop_at_failures(analyzers)
    printed += tell(run.finish())
    _stop_at_failures(analyzers)
    for channel in sorted(last):
        print(last[channel].decode())
    refused = run.refused() + Counter({"lines that are no frames": feed.malformed})
    why = "".join(f"; {n} {reason}" for reason, n in sorted(refused.items()))
    seconds = time.monotonic() - began_s
    print(f"tapeline replay: {run.events()} events, {printed + len(last)} documents, {seconds:.1f} s{why}", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m deploy.replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tape", help="a recording (.ndjson, .gz, .zst), a folder of them or a pattern")
    there = [*ANALYZERS, *(name for name in names_installed() if name not in ANALYZERS)]
    parser.add_argument("--analyzer", action="append", required=True, choices=there, help="may be given more than once")
    parser.add_argument("--channel", action="append", default=[], metavar="PATTERN", help="only these channels, as 'quote:A*'")
    parser.add_argument("--every", type=float, default=EVERY_S, metavar="SECONDS", help=f"of the tape between flushes; {EVERY_S}")
    parser.add_argument("--last", action="store_true", help="only the last document of each channel, at the end")
    return parser.parse_args()


def _run() -> None:
    arguments = _arguments()
    if not 0.001 <= arguments.every <= 86_400:
        raise SystemExit("tapeline replay: --every takes seconds from 0.001 to 86400")

    async def body(shutdown: Shutdown) -> None:
        await replay(arguments, shutdown)

    main("replay", body)


if __name__ == "__main__":
    _run()

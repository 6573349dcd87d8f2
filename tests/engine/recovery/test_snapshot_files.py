"""Files of snapshots against damage, disks that refuse, and processes that die at any call into the system."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from engine.core.exchange import Exchange
from engine.recovery.snapshot import snapshot
from engine.recovery.snapshot_files import METADATA, FileSnapshotStore, file_name
from engine.recovery.snapshot_format import Generation, SnapshotTooNew, encode
from engine.stores.message_builder import MessageBuilder
from tests.engine.lives import MARKETS, answers, life

INDICES = (100, 200, 300, 400, 500)
CALLS = ("open", "write", "fsync", "close", "replace", "link", "unlink")  # what a snapshot asks of the system


@cache
def generations() -> tuple[Generation, ...]:
    """Return snapshots along a life."""
    exchange, commands, made = Exchange(MessageBuilder), life(1), []
    for index in INDICES:
        list(answers(exchange, commands[index - 100 : index]))
        made.append(snapshot(exchange.state, index, index.to_bytes(16, "big"), index * 1_000_000))
    return tuple(made)


def filled(folder: Path, count: int = 3, kept: int = 3) -> FileSnapshotStore:
    """Return a store with the first `count` generations."""
    store = FileSnapshotStore(folder, kept)
    for generation in generations()[:count]:
        store.write_generation(generation)
    return store


def newest(folder: Path) -> tuple[int, str] | None:
    """Return index and digest of what would be restored."""
    restored = next(FileSnapshotStore(folder).restored(), None)
    return (restored.last_index, restored.state.digest()) if restored else None


def expected(position: int) -> tuple[int, str]:
    return INDICES[position], generations()[position].exchange.state_digest


def test_the_newest_generation_comes_back(tmp_path: Path) -> None:
    """And each market by itself, whatever it is called."""
    store = filled(tmp_path)
    assert newest(tmp_path) == expected(2)
    assert [restored.last_index for restored in store.restored()] == [300, 200, 100]
    assert [market.market for market in generations()[2].markets] == list(MARKETS)
    for market in generations()[2].markets:
        assert store.read_latest(market.market) == market
        assert (tmp_path / f"{file_name(market.market)}.snapshot.json").read_bytes() == encode(market)
    assert (tmp_path / "exchange.snapshot.json").read_bytes() == encode(generations()[2].exchange)
    assert newest(tmp_path / "none") is None


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_only_the_newest_ones_are_kept(tmp_path: Path, kept: int) -> None:
    """As many as asked for, with all their files, and nothing else."""
    store = filled(tmp_path, 5, kept)
    assert store.sequences() == list(INDICES[-kept:])
    assert len(list(tmp_path.iterdir())) == (kept + 1) * (len(MARKETS) + 1) + 1  # and the rows about them
    assert [restored.last_index for restored in store.restored()] == list(reversed(INDICES[-kept:]))


def test_no_two_markets_share_a_file() -> None:
    """Nor is one taken for a path, a number or the exchange."""
    names = [
        "A",
        "a/b",
        "a_b",
        "a%2Fb",
        "exchange",
        "%65xchange",
        "B",
        "B.00000000000000000007",
        "..",
        "~",
        "%7E",
        "é",
        "x" * 500,
    ]
    names += ["x" * 501, ""]
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(files)
    assert "exchange" not in files
    assert all("/" not in file and "." not in file and len(file) <= 120 for file in files)
    assert file_name("BTC-PERP") == "BTC-PERP"


def damages(content: bytes) -> dict[str, bytes | None]:
    """Return what may have become of a file; None = it is gone."""
    middle = len(content) // 2
    return {
        "missing": None, "empty": b"", "half": content[:middle], "one byte short": content[:-1], "zeros": bytes(len(content)),
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :], "no JSON": b"not a snapshot",
        "another shape": b"{}", "older bytes": encode(generations()[0].exchange), "no text": b"\xff\xfe" + content,
    }  # fmt: skip


@pytest.mark.parametrize("damage", list(damages(b"--")))
def test_a_damaged_file_costs_its_generation_only(tmp_path: Path, damage: str) -> None:
    """Any file of the newest: the one before is restored; of both, the oldest."""
    filled(tmp_path)
    for sequence, left in ((300, 1), (200, 0)):
        whole = {path: path.read_bytes() for path in tmp_path.glob(f"*{sequence}.snapshot.json")}
        assert len(whole) == len(MARKETS) + 1
        for path, content in whole.items():
            spoilt = damages(content)[damage]
            path.unlink()
            if spoilt is not None:
                path.write_bytes(spoilt)
            assert newest(tmp_path) == expected(left), path.name
            path.unlink(missing_ok=True)
            path.write_bytes(content)
        next(iter(whole)).unlink()
    FileSnapshotStore(tmp_path).write_generation(generations()[3])
    assert newest(tmp_path) == expected(3)


@pytest.mark.parametrize("damage", list(damages(b"--")))
def test_the_newest_valid_file_of_a_market_is_read(tmp_path: Path, damage: str) -> None:
    """When the newest is spoilt, under both its names, the one before."""
    store = filled(tmp_path)
    market = generations()[2].markets[0]
    for name in (f"{market.market}.snapshot.json", f"{market.market}.{300:020d}.snapshot.json"):
        spoilt = damages(encode(market))[damage]
        (tmp_path / name).unlink()
        if spoilt is not None:
            (tmp_path / name).write_bytes(spoilt)
    assert store.read_latest(market.market) == generations()[1].markets[0]


def test_what_the_disk_does_not_give_is_passed_over(tmp_path: Path) -> None:
    """Any error of reading counts as damage."""
    store = filled(tmp_path)
    for name in ("B.snapshot.json", f"B.{300:020d}.snapshot.json"):
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()
    assert newest(tmp_path) == expected(1)
    assert store.read_latest("B") == generations()[1].markets[0]


def test_a_later_format_stops_the_operator(tmp_path: Path) -> None:
    """It is not passed over for an older one."""
    store = filled(tmp_path)
    (tmp_path / f"exchange.{300:020d}.snapshot.json").write_bytes(b'{"version":9,"engineSequence":300}')
    with pytest.raises(SnapshotTooNew, match="format 9"):
        newest(tmp_path)
    (tmp_path / "B.snapshot.json").unlink()
    (tmp_path / "B.snapshot.json").write_bytes(b'{"version":9}')
    with pytest.raises(SnapshotTooNew):
        store.read_latest("B")


def test_a_generation_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    """While it was replaced file by file it would count for nothing. A spoilt one is."""
    store = filled(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    store.write_generation(generations()[2])
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    spoilt = tmp_path / f"B.{300:020d}.snapshot.json"
    spoilt.unlink()
    store.write_generation(generations()[2])
    assert newest(tmp_path) == expected(2)


def test_a_market_written_by_itself_spoils_no_generation(tmp_path: Path) -> None:
    """The same content is there already; another one under the same number is refused."""
    store = filled(tmp_path)
    store.write(generations()[2].markets[0])
    with pytest.raises(FileExistsError, match="whole exchange"):
        store.write(other_content())
    assert newest(tmp_path) == expected(2)


def other_content() -> Any:
    exchange = Exchange(MessageBuilder)
    list(answers(exchange, life(1, 300)))
    return snapshot(exchange.state, 300, bytes(16), 5_000_000_000).markets[0]


def test_a_disk_without_hard_links_does_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest is a copy then."""

    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    store = filled(tmp_path)
    assert store.read_latest("B") == generations()[2].markets[0]
    assert (tmp_path / "exchange.snapshot.json").stat().st_nlink == 1
    assert not list(tmp_path.glob("*.tmp"))


class System:
    """Stands between a snapshot and the system: counts calls, and does something else instead of the one numbered `fatal`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fatal: int = -1, instead: Callable[[], None] | None = None) -> None:
        self.calls: list[str] = []
        self._fatal = fatal
        self._instead = instead
        for name in CALLS:
            monkeypatch.setattr(os, name, self._passed(name, getattr(os, name)))

    def _passed(self, name: str, really: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) - 1 == self._fatal:
                assert self._instead is not None
                if name == "write":
                    really(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                self._instead()
            return really(*arguments, **more)

        return call


def test_a_kill_at_any_moment_leaves_whole_generations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies in the middle of any call: the old or the new one is restored, and the next one can be written."""
    with monkeypatch.context() as watched:
        folder = tmp_path / "watched"
        filled(folder)
        system = System(watched)
        FileSnapshotStore(folder).write_generation(generations()[3])
    assert set(system.calls) == set(CALLS)
    seen = set()
    for number in range(len(system.calls)):
        folder = tmp_path / str(number)
        filled(folder)
        child = os.fork()
        if not child:
            try:
                System(pytest.MonkeyPatch(), number, lambda: os._exit(9))
                FileSnapshotStore(folder).write_generation(generations()[3])
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        found = newest(folder)
        assert found in (expected(2), expected(3)), number
        seen.add(found)
        for market in MARKETS:
            latest = FileSnapshotStore(folder).read_latest(market)
            assert latest is not None
            assert latest.engine_sequence in (300, 400)
        FileSnapshotStore(folder).write_generation(generations()[4])
        assert newest(folder) == expected(4)
        assert FileSnapshotStore(folder).read_latest("B") == generations()[4].markets[0]
        assert not list(folder.glob("*.tmp"))
    assert len(seen) == 2


def written(folder: Path) -> int | None:
    """Try to write the fourth generation; return the error's number."""
    try:
        FileSnapshotStore(folder).write_generation(generations()[3])
    except OSError as error:
        return error.errno
    return None


def test_a_disk_that_refuses_any_call_costs_nothing_but_this_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full at any moment: the error is told, what was there is there, and the next one is written when there is room.

    The rows about the snapshots come last and take nothing of them: their fault is only logged.
    """
    with monkeypatch.context() as watched:
        clean = System(watched)
        filled(tmp_path / "clean")
        before = len(clean.calls)
        written(tmp_path / "clean")
        rows = len(clean.calls) - before - len(("open", "write", "fsync", "close", "replace"))
    for number in range(1_000):
        folder = tmp_path / str(number)
        filled(folder)
        with monkeypatch.context() as disk:

            def full() -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            system = System(disk, number, full)
            error = written(folder)
        if len(system.calls) <= number:
            break
        # a link that cannot be made has a way around it, a file that is being forgotten has none to lose
        assert (error == errno.ENOSPC) != (system.calls[number] == "link" or number >= rows), number
        assert newest(folder) in (expected(2), expected(3)), number
        FileSnapshotStore(folder).write_generation(generations()[4])
        assert newest(folder) == expected(4)
        assert not list(folder.glob("*.tmp"))
    assert number > 40


def test_everything_is_on_the_disk_before_the_exchange_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is synced before it gets its name, and the folder with the markets' names before the exchange's file appears."""
    steps: list[tuple[str, str]] = []

    def named(file: int | str | Path) -> str:
        return Path(os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else file).name

    really = {name: getattr(os, name) for name in ("fsync", "replace")}

    def fsync(file: int) -> None:
        steps.append(("sync", named(file)))
        really["fsync"](file)

    def replace(source: Path, target: Path) -> None:
        steps.append(("name", named(target)))
        really["replace"](source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    FileSnapshotStore(tmp_path).write_generation(generations()[0])
    files = [f"{file_name(market)}.{100:020d}.snapshot.json" for market in MARKETS]
    exchange, folder = f"exchange.{100:020d}.snapshot.json", tmp_path.name
    for file in [*files, exchange]:
        assert steps.index(("sync", f"{file}.tmp")) + 1 == steps.index(("name", file))
    commit = steps.index(("name", exchange))
    assert all(steps.index(("name", file)) < steps.index(("sync", folder)) < commit for file in files)
    assert ("sync", folder) in steps[commit:]


def test_each_kept_snapshot_has_a_row_of_metadata(tmp_path: Path) -> None:
    """What the snapshot says of itself; rows go with their files, and rows that are lost take no snapshot along."""
    store = filled(tmp_path, count=3, kept=2)
    rows = store.metadata()
    assert [row.engine_sequence for row in rows] == [300] * len(MARKETS) + [200] * len(MARKETS)
    for row in rows[: len(MARKETS)]:
        stored = store.read_latest(row.market)
        assert stored is not None
        assert (row.created_at, row.last_redis_stream_id, row.sha256) == (
            stored.created_at, stored.last_redis_stream_id, stored.sha256,
        )  # fmt: skip
    (tmp_path / METADATA).write_bytes(b"{")
    assert store.metadata() == []
    assert newest(tmp_path) == (300, generations()[2].exchange.state_digest)

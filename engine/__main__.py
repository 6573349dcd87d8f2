"""Reads the command line and runs one process of the engine, or measures a workload file.

python -m engine serve                         the exchange: gateway, journal, message stores, queue, streams (ENGINE_*)
python -m engine bots                          trading bots that keep it alive (BOTS_*)
python -m engine oms [reconcile]               a message store into SQL tables (OMS_*)
python -m engine keys create|list|revoke         who may use the gateway (ENGINE_DIR, ENGINE_KEYS_FILE)
python -m engine promote                       makes a standby (ENGINE_FOLLOW) the leader (ENGINE_DIR)
python -m engine set-aside [--files]           what an earlier leader had alone, and was set aside (ENGINE_REWIND)
python -m engine risk                          the sample risk service (RISK_*)
python -m engine backup|restore FILE          one file of journal, newest snapshot and keys, also of a running engine; - is a pipe
python -m engine import-stream                 the disk is lost: a journal of the Redis stream (ENGINE_STREAMS_URL)
python -m engine journal verify|dump|state     reads a journal, also of a running engine; JSON lines (ENGINE_DIR)
python -m engine history order|state           an order's life, or the exchange after any command (ENGINE_DIR, ENGINE_ARCHIVE_DIR)
python -m engine workload FILE.bin[.gz]        {"sha256": …, "messages": …, "messages_per_s": …}

The rate of a workload is the median of five runs through a fresh book each, one call a message, reports built; reading and
parsing the file, sorting and hashing the reports are not in it.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import json
import os
import sys
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

from engine.access import command as key_command
from engine.access.key_file import KeyFile
from engine.backup import command as backup_command
from engine.core.book import Book
from engine.core.workload import BookMessage, WorkloadInvalid, digest, parse, run
from engine.recovery import command as history_command
from engine.recovery.history import Places
from engine.standby import command as promote_command
from engine.standby import set_aside
from service import logs
from service.clock import SystemClock
from service.errors import OperatorError
from service.run import GC_THRESHOLD, fail
from service.run import main as main_of
from service.settings import load

RUNS = 5
FIX = "Give a file of the format in engine/README.md, plain or gzip"
GZIP_MAGIC = b"\x1f\x8b"


def main() -> None:
    """Run what the command line asks for."""
    arguments = _parser().parse_args()
    try:
        _RUN[arguments.command](arguments)
    except OperatorError as error:
        fail("engine", error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine", description="Tapeline engine: the built-in exchange")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="run the exchange (settings ENGINE_*)")
    commands.add_parser("bots", help="run trading bots against it (BOTS_*)")
    oms = commands.add_parser("oms", help="keep a message store in SQL tables (OMS_*)")
    oms.add_argument(
        "what", nargs="?", choices=["reconcile"], help="compare the tables with the exchange, once; exit code 1: they differ"
    )
    promote_command.arguments(commands.add_parser("promote", help="make the standby of ENGINE_DIR the leader"))
    set_aside.arguments(commands.add_parser("set-aside", help="list what this engine alone had when it was replaced"))
    commands.add_parser("risk", help="run the sample risk service (RISK_*)")
    key_command.arguments(commands.add_parser("keys", help="make, list and withdraw the gateway's keys"))
    backup_command.backup_arguments(
        commands.add_parser("backup", help="write a backup of ENGINE_DIR, also while the engine runs")
    )
    backup_command.restore_arguments(commands.add_parser("restore", help="put a backup into an ENGINE_DIR that is empty"))
    lost = commands.add_parser("import-stream", help="make a lost journal anew of the Redis stream engine_events")
    lost.add_argument("--from-snapshot", action="store_true", help="leave out what the newest snapshot has")
    history_command.journal_arguments(
        commands.add_parser("journal", help="read a journal, also while the engine writes it; JSON lines")
    )
    history_command.history_arguments(
        commands.add_parser("history", help="an order's life, or the exchange as it was, for people or as JSON")
    )
    workload = commands.add_parser("workload", help="run a workload file through the book; print one JSON line")
    workload.add_argument("file", type=Path, metavar="FILE.bin[.gz]")
    return parser


# A process imports only what it runs.


def _serve(_: argparse.Namespace) -> None:
    from engine import serve
    from engine.settings import EngineSettings

    main_of("engine", partial(serve.run, load(EngineSettings)))


def _bots(_: argparse.Namespace) -> None:
    from engine.bots import runner as bots

    settings = load(bots.BotsSettings)
    logs.setup("bots", settings.log_level, settings.log_format)
    main_of("engine bots", partial(bots.run, settings))


def _oms(arguments: argparse.Namespace) -> None:
    from engine.oms import consumer as oms

    settings = load(oms.OmsSettings)
    logs.setup("oms", settings.log_level, settings.log_format)
    if arguments.what == "reconcile":
        import asyncio

        from engine.oms import reconcile

        sys.exit(reconcile.DIFFERENT_EXIT if asyncio.run(reconcile.run(settings)) else 0)
    main_of("engine oms", partial(oms.run, settings))


def _risk(_: argparse.Namespace) -> None:
    from engine.risk import service as risk_service

    settings = load(risk_service.RiskSettings)
    logs.setup("risk", settings.log_level, settings.log_format)
    main_of("engine risk", partial(risk_service.run, settings))


def _keys(given: argparse.Namespace) -> None:
    from engine.settings import EngineSettings

    key_command.run(KeyFile(load(EngineSettings).keys_file), given, SystemClock().wall_ns())


def _promote(given: argparse.Namespace) -> None:
    from engine.settings import EngineSettings

    promote_command.run(load(EngineSettings).folder, given, SystemClock().wall_ns())


def _set_aside(given: argparse.Namespace) -> None:
    from engine.settings import EngineSettings

    _print(set_aside.listed(load(EngineSettings).folder, given.files))


def _backup(given: argparse.Namespace) -> None:
    from engine.settings import EngineSettings

    settings = load(EngineSettings)
    backup_command.run_backup(settings.folder, settings.keys_file, given, SystemClock().wall_ns())


def _restore(given: argparse.Namespace) -> None:
    from engine.settings import EngineSettings

    settings = load(EngineSettings)
    backup_command.run_restore(settings.folder, settings.keys_file, given, SystemClock().wall_ns())


def _import_stream(arguments: argparse.Namespace) -> None:
    from engine.settings import EngineSettings
    from engine.streams.restore import import_from

    settings = load(EngineSettings)
    if not settings.streams_url:
        raise OperatorError("ENGINE_STREAMS_URL is not set", "Set it to the Redis that has engine_events")
    folder = settings.folder
    done = import_from(settings.streams_url, folder / "journal", folder / "snapshots", arguments.from_snapshot)
    print(json.dumps(done._asdict(), default=str))


def _journal(given: argparse.Namespace) -> None:
    _print(history_command.journal(_places(given), given))


def _history(given: argparse.Namespace) -> None:
    if hasattr(given, "check"):
        given.check(given)
    _print(history_command.told(_places(given), given))


def _places(given: argparse.Namespace) -> Places:
    """Return where the history is: as the engine's settings say, or the folders that are named."""
    from engine.settings import EngineSettings

    if given.folder is not None:
        return Places(given.folder / "journal", given.folder / "snapshots", given.archive)
    settings = load(EngineSettings)
    known = settings.archive if settings.archive is not None and settings.archive.is_dir() else None  # made when it is needed
    return Places(settings.folder / "journal", settings.folder / "snapshots", given.archive or known)


def _print(lines: Iterator[str]) -> None:
    try:
        for line in lines:
            print(line)
    except BrokenPipeError:  # whoever reads has enough
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # or Python complains when it flushes at the end


def _workload(arguments: argparse.Namespace) -> None:
    gc.set_threshold(*GC_THRESHOLD)  # as every process of ours
    try:
        print(json.dumps(measure(parse(read(arguments.file)))))
    except WorkloadInvalid as error:
        raise OperatorError(str(error), FIX) from None


_RUN = {
    "serve": _serve, "bots": _bots, "oms": _oms, "risk": _risk, "keys": _keys, "promote": _promote, "set-aside": _set_aside,
    "backup": _backup, "restore": _restore, "import-stream": _import_stream, "journal": _journal, "history": _history,
    "workload": _workload,
}  # fmt: skip


def read(path: Path) -> bytes:
    """Return a file's content, unzipped when it is gzip, whatever its name. Raises: OperatorError."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content
    except (OSError, EOFError, zlib.error) as error:
        raise OperatorError(f"Cannot read {path}: {error}", FIX) from None


def measure(messages: list[BookMessage], runs: int = RUNS) -> dict[str, str | int]:
    """Return the hash, the number of messages and the median rate of some runs. Raises: WorkloadInvalid."""
    elapsed_s = []
    for _ in range(runs):
        book = Book()
        began_s = perf_counter()
        run(messages, book)
        elapsed_s.append(perf_counter() - began_s)
    rate = round(len(messages) / max(median(elapsed_s), 1e-9))
    return {"sha256": digest(book.reports), "messages": len(messages), "messages_per_s": rate}


if __name__ == "__main__":
    main()

"""Runs the whole pipeline on one machine: `python -m deploy.local`, which is what `make run` starts.

1 settings and ports are checked, 2 the page is built, 3 the processes start in data order, 4 they are watched and restarted,
5 Ctrl-C stops them from the feed downwards within 10 s; a second Ctrl-C ends them at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from deploy import rundir
from deploy.child import Child, Refused
from deploy.console import Readiness, progress
from deploy.plan import Plan, plan
from deploy.probe import ask
from deploy.settings import LocalSettings, read
from engine.access.key_file import KeyFile
from engine.access.keys import Role
from service.errors import OperatorError
from service.run import fail
from service.settings import admin_token, hide_password

WELCOME_FILE = "welcome.url"  # in RUN_DIR, made by the control plane while it has no administrator
STOP_S_MAX = 9.0  # of the 10 s that a stop may take; who still runs then is killed
PROGRESS_S = 5.0
SLOW_START_S = 5.0
ENDED = "feed ended"  # a replay at its end is no fault of this run, though the listener is rightly not ready any more


class Local:
    """One run: its children, what is told about them, and its end."""

    def __init__(self, settings: LocalSettings) -> None:
        self._settings = settings
        self._dir = settings.run_dir.absolute()
        self._stop = asyncio.Event()
        self._children: list[Child] = []
        self._readiness = Readiness()
        self._ports: dict[str, int] = {}

    async def run(self) -> None:
        """Run until Ctrl-C or SIGTERM.  Raises: OperatorError, Refused."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(name, self._asked_to_stop)
        with rundir.occupied(self._dir):
            self._ports = rundir.assign(self._settings)
            say(_headline(self._settings, self._dir))
            if not await self._build_page():
                return
            reference = await self._make_reference()
            if self._stop.is_set():
                return
            try:
                await self._serve(plan(self._settings, self._ports, self._dir, reference, self._make_keys()))
            finally:
                rundir.forget(self._dir)

    def _asked_to_stop(self) -> None:
        if self._stop.is_set():
            say("stopping at once")
            for child in self._children:
                child.kill()
            rundir.forget(self._dir)
            os._exit(130)
        self._stop.set()

    async def _build_page(self) -> bool:
        if importlib.util.find_spec("scp.build") is None:
            return True
        code = await self._step("-m", "scp.build")
        if code and not self._stop.is_set():
            raise OperatorError("the page could not be built", "See the lines above; `make web` builds it alone", 1)
        return not self._stop.is_set()

    async def _make_reference(self) -> Path | None:
        """Return the previous closes of the simulated symbols, which the processors compare with."""
        own = self._settings
        if "simulator" not in own.sources or os.environ.get("MDP_REFERENCE"):
            return None
        path = self._dir / f"universe-{own.symbols}-{own.seed}.csv"
        if not path.exists():
            new = path.with_suffix(".new")
            with new.open("wb") as out:
                code = await self._step("-m", "mdl", "reference", "--symbols", str(own.symbols), "--seed", str(own.seed), out=out)
            if code:
                new.unlink()
                return None
            new.replace(path)
        return path

    def _make_keys(self) -> dict[str, str]:
        """Return the exchange's keys for those that ask it, by role: made once, kept beside its journal."""
        if "engine" not in self._settings.sources:
            return {}
        folder = self._dir / "engine"
        file, roles = KeyFile(folder / "keys.json"), (Role.OPERATOR, Role.MARKET_DATA)
        return {role.value: file.ensure(folder / f"{role.value}.key", time.time_ns(), role, "make run") for role in roles}

    async def _step(self, *arguments: str, out: Any = None) -> int:
        """Run one command to its end, or until the stop; return its exit code."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=out, start_new_session=True
        )
        ending, stopping = asyncio.ensure_future(process.wait()), asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({ending, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        stopping.cancel()
        return await ending

    async def _serve(self, what: Plan) -> None:
        started_s = time.monotonic()
        self._children = [Child(p, self._dir / "logs", say, self._write_facts) for p in what.processes]
        lives = {child.name: asyncio.create_task(child.run()) for child in self._children}
        say(f"started {', '.join(lives)}")
        watching = [asyncio.create_task(self._watch(what, started_s))]
        if self._settings.source == "replay":  # beside a live feed its end is no news
            watching.append(asyncio.create_task(self._tell_progress(what)))
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({stopping, *lives.values(), *watching}, return_when=asyncio.FIRST_COMPLETED)
        for task in (stopping, *watching):
            task.cancel()
        failed = _failures(*lives.values(), *watching)
        say("stopping")
        await self._stop_in_order(lives)
        failed += _failures(*lives.values())  # who refused meanwhile, most likely for the same reason
        for error in failed:
            raise error
        say("stopped")

    async def _stop_in_order(self, lives: dict[str, asyncio.Task[None]]) -> None:
        """Stop stage after stage, so that each drains what the one before it sent; kill who is late."""
        deadline_s = time.monotonic() + STOP_S_MAX
        stages = sorted({child.stage for child in self._children})
        for left, stage in zip(range(len(stages), 0, -1), stages, strict=True):
            members = [child for child in self._children if child.stage == stage]
            for child in members:
                child.stop()
            # The last stages get a second each at least: a slow drain above them must not cost them theirs.
            patience_s = max(0.0, deadline_s - time.monotonic() - (left - 1))
            tasks = {lives[child.name] for child in members}
            _, late = await asyncio.wait(tasks, timeout=patience_s)
            if late:
                for child in (child for child in members if lives[child.name] in late):
                    say(f"{child.name} did not stop in time and was killed")
                    child.kill()
                await asyncio.wait(late, timeout=2)

    async def _watch(self, what: Plan, started_s: float) -> None:
        """Ask every admin port; tell when all is ready, and later when something stops being it."""
        told, slow_told_s, pause_s = False, started_s + SLOW_START_S, 0.3
        while True:
            await asyncio.sleep(pause_s)
            missing = await self._ask_all(what)
            if not told and not missing:
                told, pause_s = True, 2.0
                say(_invitation(self._settings, what, self._dir, time.monotonic() - started_s))
            elif not told and time.monotonic() > slow_told_s:
                slow_told_s += SLOW_START_S
                say(f"still waiting for {', '.join(missing)}")

    async def _ask_all(self, what: Plan) -> list[str]:
        """Ask every component whether it is ready, tell the news, and return what is missing, in words."""
        asked = [
            (child, component, port)
            for child, process in zip(self._children, what.processes, strict=True)
            for component, port in process.admin
        ]
        answers = await asyncio.gather(*(ask(port, "/readyz") for _, _, port in asked))
        missing: dict[str, str] = {}
        for (_, component, _), answer in zip(asked, answers, strict=True):
            reasons = ["does not answer"] if answer is None else [str(reason) for reason in answer.get("reasons", [])]
            reasons = [reason for reason in reasons if not reason.startswith(ENDED)]
            if news := self._readiness.hear(component, reasons):
                say(news)
            if reasons:
                missing[component] = f"{component} ({'; '.join(reasons)})"
        for child in {child for child, _, _ in asked}:
            child.was_ready |= not any(component in missing for owner, component, _ in asked if owner is child)
        return list(missing.values())

    async def _tell_progress(self, what: Plan) -> None:
        """Tell how far the replay is, and once when it has ended."""
        token, ended, before = admin_token(self._settings), False, 0
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(PROGRESS_S if before else 1.0)
            answer = await ask(what.mdl_admin_port, "/feed", token)
            status = next(iter(answer["sources"].values()), None) if answer else None
            if status is None:
                continue
            events = int(status.get("received_events", 0))
            if status.get("state") == "ended":
                if not ended:
                    say(f"replay finished: {events:,} events; everything stays up, Ctrl-C stops it")
                ended = True
                continue
            ended = False
            percent = status.get("settings", {}).get("played_pct")
            say(progress(events, max(0, events - before) / (time.monotonic() - began_s), percent))
            before = events

    def _write_facts(self) -> None:
        own = self._settings
        children = {child.name: {"pid": child.pid, "restarts": child.restarts} for child in self._children}
        urls = {"MDQ_URL": hide_password(own.mdq_url), "MDC_URL": hide_password(own.mdc_url)}
        rundir.write(self._dir, {"feed": own.source, "ports": self._ports, "urls": urls, "children": children})


def _failures(*tasks: asyncio.Task[None]) -> list[BaseException]:
    found = [task.exception() for task in tasks if task.done() and not task.cancelled()]
    return [error for error in found if error is not None]


def _headline(own: LocalSettings, directory: Path) -> str:
    feeds = {
        "simulator": f"simulator ({own.symbols:,} symbols, {own.rate:,.0f} events/s, seed {own.seed})",
        "replay": f"replay of {own.tape} at {'full speed' if own.speed == 'max' else f'×{own.speed}'}",
        "massive": f"Massive, {own.market}",
        "news": f"news ({_origin(own)})",
        "engine": f"built-in exchange (bots: {own.bots_rate:,.0f} commands/s, seed {own.bots_seed})",
    }
    feed = " + ".join(feeds[source] for source in own.sources)
    queue = "embedded queue" if own.embedded_queue else f"RabbitMQ {hide_password(own.mdq_url)}"
    cache = "embedded cache" if own.embedded_cache else f"Redis {hide_password(own.mdc_url)}"
    return f"feed: {feed}; {queue}; {cache}; logs in {_short(directory / 'logs')}"


def _origin(own: LocalSettings) -> str:
    return hide_password(own.news_url) or ("simulated" if "simulator" in own.sources else "Massive")


def _invitation(own: LocalSettings, what: Plan, directory: Path, took_s: float) -> str:
    given = [f"WDS_URL=ws://127.0.0.1:{what.stream_port}"] if what.stream_port != 8400 else []
    given += [f"RUN_DIR={_short(directory)}"] if directory != Path(".run").absolute() else []
    script = " ".join([*given, _short(Path(sys.executable)), "-m wds get board:volume"])
    page = f"http://127.0.0.1:{what.page_port}"
    welcome = directory / WELCOME_FILE
    first = f"\n  nobody can sign in yet; once, within a day: {welcome.read_text().strip()}" if welcome.is_file() else ""
    return f"ready after {took_s:.1f} s: open {page} (Ctrl-C stops){first}\n  from a script: {script}"


def _short(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def say(text: str) -> None:
    """Print one line for people; a terminal that is gone is no reason to stop in disorder."""
    with contextlib.suppress(OSError):
        print(f"tapeline: {text}", flush=True)


def main() -> None:
    """Entry point of `make run`."""
    try:
        asyncio.run(Local(read()).run())
    except OperatorError as error:
        fail("run", error)
    except Refused as refused:
        print(refused.line, file=sys.stderr, flush=True)
        sys.exit(refused.code)


if __name__ == "__main__":
    main()

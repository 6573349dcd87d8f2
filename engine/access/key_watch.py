"""Follows the key file while the engine runs: what is made or withdrawn counts within a second, a broken file changes nothing.

Also notes when each key was shown last, beside the file, for `python -m engine keys list`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import structlog

from engine.access.key_file import KeyFile, Mark, replace
from engine.access.keys import Role
from engine.access.register import Register
from engine.core.units import iso
from service import metrics
from service.clock import Clock
from service.errors import OperatorError

LOOK_S = 0.5
SAY_EVERY_S = 60.0
USED_EVERY_S = 10.0
FIRST = "operator.key"

log = structlog.get_logger()


class KeyWatch:
    """Keeps a register as the key file says. `problem` says why it cannot, empty while it can."""

    def __init__(self, file: KeyFile, register: Register, clock: Clock) -> None:
        self.problem = ""
        self.file = file
        self.register = register
        self.clock = clock
        self._mark: Mark | None = None
        self._said_ns = 0
        self._used_at_ns = 0
        self._stale = metrics.gauge(
            "engine", "keys_stale", "1 while the key file cannot be read and its last good content counts"
        )

    def open(self, has_token: bool) -> None:
        """Read the keys for the first time; an exchange that has neither keys nor a token makes its first key.

        Raises: OperatorError.
        """
        if not has_token and not self.file.exists():
            path = self.file.path.with_name(FIRST)
            self.file.ensure(path, self.clock.wall_ns(), Role.OPERATOR, "the first key")
            log.warning("first_key_made", file=str(path), fix="Make others with python -m engine keys create, then withdraw it")
        self._mark = self.file.mark()
        self.register.take(self.file.read(), self.clock.wall_ns())

    def look(self) -> None:
        """Take over what has changed; end what was opened with a key that has expired."""
        now_ns = self.clock.wall_ns()
        mark = self.file.mark()
        if mark != self._mark or self.problem:
            try:
                if mark is None:
                    raise OperatorError(
                        f"The keys in {self.file.path} are gone", "Restore the file; until then the last keys count"
                    )
                self.register.take(self.file.read(), now_ns)
            except OperatorError as error:
                self._complain(str(error), now_ns)
                return
            self._mark, self.problem = mark, ""
            self._stale.set(0)
            log.info("keys_taken", keys=len(self.register.ring.keys))
        self.register.look(now_ns)

    def note_used(self) -> None:
        """Write when keys were shown last, if that has changed; a disk that refuses changes nothing."""
        newest = max(self.register.used_ns.values(), default=0)
        if newest <= self._used_at_ns:
            return
        try:
            times = {**used(self.file.path), **{key: iso(at_ns) for key, at_ns in self.register.used_ns.items()}}
            kept = {key: at for key, at in times.items() if key in self.register.ring.keys}
            replace(used_path(self.file.path), msgspec.json.encode(kept))
            self._used_at_ns = newest
        except OperatorError as error:
            log.warning("keys_used_not_noted", error=str(error))

    async def run(self) -> None:
        """Look every half second until cancelled."""
        turns = 0
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()
            turns += 1
            if turns % int(USED_EVERY_S / LOOK_S) == 0:
                await asyncio.to_thread(self.note_used)

    def _complain(self, what: str, now_ns: int) -> None:
        if what != self.problem or now_ns - self._said_ns > SAY_EVERY_S * 1e9:
            log.error("keys_not_taken", error=what, counts="what was read last")
            self._said_ns = now_ns
        self.problem = what
        self._stale.set(1)


def used_path(keys: Path) -> Path:
    """Return where the times of use are, beside the keys."""
    return keys.with_name(f"{keys.stem}-used.json")


def used(keys: Path) -> dict[str, str]:
    """Return when each key was shown last, as far as it was noted."""
    try:
        return msgspec.json.decode(used_path(keys).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return {}

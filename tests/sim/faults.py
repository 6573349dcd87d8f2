"""Makes the planned faults happen to a running world, and takes every one of them back when the world heals.

Invariant: after `heal()` every process runs, every link works and both servers answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tests.sim.links import Link
from tests.sim.loop import Process
from tests.sim.plan import Fault

if TYPE_CHECKING:
    from tests.sim.components import Component
    from tests.sim.world import World

T = TypeVar("T")
CUTS: dict[str, Any] = {"hang": "both", "hang_up": "up", "hang_down": "down", "refuse": "refused"}
SLOW_S = 0.6
JUMPS_S = (-20.0, -3.0, -0.5, 0.5, 3.0, 20.0)
POISON = (b"", b"\xff\xfe", b"[", b'{"seq":"x"}', b"[1,2,3]", b"null")
BACK_S = 0.5  # a killed process is started again after the fault, at the earliest after this


class Faults:
    """Carries out a plan's faults."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.forgot = False  # the cache lost what no process may know any more
        self.poisoned = False  # a symbol begins anew
        self.astray: set[str] = set()  # sources of which a position was lost: what comes again is counted again
        self.changed_s = 0.0  # when anything began or ended
        self._undo: list[Callable[[], None]] = []

    def schedule(self) -> None:
        """Set the timers."""
        for fault in self.world.plan.faults:
            self.world.loop.call_later(fault.at_s - self.world.now_s, self._begin, fault)

    def heal(self) -> None:
        """End every fault that has not ended by itself."""
        world = self.world
        self.changed_s = world.now_s
        for link in world.network.links.values():
            link.mend()
        for undo in self._undo:
            undo()
        self._undo.clear()
        for process in (world.cache.process, world.queues.process):
            _resume(process)
        for component in world.components:
            if component.process is not None:
                _resume(component.process)
            component.boot()

    def _begin(self, fault: Fault) -> None:
        self.changed_s = self.world.now_s
        getattr(self, f"_{fault.what}")(fault)

    def _later(self, fault: Fault, undo: Callable[[], None]) -> None:
        def once() -> None:
            if undo in self._undo:
                self._undo.remove(undo)
                self.changed_s = self.world.now_s
                undo()

        self._undo.append(undo)
        self.world.loop.call_later(fault.for_s, once)

    def _tell(self, fault: Fault, whom: str) -> None:
        self.world.tell(f"FAULT {fault.what} {whom} for {fault.for_s:.2f} s")

    # --- processes

    def _victim(self, fault: Fault) -> Component:
        return _choose(self.world.components, fault.dice)

    def _pause(self, fault: Fault) -> None:
        process = self._victim(fault).process
        if process is not None and not process.dead and not process.paused:
            self._tell(fault, process.name)
            process.paused = True
            self._later(fault, lambda: self._wake(process))

    def _wake(self, process: Process) -> None:
        if process.paused:
            self.world.tell(f"{process.name} wakes")
            _resume(process)

    def _kill(self, fault: Fault) -> None:
        component = self._victim(fault)
        self._tell(fault, component.name)
        component.kill()
        self.world.loop.call_later(BACK_S + fault.for_s / 2, component.boot)

    def _restart(self, fault: Fault) -> None:
        component = self._victim(fault)
        self._tell(fault, component.name)
        component.terminate()

    def _clock_jump(self, fault: Fault) -> None:
        machines = [*self.world.components, self.world.cache, self.world.queues]
        machine: Any = _choose(machines, fault.dice)
        skew_ns = int(_choose(JUMPS_S, fault.other) * 1e9)
        self._tell(fault, f"{machine.process.name} by {skew_ns / 1e9} s")
        machine.process.clock.skew_ns = skew_ns
        if machine in self.world.components:
            machine.skew_ns = skew_ns  # of the machine: it outlives the process

    # --- links

    def _links(self, fault: Fault) -> Link:
        network = self.world.network
        live = [link for link in network.links.values() if not link.client.dead]
        return _choose(live, fault.dice)

    def _cut(self, fault: Fault) -> None:
        link = self._links(fault)
        self._tell(fault, link.name)
        link.cut(CUTS[fault.what])
        self._later(fault, link.mend)

    _hang = _hang_up = _hang_down = _refuse = _cut

    def _slow(self, fault: Fault) -> None:
        link = self._links(fault)
        self._tell(fault, link.name)
        link.up.slow_s = link.down.slow_s = SLOW_S * fault.other
        self._later(fault, link.mend)

    def _reset(self, fault: Fault) -> None:
        link = self._links(fault)
        self._tell(fault, link.name)
        link.reset()

    def _lose_answers(self, fault: Fault) -> None:
        """Nothing comes back for a moment; then the connection breaks, after the effect."""
        link = self._links(fault)
        self._tell(fault, link.name)
        link.down.block()

        def end() -> None:
            link.reset(effect=True)
            link.down.unblock()

        self.world.loop.call_later(min(fault.for_s, 0.3), end)

    # --- queues

    def _queues_restart(self, fault: Fault) -> None:
        self._tell(fault, "")
        queues = self.world.queues
        if queues.listening:
            queues.stop()
            self._later(fault, queues.start)

    def _queues_drop(self, fault: Fault) -> None:
        self._tell(fault, "")
        self.world.queues.drop_connections()

    def _queues_pause(self, fault: Fault) -> None:
        self._tell(fault, "")
        process = self.world.queues.process
        process.paused = True
        self._later(fault, lambda: _resume(process))

    # --- cache

    def _cache_pause(self, fault: Fault) -> None:
        self._tell(fault, "")
        process = self.world.cache.process
        process.paused = True
        self._later(fault, lambda: _resume(process))

    def _cache_restart(self, fault: Fault) -> None:
        """Stop and start with everything that was written."""
        cache = self.world.cache
        if cache.listening:
            self._tell(fault, "")
            cache.stop()
            data = cache.copy()
            self._later(fault, lambda: cache.start(data))

    def _cache_empty(self, fault: Fault) -> None:
        cache = self.world.cache
        if cache.listening:
            self._tell(fault, "")
            self.forgot = True
            cache.stop()
            self._later(fault, lambda: cache.start(None))

    def _cache_roll_back(self, fault: Fault) -> None:
        """Restart from a copy of a while ago."""
        cache = self.world.cache
        data = cache.copy()

        def back() -> None:
            if cache.listening:
                self._tell(fault, "(now)")
                cache.stop()
                cache.start(data)

        self.forgot = True
        self._later(fault, back)

    def _cache_poison(self, fault: Fault) -> None:
        """One cell of a checkpoint becomes unreadable; whoever owned the partition then dies."""
        world = self.world
        cells = [
            (p, name) for p in range(world.plan.partitions) for name in sorted(world.cache.read(f"cp:{p}") or ()) if b":" in name
        ]
        if not cells:
            return
        partition, name = _choose(cells, fault.dice)
        self._tell(fault, f"cp:{partition} {name.decode()}")
        world.cache.read(f"cp:{partition}")[name] = _choose(POISON, fault.other)
        self.poisoned = True
        if name.startswith(b"position:"):
            self.astray.add(name.removeprefix(b"position:").partition(b"/")[0].decode())
        for component in world.workers:
            if component.alive and component.worker is not None and partition in component.worker.owned:
                component.kill()
                world.loop.call_later(BACK_S, component.boot)

    def _cache_fail_over(self, fault: Fault) -> None:
        """A replica that lags by a moment takes over."""
        cache = self.world.cache
        data = cache.copy()

        def promote() -> None:
            if cache.listening:
                self._tell(fault, "(now)")
                self.forgot = True
                cache.stop()
                self._later(fault, lambda: cache.start(data))

        self.world.loop.call_later(0.05 + 0.3 * fault.other, promote)


def _resume(process: Process) -> None:
    if process.paused:
        process.resume()


def _choose(many: Sequence[T], dice: float) -> T:
    return many[int(dice * len(many)) % len(many)]

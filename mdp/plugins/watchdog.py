"""Ends a worker whose plug-in does not return, and has the cache say so first: nobody shall run into it again.

Python cannot stop a call that never ends, and with it stands the loop: leases, heartbeats, all other analyzers. So a thread looks
at what is at work. It puts the plug-in off for all workers, prints the place where it stands and one line, and ends the process:
its supervisor starts it again, and until then others have the partitions. A call that also keeps Python's lock (a regular
expression that never ends) keeps this thread from running, too: then `/livez` does not answer, and
`python -m mdp plugins --off NAME` is the cure.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import Any

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry

from mdc import keys
from mdc.connect import AWAY
from mdp.plugins.host import Watch
from mdp.plugins.rack import Order
from service.cluster_url import is_cluster, parse_cluster_url
from service.keyspace import CLUSTERED, SINGLE

LOOK_S = 0.1
WRITE_S_MAX = 0.5
EXIT_CODE = 70  # EX_SOFTWARE: not a wrong setting, so that supervisors start us again
IMPORT_NS_MAX = 30_000_000_000  # a plug-in may import large libraries, before the worker owns anything


def starved_ns(thread: int = 0) -> int:
    """Return for how long a thread (0 = this one) was ready to run and had no processor; 0 where the kernel does not say.

    Cost: 20 µs.
    """
    try:
        with open(f"/proc/self/task/{thread or threading.get_native_id()}/schedstat", "rb") as file:
            return int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return 0


class Watchdog:
    """Looks at `watch` from a thread. `most_ns` is how long a call may take."""

    def __init__(self, watch: Watch, most_ns: int, mdc_url: str, worker: str) -> None:
        self._watch = watch
        self.importing = False
        self._most_ns = most_ns
        self._mdc_url = mdc_url
        self._worker = worker
        self._loop_thread, self._loop_tid = threading.get_ident(), threading.get_native_id()

    def start(self) -> None:
        """Begin to look; the thread ends with the process."""
        threading.Thread(target=self._run, name="plug-in watchdog", daemon=True).start()

    def on_import(self, name: str) -> None:
        """A plug-in is imported now; empty when all are."""
        self.importing = bool(name)
        self._watch.name, self._watch.since_ns = name, time.monotonic_ns() if name else 0

    def _run(self) -> None:
        before_ns = looks = waited_ns = 0
        while True:
            time.sleep(LOOK_S)
            since_ns, name = self._watch.since_ns, self._watch.name
            if since_ns != before_ns:
                before_ns, looks, waited_ns = since_ns, 0, starved_ns(self._loop_tid)
            looks += 1
            late_ns = time.monotonic_ns() - since_ns
            most_ns = IMPORT_NS_MAX if self.importing else self._most_ns
            # Who was frozen had no looks either, and a thread without a processor cannot return: no fault of the plug-in.
            seen = since_ns and looks * LOOK_S * 1e9 >= most_ns * 0.7
            if seen and late_ns - (starved_ns(self._loop_tid) - waited_ns) > most_ns:
                self._end(name, late_ns / 1e9)

    def _end(self, name: str, seconds: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        trace = "".join(traceback.format_stack(frame)[-3:]) if frame is not None else ""
        why = f"it did not return for {seconds:.1f} s"
        kept = self._put_off(name, why)
        fix = f"python -m mdp plugins --on {name}, when it is mended" if kept else "MDP_PLUGINS can leave it out"
        print(f"{trace}tapeline mdp: error: the plug-in {name} is off: {why}. {fix}.", file=sys.stderr, flush=True)
        os._exit(EXIT_CODE)  # the loop stands: nothing in order is possible

    def _put_off(self, name: str, why: str) -> bool:
        """Say in the cache that the plug-in is off; return whether that worked."""
        if self._mdc_url.startswith("memory:"):
            return False  # it ends with us
        order = Order("off", why, f"watchdog of {self._worker}", time.time_ns() // 1_000_000, self.importing)
        with suppress(*AWAY):
            client, shared = _client(self._mdc_url)
            client.hset(shared + keys.PLUGINS, name, msgspec.json.encode(order))
            return True
        return False


def _client(url: str) -> tuple[Any, str]:
    """Return a client that needs no event loop, and what stands before keys that belong to no partition."""
    options: dict[str, Any] = {
        "socket_timeout": WRITE_S_MAX,
        "socket_connect_timeout": WRITE_S_MAX,
        "retry": Retry(NoBackoff(), 0),
    }
    if not is_cluster(url):
        return redis.Redis.from_url(url, **options), SINGLE.shared
    cluster = parse_cluster_url(url)
    nodes = [ClusterNode(host, port) for host, port in cluster.nodes]  # type: ignore[no-untyped-call]
    return redis.RedisCluster.from_url(cluster.of(cluster.nodes[0]), startup_nodes=nodes, **options), CLUSTERED.shared

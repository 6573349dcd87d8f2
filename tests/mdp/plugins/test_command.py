"""`python -m mdp plugins`: how plug-ins are, off and on, and what is taken away of one that is gone."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from mdc import keys
from mdp.plugins.command import plugins
from mdp.settings import MdpSettings
from service.errors import OperatorError
from tests.servers import free_port

NO_PLUGINS = ["no processor has a plug-in; mdp/plugins/README.md says how one is installed"]


async def say(cache: Any, **told: Any) -> None:
    """Write the pipeline's status with these plug-ins, as of now."""
    now_ms = time.time_ns() // 1_000_000
    data = {"sources": {}, "processors": {"plugins": told}, "ts": now_ms}
    await cache.set(
        "ch:status:pipeline", json.dumps({"ch": "status:pipeline", "epoch": "e", "seq": 1, "ts": now_ms, "data": data})
    )


async def test_each_has_a_line_and_operators_have_the_last_word(cache: Any, cache_url: str) -> None:
    """State, figures and reason; off and on are entries that all workers read."""
    settings = MdpSettings(mdc_url=cache_url)
    assert await plugins(settings) == NO_PLUGINS
    spread = {
        "state": "running",
        "versions": ["1.0", "1.1"],
        "workers": 2,
        "failures": 1,
        "gaps": 1,
        "missed_events": 7,
        "off": [],
        "error": "x",
    }
    await say(cache, spread=spread)
    line = "spread: running; version 1.0, 1.1; 2 worker(s); 1 failure(s); 1 gap(s); 7 missed event(s); x"
    assert await plugins(settings) == [line]
    [said] = await plugins(settings, off="spread")
    assert said.startswith("the plug-in spread is off")
    order = json.loads(await cache.hget(keys.PLUGINS, "spread"))
    assert (order["state"], order["why"]) == ("off", "put off by hand")
    await say(cache, spread=spread | {"state": "off", "off": [0, 3]})
    assert "spread: off" in (await plugins(settings))[0]
    assert "not in partitions 0, 3" in (await plugins(settings))[0]
    await plugins(settings, on="spread")
    assert json.loads(await cache.hget(keys.PLUGINS, "spread"))["state"] == "on"


async def test_what_a_plugin_has_left_is_taken_away_when_nobody_has_it(cache: Any, cache_url: str) -> None:
    """Its cells, channels and lists of names; never while a worker has it, and nothing of others with a similar name."""
    settings = MdpSettings(mdc_url=cache_url)
    await cache.set(keys.PARTITIONS, 2)
    mine = {"own:spread:A": "1", "ownlog:spread:A": "1", "plugin:spread": "[]"}
    others = {"own:spread2:A": "1", "plugin:spread2": "[]", "quote:A": "[]"}
    for number in range(2):
        await cache.hset(keys.checkpoint(number), mapping=mine | others)
    await cache.sadd("idx:own:spread", "A", "B")
    await cache.sadd("idx:ownlog:spread", "A")
    for channel in ("own:spread:A", "own:spread:B", "own:spread2:A"):
        await cache.set(f"ch:{channel}", "{}")
    await cache.rpush("ch:ownlog:spread:A", "{}")
    await say(cache, spread={"state": "running", "workers": 1})
    with pytest.raises(OperatorError, match="1 processor"):
        await plugins(settings, remove="spread")
    await say(cache)
    assert await plugins(settings, remove="spread") == ["6 cells of checkpoints and 3 channels of the plug-in spread are deleted"]
    for number in range(2):
        assert {name.decode() for name in await cache.hkeys(keys.checkpoint(number))} == others.keys()
    assert await cache.exists("ch:own:spread:A", "ch:ownlog:spread:A", "idx:own:spread") == 0
    assert await cache.exists("ch:own:spread2:A") == 1


@pytest.mark.parametrize("name", ["tea", "Bad Name", "x" * 200, "own:spread"])
async def test_a_name_that_nobody_knows_is_refused(cache: Any, cache_url: str, name: str) -> None:
    """In a line that says which there are."""
    await say(cache, spread={"state": "running"})
    with pytest.raises(OperatorError, match=r"nobody knows a plug-in .*; there are .*spread") as caught:
        await plugins(MdpSettings(mdc_url=cache_url), off=name)
    assert len(str(caught.value)) < 200
    assert await cache.exists(keys.PLUGINS) == 0


async def test_an_absent_cache_is_one_line() -> None:
    """With what to do about it."""
    with pytest.raises(OperatorError, match="Redis at MDC_URL does not answer"):
        await plugins(MdpSettings(mdc_url=f"redis://127.0.0.1:{free_port()}/0"))

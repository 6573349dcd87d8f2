"""Several sources in one listener: a simulator and an exchange, each with its own state."""

from __future__ import annotations

import asyncio
import json

from mdq.broker_memory import hub
from mdq.connect import open_broker
from tests.mdl.exchange import Exchange
from tests.mdl.rig import Processor, Start, call, only
from tests.waiting import until


async def test_a_listener_follows_both_and_says_which_one_is_away(start: Start, name: str) -> None:
    """The exchange may go and come back: the simulator goes on, readiness names the part, all its events are published."""
    exchange = Exchange()
    exchange.list("BTC-PERP")
    await exchange.start()
    listener = await start(f"memory://{name}", feed="simulator+engine", rate=200, engine_url=exchange.url)
    await until(lambda: exchange.joins and not listener.unready())
    sent = 0
    for sent in range(1, 11):
        exchange.send(("BTC-PERP", "Buy", 100.0, sent), trades=("BTC-PERP",))
    await until(lambda: exchange.purges and exchange.purges[-1] == sent)
    told = (await call(listener, "GET", "/feed")).json()["sources"]
    assert told["exchange"]["settings"] == {"url": exchange.url, "store": "mdl", "depth": 20}
    assert told["simulator"]["settings"]["rate"] == 200
    await exchange.stop()
    await until(lambda: any(reason.startswith("exchange: feed connecting: ") for reason in listener.unready()))
    simulator, engine = listener.sources["simulator"], listener.sources["exchange"]
    assert (simulator.facts()["state"], engine.facts()["state"]) == ("live", "connecting")
    received = simulator.facts()["received_events"]
    await until(lambda: simulator.facts()["received_events"] > received + 50)
    exchange.send(trades=("BTC-PERP",))
    await exchange.start()
    await until(lambda: exchange.purges[-1] == sent + 1, 10)
    assert listener.unready() == []
    assert engine.facts()["feed_dropped_frames"] == 0
    answer = await call(listener, "POST", "/feed", {"feed": "engine"})
    assert list(answer.json()["sources"]) == ["exchange"]
    exchange.send(trades=("BTC-PERP",))
    await until(lambda: exchange.purges[-1] == sent + 2)
    await exchange.stop()


async def test_what_the_exchange_keeps_is_not_taken_while_the_broker_is_away(start: Start, name: str) -> None:
    """However long that lasts, its prints are only late: not one is lost, doubled or out of order."""
    exchange, broker = Exchange(), open_broker(f"memory://{name}", "processor")
    exchange.list("BTC-PERP")
    await exchange.start()
    await broker.connect()
    processor = Processor(broker)
    listener = await start(f"memory://{name}", feed="engine", engine_url=exchange.url)
    await processor.start()
    await until(lambda: not listener.unready())
    exchange.send(trades=("BTC-PERP",))
    await until(lambda: exchange.purges == [1])
    hub(name).stop()
    await until(lambda: not listener.broker.ready)
    for _ in range(30):
        exchange.send(trades=("BTC-PERP",))
        await asyncio.sleep(0.01)  # a market does not pause for our broker
    assert exchange.purges == [1]
    assert only(listener).facts()["received_events"] < 10, "one frame at the most is under way"
    hub(name).start()
    await processor.die()
    await until(lambda: exchange.purges[-1] == 31, 10)
    await broker.connect()
    await processor.start()
    await until(lambda: processor.count("trades") >= 31)
    trades = [
        json.loads(event)["i"] for (stream, _), events in processor.events.items() if stream == "trades" for event in events
    ]
    assert trades == [str(n) for n in range(1, 32)]
    assert processor.lost == 0
    assert only(listener).facts()["dropped_events"] == 0
    await processor.die()
    await broker.close()
    await exchange.stop()

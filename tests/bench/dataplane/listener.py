"""How many events a second does the listener alone publish: frames in memory → batches confirmed by the broker, one core.

`python -m tests.bench.dataplane.listener [--events 2000000] [--tiny]`: one JSON line a figure. Excluded: the feed's socket, making
the frames, consumers. RabbitMQ is a private node when it is installed; its work is on the machine but not in our process.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

import uvloop

from mdl.buffer import FrameBuffer
from mdl.feeds.feed import Frame
from mdl.intake import Intake
from mdl.measured_broker import MeasuredBroker
from mdl.router import Router
from mdl.simulation.market import Simulator
from mdq.connect import open_broker
from mdq.publisher import Publisher
from service.clock import SystemClock
from tests.servers import RabbitMQ, ServerMissing

PARTITIONS = 8
FRAME_EVENTS = 100


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--tiny", action="store_true", help="a moment's work, for the tests; its numbers mean nothing")
    arguments = parser.parse_args()
    events = 20_000 if arguments.tiny else arguments.events
    for figure in measure(events, rabbit=not arguments.tiny):
        print(json.dumps(figure), flush=True)


def measure(events: int, rabbit: bool) -> Iterator[dict[str, Any]]:
    """Yield one figure after another."""
    began = time.perf_counter()
    frames = make_frames(events)
    yield figure("simulator_events_per_s", events / (time.perf_counter() - began), frames, "simulator alone")
    yield figure("router_events_per_s", route_only(frames), frames, "router alone")
    yield figure("events_per_s", uvloop.run(publish("memory://bench", frames)), frames, "memory broker, no consumer")
    if rabbit:
        yield from measure_rabbit(frames)


def measure_rabbit(frames: list[bytes]) -> Iterator[dict[str, Any]]:
    """The same against a private RabbitMQ, if there is one on this machine."""
    try:
        server = RabbitMQ()
    except ServerMissing:
        return
    with server:
        rate = uvloop.run(publish(server.url, frames))
        yield figure("rabbitmq_events_per_s", rate, frames, "RabbitMQ on the same machine, publisher confirms, no consumer")


def make_frames(events: int, symbols: int = 2_000) -> list[bytes]:
    """Return frames of 100 events, 200 frames a simulated second."""
    simulator = Simulator(symbols, seed=7)
    begin_ms = 1_767_623_400_000
    return [simulator.frame(begin_ms + number * 5, FRAME_EVENTS) for number in range(events // FRAME_EVENTS)]


def route_only(frames: list[bytes]) -> float:
    """Return events/s of the router with nothing behind it."""
    router = Router(PARTITIONS)
    began = time.perf_counter()
    for frame in frames:
        router.route(frame)
        router.take()
    return router.events / (time.perf_counter() - began)


async def publish(url: str, frames: list[bytes]) -> float:
    """Return events/s from the first frame to the last confirmation."""
    broker = open_broker(url, "bench")
    await broker.connect()
    measured: Any = MeasuredBroker(broker)
    publisher = Publisher(measured, PARTITIONS, "bench")
    publisher.lossless = True  # nothing may be lost, or the figure lies
    await publisher.start()
    intake = Intake("bench", FrameBuffer(64 * 1024 * 1024, 10_000), PARTITIONS, measured, SystemClock())
    intake.attach(publisher)
    route = asyncio.create_task(intake.route())
    began = time.perf_counter()
    for number, frame in enumerate(frames):
        intake.take(Frame(frame, time.time_ns()))
        if number % 20 == 0:
            await asyncio.sleep(0)
        await intake.room()
    while not intake.idle or publisher.pending_events:  # noqa: ASYNC110  # nothing signals the last confirmation
        await asyncio.sleep(0.005)
    took_s = time.perf_counter() - began
    published = publisher.published.total()
    assert published == len(frames) * FRAME_EVENTS, f"{published} of {len(frames) * FRAME_EVENTS} events confirmed"
    route.cancel()
    await publisher.close()
    await broker.close()
    return published / took_s


def figure(name: str, value: float, frames: list[bytes], workload: str) -> dict[str, Any]:
    """Return one result; `hash` tells whether two runs had the same input."""
    return {
        "bench": "listener",
        "figure": name,
        "value": round(value),
        "unit": "events/s",
        "workload": f"{len(frames) * FRAME_EVENTS} events, 2000 symbols, 70 % quotes, frames of 100; {workload}",
        "hash": hashlib.sha256(b"".join(frames[:100])).hexdigest()[:16],
    }


if __name__ == "__main__":
    main()

"""The pipeline on real servers while things break: what is lost is counted to the event, what can go on goes on by itself."""

from __future__ import annotations

import signal
import time

import pytest

from tests.market import RATE, Market

pytestmark = pytest.mark.live


def test_a_frozen_processor_costs_exactly_the_expired_events(market: Market) -> None:
    """With the only processor stopped for 10 s the vendor's socket flows on, and every event that expired is counted."""
    market.start()
    received = market.listener()["received_events"]
    market.running.processes["mdp0"].send_signal(signal.SIGSTOP)
    time.sleep(10)  # the fault itself: twice the TTL of the queues
    facts, clients = market.listener(), market.clients()
    market.running.processes["mdp0"].send_signal(signal.SIGCONT)
    assert facts["received_events"] - received > 8 * RATE, "the listener stopped receiving"
    assert facts["reconnects"] == 0, "the vendor cut the listener"
    assert [c["waiting_bytes"] for c in clients] == [0], "the vendor's socket was blocked"
    counts = market.settle()
    assert counts["expired"] > 2 * RATE, counts
    assert counts["bad"] == 0, counts


def test_rabbitmq_restarted_in_mid_stream(market: Market) -> None:
    """Over a restart of RabbitMQ no component restarts, flow resumes by itself and what was lost is counted."""
    market.start()
    market.running.rabbitmq.restart()
    before = market.running.counts()["events"]
    market.running.wait("flow after the restart", lambda: market.running.counts()["events"] > before + 2 * RATE, 30)
    assert market.listener()["reconnects"] == 0, "the vendor's socket must not notice"
    market.settle()
    assert all(process.poll() is None for process in market.running.processes.values())


def test_redis_restarted_empty_keeps_every_number(market: Market) -> None:
    """After Redis comes back empty the processors write everything they know again: totals go on, none starts at zero."""
    market.start(workers=2)
    market.running.wait("a few seconds of market", lambda: market.running.counts()["events"] > 3 * RATE)
    market.running.cache.restart(empty=True)
    market.running.wait("flow after the restart", lambda: market.running.counts()["events"] > 5 * RATE, 30)
    market.settle()
    events = market.running.counts()["events"]
    received, accounted = market.balance()
    assert received == accounted, (received, accounted, events)


def test_the_vendor_drops_refuses_and_sends_garbage(market: Market) -> None:
    """A dropped connection, a refused one and frames that are not JSON: the listener counts them and comes back each time."""
    market.start()
    market.fault("garbage", "not JSON at all")
    market.running.wait("garbage counted", lambda: market.listener()["malformed"] >= 1)
    market.fault("refuse")
    market.fault("drop")
    market.running.wait("the listener knows", lambda: market.listener()["state"] != "live")
    market.fault("heal")
    market.running.wait("the listener is back", lambda: market.listener()["state"] == "live", 30)
    events = market.running.counts()["events"]
    market.running.wait("flow again", lambda: market.running.counts()["events"] > events + RATE)
    assert market.listener()["reconnects"] >= 1
    market.settle()


def test_a_crashed_processor_is_replaced_within_five_seconds(market: Market) -> None:
    """After SIGKILL of one of two workers the other owns everything within 5 s and no event is lost or doubled."""
    market.start(workers=2)
    began = time.monotonic()
    market.running.stop("mdp0", signal.SIGKILL)
    market.running.wait(
        "take-over", lambda: set(market.running.owners().values()) == {"w1"} and len(market.running.owners()) == 8, 5, patience=1
    )
    took = time.monotonic() - began
    counts = market.settle()
    assert took < 5
    assert (counts["expired"], counts["dropped"]) == (0, 0), counts


def test_a_worker_that_is_asked_to_stop_hands_over_without_a_loss(market: Market) -> None:
    """SIGTERM drains within 10 s: the last flush is written, partitions are released, nothing is lost or doubled."""
    market.start(workers=2)
    began = time.monotonic()
    assert market.running.stop("mdp1") == 0
    assert time.monotonic() - began < 10
    counts = market.settle()
    assert (counts["expired"], counts["dropped"], counts["redelivered"]) == (0, 0, 0), counts

"""Queue names and declaration arguments."""

from __future__ import annotations

import pytest

from mdq.topology import PARTITIONED, SINGLE, STREAM_OF_EVENT, STREAMS, all_queues, other_arguments, queue, queues_of

# What RabbitMQ 4.x refuses or has deprecated for queues that several connections share.
DEPRECATED = {"x-ha-policy", "ha-mode", "x-queue-mode", "x-queue-master-locator", "x-max-priority", "x-expires"}


def test_names_say_stream_and_partition() -> None:
    """A queue is called md.<stream>.<partition>."""
    assert queue("trades", 5).name == "md.trades.5"


def test_every_queue_is_declared_as_4x_accepts_it() -> None:
    """Classic, bounded in age and bytes, drop-head, single active consumer; no mirroring and nothing deprecated."""
    for made in all_queues(4):
        assert made.arguments()["x-queue-type"] == "classic"
        assert made.arguments()["x-overflow"] == "drop-head"
        assert made.arguments()["x-single-active-consumer"] is True
        assert made.arguments()["x-message-ttl"] == (900_000 if made.stream == "news" else 5_000)
        assert made.arguments()["x-max-length-bytes"] == 64 * 1024 * 1024
        assert not DEPRECATED & set(made.arguments())


def test_quorum_queues_keep_the_same_bounds() -> None:
    """Age, bytes, drop-head and the single active consumer are those of a classic queue; no redelivery ends a batch early."""
    made = queue("news", 3)
    classic, quorum = made.arguments(), made.arguments("quorum")
    assert classic.items() - quorum.items() == {("x-queue-type", "classic")}
    assert quorum["x-queue-type"] == "quorum"
    assert quorum["x-quorum-initial-group-size"] == 3
    assert int(quorum["x-delivery-limit"]) >= 1_000_000
    assert not DEPRECATED & set(quorum)


@pytest.mark.parametrize("partitions", [1, 2, 8])
def test_owners_read_every_queue_exactly_once(partitions: int) -> None:
    """The queues of all partitions together are the deployment's queues; only partition 0 reads the single ones."""
    read = [made for partition in range(partitions) for made in queues_of(partition)]
    assert sorted(made.name for made in read) == sorted(made.name for made in all_queues(partitions))
    assert len({made.name for made in read}) == len(PARTITIONED) * partitions + len(SINGLE)


def test_event_types_lead_to_streams_that_exist() -> None:
    """No event type is mapped to a stream without a queue."""
    assert set(STREAM_OF_EVENT.values()) <= set(STREAMS)


def test_the_error_for_other_arguments_names_the_queue_and_the_way_out() -> None:
    """The operator reads which queue it is and the command that removes it."""
    error = other_arguments(queue("quotes", 1), "inequivalent arg 'x-message-ttl'")
    assert "md.quotes.1" in error.what
    assert "rabbitmqctl delete_queue md.quotes.1" in error.fix
    error = other_arguments(queue("quotes", 1), "inequivalent arg 'x-queue-type' for queue 'md.quotes.1'")
    assert "md.quotes.1" in error.what
    assert "python -m mdq redeclare" in error.fix

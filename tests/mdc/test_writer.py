"""Tests that a flush makes one state and one message: the writer's contract, the same for every kind of cache."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mdc import keys
from mdc.channels import DAY_MS, KEPT_MS, KINDS
from mdc.connect import CacheRefused, CacheUnavailable, open_cache
from mdc.documents import decode_message
from mdc.writer import CHECKPOINT_MS, Flush, Outcome, Writer
from service.errors import OperatorError
from tests.mdc.ground import PARTITIONS, contents, everything, life, open_source
from tests.servers import free_port


async def listen(redis: Any, *channels: str) -> Any:
    """Subscribe; return the pub/sub connection, ready to read."""
    pubsub = redis.pubsub()
    await pubsub.subscribe(*channels)
    for _ in channels:
        assert (await pubsub.get_message(timeout=5))["type"] == "subscribe"
    return pubsub


async def heard(pubsub: Any) -> bytes | None:
    """Return the next message, None when there is none."""
    message = await pubsub.get_message(timeout=0.05)
    return None if message is None else message["data"]


async def test_a_flush_appears_whole_in_cache_checkpoint_and_updates(cache: Any) -> None:
    """After one call the documents, history, shares, index, letters, checkpoint and messages are all there."""
    source = await open_source(cache)
    pubsub = await listen(cache, "up:quote:0", "up:trades:0", "up:bars:0", "up:halts:0", "up:shared:0")
    flush = source.flush()
    everything(flush, source)
    assert await source.send(flush) is Outcome.APPLIED
    found = await contents(cache)
    assert json.loads(found[b"ch:quote:AAPL"])["data"] == {"last": 1}
    assert [json.loads(d)["data"] for d in found[b"ch:trades:AAPL"]] == [{"price": 1}]
    assert found[b"hist:bars:1m:AAPL"] == [b"[0,1,1,1,1,1,1,1]"]
    assert found[b"part:board:volume"] == {b"0": b"[]"}
    assert found[b"idx:quote"] == {b"AAPL"}
    assert found[keys.DEAD_LETTERS.encode()] == [b"{}"]
    assert found[b"cp:0"] == {b"flush": b"1", b"life": b"e1", b"counts": b"{}"}
    messages = [await heard(pubsub) for _ in range(5)]
    assert sorted(doc.ch for body in messages if body for doc in decode_message(body)) == [
        "alerts:range", "bars:1m:AAPL", "board:volume", "halts:AAPL", "quote:AAPL", "status:pipeline", "trades:AAPL",
    ]  # fmt: skip
    await pubsub.aclose()


@pytest.mark.parametrize("case", ["fenced", "new cache", "emptied", "rolled back"])
async def test_a_refused_flush_changes_nothing(cache: Any, case: str) -> None:
    """Who lost the partition, the cache's life or its newest flushes writes nothing and publishes nothing."""
    source = await open_source(cache)
    await source.publish(("quote:AAPL", {"last": 1}))
    if case == "fenced":
        await source.redis.incr("fence:partition:0")
    elif case == "new cache":
        await cache.set(keys.EPOCH, "e2")
    elif case == "emptied":
        await cache.flushdb()
        await cache.set("fence:partition:0", 1)
    else:
        source.number += 1  # a flush was applied, and the cache has forgotten it
    before = await contents(cache)
    pubsub = await listen(cache, "up:quote:0", "up:shared:0")
    flush = source.flush()
    everything(flush, source)
    wanted = {"fenced": Outcome.FENCED, "rolled back": Outcome.ROLLED_BACK}.get(case, Outcome.NEW_CACHE)
    assert await source.send(flush) is wanted
    assert await contents(cache) == before
    assert await heard(pubsub) is None
    await pubsub.aclose()


async def test_a_flush_sent_again_after_a_lost_answer_is_applied_once(cache: Any) -> None:
    """The writer cannot know whether a lost answer meant a lost flush: sending it again never doubles anything."""
    source = await open_source(cache)
    pubsub = await listen(cache, "up:trades:0", "up:shared:0")
    flush = source.flush()
    everything(flush, source)
    assert await source.send(flush) is Outcome.APPLIED
    once = await contents(cache)
    assert await source.send(flush) is Outcome.APPLIED
    assert await contents(cache) == once
    assert await heard(pubsub) is not None
    assert await heard(pubsub) is not None
    assert await heard(pubsub) is None
    await source.publish(("quote:AAPL", {"last": 2}))  # and the next one goes on
    await pubsub.aclose()


async def test_a_new_life_starts_over_once_and_drops_the_old_checkpoint(cache: Any) -> None:
    """The first flush into a new life replaces whatever checkpoint is there; sent again it does nothing."""
    source = await open_source(cache)
    old = source.flush()
    old.checkpoint += ("quote:OLD", b"[]")
    assert await source.send(old) is Outcome.APPLIED
    await source.writer.renew("e1", "e2")
    source.epoch = "e2"
    source.number += 5  # flushes that the cache has lost
    flush = source.flush(start_over=True)
    source.add(flush, "trades:AAPL", {"price": 7})
    assert await source.send(flush) is Outcome.APPLIED
    assert await source.send(flush) is Outcome.APPLIED
    assert await cache.llen("ch:trades:AAPL") == 1
    assert await cache.hgetall("cp:0") == {b"flush": b"7", b"life": b"e2", b"counts": b"{}"}
    await source.publish(("quote:AAPL", {"last": 2}))


async def test_times_to_live_are_those_of_the_catalogue(cache: Any) -> None:
    """Every key lives as long as its kind says, the pipeline's status for ever."""
    source = await open_source(cache)
    flush = source.flush()
    everything(flush, source)
    assert await source.send(flush) is Outcome.APPLIED
    wanted = {f"ch:{ch}": KINDS[kind].ttl_ms for ch, kind in (
        ("quote:AAPL", "quote"), ("trades:AAPL", "trades"), ("halts:AAPL", "halts"), ("bars:1m:AAPL", "bars:1m"),
        ("alerts:range", "alerts"), ("board:volume", "board"), ("status:pipeline", "status"),
    )} | {"hist:bars:1m:AAPL": KEPT_MS, "cp:0": CHECKPOINT_MS}  # fmt: skip
    for key, ttl_ms in wanted.items():
        left = await cache.pttl(key)
        assert left == -1 if ttl_ms == 0 else ttl_ms - 60_000 < left <= ttl_ms, (key, left)


async def test_a_list_lives_on_while_it_is_written(cache: Any) -> None:
    """The time to live counts from the last event or bar, not from the first."""
    source = await open_source(cache)
    await source.publish(("trades:AAPL", 1))
    flush = source.flush()
    flush.add_history("bars:1m", "bars:1m:AAPL", [b"[0]"])
    flush.add_shared("alerts", "alerts:range", 5, b"{}")
    await source.send(flush)
    lists = ("ch:trades:AAPL", "hist:bars:1m:AAPL", "ch:alerts:range")
    for key in lists:
        await cache.pexpire(key, 50_000)
    flush = source.flush()
    source.add(flush, "trades:AAPL", 2)
    source.add(flush, "trades:MSFT", 2)
    flush.add_history("bars:1m", "bars:1m:AAPL", [b"[1]", b"[2]"])
    flush.add_shared("alerts", "alerts:range", 5, b"{}")
    await source.send(flush)
    assert [await cache.pttl(key) > KEPT_MS - 60_000 for key in lists] == [True, True, True]


async def test_a_checkpoint_lives_as_long_as_any_document(cache: Any) -> None:
    """A document that outlived it would meet a channel that counts from 1 again; both outlive a weekend of four days."""
    assert max(kind.ttl_ms for kind in KINDS.values()) <= CHECKPOINT_MS
    assert min(kind.ttl_ms for kind in KINDS.values() if kind.ttl_ms) > 8 * DAY_MS


async def test_what_is_removed_is_gone_and_what_is_kept_lives_on(cache: Any) -> None:
    """Keys, index entries and checkpoint fields are deleted before anything of the flush is written; nothing is announced."""
    source = await open_source(cache)
    flush = source.flush()
    everything(flush, source)
    flush.checkpoint += ("quote:AAPL", b"[]", "quote:MSFT", b"[]")
    source.add(flush, "quote:MSFT", {"last": 3})
    flush.add_channel("quote", "MSFT")
    await source.send(flush)
    await cache.pexpire("ch:quote:MSFT", 50_000)
    pubsub = await listen(cache, "up:quote:0", "up:trades:0", "up:bars:0")
    flush = source.flush()
    source.add(flush, "trades:AAPL", {"price": 2})
    flush.remove(["ch:quote:AAPL", "ch:trades:AAPL", "ch:bars:1m:AAPL", "hist:bars:1m:AAPL", "ch:nothing"])
    flush.remove_channel("quote", "AAPL")
    flush.remove_cells(["quote:AAPL", "quote:NONE"])
    flush.keep(["ch:quote:MSFT", "hist:bars:1m:MSFT"])
    assert await source.send(flush) is Outcome.APPLIED
    found = await contents(cache)
    assert not found.keys() & {b"ch:quote:AAPL", b"ch:bars:1m:AAPL", b"hist:bars:1m:AAPL", b"hist:bars:1m:MSFT"}
    assert [json.loads(d)["data"] for d in found[b"ch:trades:AAPL"]] == [{"price": 2}]
    assert found[b"idx:quote"] == {b"MSFT"}
    assert found[b"cp:0"].keys() == {b"flush", b"life", b"counts", b"quote:MSFT"}
    assert await cache.pttl("ch:quote:MSFT") > KEPT_MS - 60_000
    body = await heard(pubsub)
    assert body is not None
    assert [doc.ch for doc in decode_message(body)] == ["trades:AAPL"]
    assert await heard(pubsub) is None
    await pubsub.aclose()


async def test_a_flush_that_only_removes_is_sent(cache: Any) -> None:
    """It is not empty; sent again it changes nothing."""
    source = await open_source(cache)
    await source.publish(("quote:AAPL", 1))
    flush = Flush(0, "e1")
    assert flush.empty
    flush.remove(["ch:quote:AAPL"])
    assert not flush.empty
    source.number += 1
    assert await source.send(flush) is Outcome.APPLIED
    await cache.set("ch:quote:AAPL", "later")
    assert await source.send(flush) is Outcome.APPLIED
    assert await cache.get("ch:quote:AAPL") == b"later"


async def test_event_lists_are_bounded(cache: Any) -> None:
    """A list never holds much more than its kind keeps, and always the newest."""
    source = await open_source(cache)
    flush = source.flush()
    for n in range(300):
        source.add(flush, "trades:AAPL", n)
    await source.send(flush)
    kept = [json.loads(d)["data"] for d in await cache.lrange("ch:trades:AAPL", 0, -1)]
    keep = KINDS["trades"].keep
    assert keep <= len(kept) <= keep + 64
    assert kept == list(range(300 - len(kept), 300))


async def test_history_takes_corrections(cache: Any) -> None:
    """The newest bars can be dropped by number or by time and written anew; the oldest fall out."""
    source = await open_source(cache)

    async def write(values: list[bytes], drop: int = 0) -> list[bytes]:
        flush = source.flush()
        flush.add_history("bars:1s", "bars:1s:A", values, drop)
        assert await source.send(flush) is Outcome.APPLIED
        return list(await cache.lrange("hist:bars:1s:A", 0, -1))

    assert await write([b"[1000,1]", b"[2000,1]", b"[3000,1]"]) == [b"[1000,1]", b"[2000,1]", b"[3000,1]"]
    assert await write([b"[2000,2]", b"[3000,2]", b"[4000,2]"], 2) == [b"[1000,1]", b"[2000,2]", b"[3000,2]", b"[4000,2]"]
    assert await write([b"[3000,3]"], -3000) == [b"[1000,1]", b"[2000,2]", b"[3000,3]"]
    assert await write([], -2000) == [b"[1000,1]"]
    assert await write([b"[5000,1]"], -2000) == [b"[1000,1]", b"[5000,1]"]
    assert await write([b"[9000,1]"], 50) == [b"[9000,1]"]
    assert await write([], -1) == []
    kept = await write([b"[%d]" % n for n in range(400)])
    assert KINDS["bars:1s"].keep <= len(kept) <= KINDS["bars:1s"].keep + 64
    assert kept == [b"[%d]" % n for n in range(400 - len(kept), 400)]


async def test_a_shared_channel_of_many_writers_has_one_sequence(cache: Any, cache_url: str) -> None:
    """Partitions that alert at the same time share one channel without a gap or a repeat, in the order of its messages."""
    first = await open_source(cache)
    clients = [open_cache(cache_url) for _ in range(3)]
    sources = [await open_source(client, partition) for partition, client in enumerate(clients, 1)]
    pubsub = await listen(cache, "up:shared:0")

    async def write(source: Any) -> None:
        for n in range(20):
            flush = source.flush()
            for _ in range(n % 3 + 1):
                flush.add_shared("alerts", "alerts:range", n, b'{"of":%d}' % source.partition)
            assert await source.send(flush) is Outcome.APPLIED

    await asyncio.gather(*(write(source) for source in (first, *sources)))
    seqs: list[int] = []
    while (body := await heard(pubsub)) is not None:
        seqs += [doc.seq for doc in decode_message(body)]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) == 4 * sum(n % 3 + 1 for n in range(20))
    for client in clients:
        await client.aclose()
    await pubsub.aclose()


async def test_messages_carry_the_cached_bytes(cache: Any) -> None:
    """What a reader hears is byte for byte what a reader of the cache finds."""
    source = await open_source(cache)
    pubsub = await listen(cache, "up:quote:0")
    documents = await source.publish(("quote:A", {"last": 1.5}), ("quote:B", {"last": "ü"}), ("quote:C", None))
    assert await heard(pubsub) == b"[" + b",".join(documents) + b"]"
    assert [await cache.get(f"ch:quote:{name}") for name in "ABC"] == documents
    await pubsub.aclose()


async def test_dead_letters_keep_the_newest(cache: Any) -> None:
    """The newest thousand bad events are kept, newest first."""
    source = await open_source(cache)
    for part in range(3):
        flush = source.flush()
        for n in range(500):
            flush.add_dead_letter(b"%d" % (part * 500 + n))
        await source.send(flush)
    assert await cache.lrange(keys.DEAD_LETTERS, 0, -1) == [b"%d" % n for n in range(1499, 499, -1)]


async def test_a_large_checkpoint_is_written_whole(cache: Any) -> None:
    """More cells than a Lua call takes at once are all there."""
    source = await open_source(cache)
    flush = source.flush()
    for n in range(3_501):
        flush.checkpoint += (f"quote:S{n}", b"%d" % n)
    assert await source.send(flush) is Outcome.APPLIED
    assert await cache.hlen("cp:0") == 3_501 + 3


async def test_flushes_of_one_round_stand_alone(cache: Any) -> None:
    """A refused partition in a round takes no other with it."""
    one, two = await open_source(cache, 1), await open_source(cache, 2)
    assert await one.writer.claim({1: 1, 2: 1}, "e1", "e1") == {1: "e1", 2: "e1"}
    rounds = []
    for source, fence in ((one, 9), (two, 1)):
        flush = source.flush()
        source.add(flush, f"quote:S{source.partition}", 1)
        rounds.append(source.writer.call(flush, fence, 1))
    assert await one.writer.write(rounds) == [Outcome.FENCED, Outcome.APPLIED]
    assert await cache.exists("ch:quote:S1", "ch:quote:S2") == 1


async def test_a_server_that_forgot_the_script_is_opened_anew_before_anything_is_written(cache: Any) -> None:
    """A restart or failover: what it holds may be older than what we know."""
    source = await open_source(cache)
    await cache.script_flush()
    flush = source.flush()
    source.add(flush, "quote:A", 1)
    with pytest.raises(CacheUnavailable, match="another server"):
        await source.send(flush)
    assert await cache.exists("ch:quote:A") == 0
    await life(source.writer, "e9")
    assert await source.send(flush) is Outcome.APPLIED


async def test_a_restarted_server_begins_a_new_life(redis_server: Any) -> None:
    """Whatever it kept: whoever takes a partition over cannot see whether the newest writes are missing."""
    client = open_cache(redis_server.url)
    assert await Writer(client).open("e1", PARTITIONS) == "e1"
    assert await Writer(client).open("e2", PARTITIONS) == "e1"
    await client.save()
    await asyncio.to_thread(redis_server.restart)
    writer = Writer(open_cache(redis_server.url))
    assert await writer.open("e3", PARTITIONS) == "e3"


KEYS_OF_A_FLUSH = ("ch:trades:AAPL", "hist:bars:1m:AAPL", "part:board:volume", "idx:quote", "mdc:dead_letters", "ch:alerts:range")


@pytest.mark.parametrize("key", [*KEYS_OF_A_FLUSH, "seq:alerts:range", "ch:quote:AAPL"])
async def test_a_key_that_another_program_wrote_makes_room(cache: Any, key: str) -> None:
    """A flush never fails in the middle, half of it written: a key of ours with another type is written anew."""
    source = await open_source(cache)
    await (cache.set(key, "foreign") if not key.startswith("seq:") else cache.rpush(key, "foreign"))
    for _ in range(2):
        flush = source.flush()
        everything(flush, source)
        assert await source.send(flush) is Outcome.APPLIED
    assert await cache.llen("ch:trades:AAPL") == 2
    assert await cache.llen("mdc:dead_letters") == 2


async def test_what_the_cache_refuses_is_told_from_its_absence(cache: Any) -> None:
    """A permanent refusal says what to do; it is no lost cache."""
    source = await open_source(cache)
    await cache.set("cp:0", "foreign")
    flush = source.flush()
    with pytest.raises(CacheRefused, match="Delete the key"):
        await source.send(flush)


async def test_opening_agrees_on_the_life_and_the_partitions(cache: Any) -> None:
    """The first writer names the life; a writer with another number of partitions is told so in one sentence."""
    assert await Writer(cache).open("mine", PARTITIONS) == "mine"
    assert await Writer(cache).open("other", PARTITIONS) == "mine"
    with pytest.raises(OperatorError, match="written with 8 partitions, this worker has MDQ_PARTITIONS=4"):
        await Writer(cache).open("other", 4)


async def test_a_life_is_renewed_once(cache: Any) -> None:
    """Several workers that see a rolled-back cache at once begin one new life."""
    writer = Writer(cache)
    assert await life(writer, "e1") == "e1"
    await writer.renew("e1", "e2")
    await writer.renew("e1", "e3")
    assert await life(writer, "e4") == "e2"


async def test_an_absent_cache_is_unavailable() -> None:
    """Nobody answers: the caller learns that it can send the same again later."""
    client = open_cache(f"redis://127.0.0.1:{free_port()}/0")
    writer = Writer(client)
    with pytest.raises(CacheUnavailable):
        await writer.open("e1", PARTITIONS)
    with pytest.raises(CacheUnavailable):
        await writer.write([(0, Flush(0, "e1").arguments(1, 1))])
    with pytest.raises(CacheUnavailable):
        await writer.renew("e1", "e2")


def test_a_flush_knows_whether_it_holds_anything() -> None:
    """Nothing added, nothing to send."""
    assert Flush(0, "e1").empty
    for change in (
        lambda f: f.channel_writer("quote").extend(("k", b"d")),
        lambda f: f.checkpoint.extend(("a", b"b")),
        lambda f: f.add_dead_letter(b"x"),
        lambda f: f.add_share("counts", b"{}"),
        lambda f: f.add_shared("alerts", "alerts:range", 1, b"{}"),
        lambda f: f.add_history("bars:1m", "bars:1m:A", [], -5),
    ):
        flush = Flush(0, "e1")
        change(flush)
        assert not flush.empty

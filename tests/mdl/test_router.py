"""Checks the router against a plain reference, and with every kind of malformed frame."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdl.router import Router
from mdq.topology import PARTITIONED, STREAM_OF_EVENT
from service.partition import partition_of
from tests.mdl.calm import calm

PARTITIONS = 8


def collected(router: Router) -> dict[tuple[str, int], list[bytes]]:
    return {(stream, partition): [bytes(event) for event in events] for stream, partition, events in router.take()}


def plain(events: list[dict[str, Any]], texts: list[bytes]) -> dict[tuple[str, int], list[bytes]]:
    """The reference: decode with json, look the symbol up by the vendor's table."""
    found: dict[tuple[str, int], list[bytes]] = {}
    for event, text in zip(events, texts, strict=True):
        if event["ev"] == "status":
            continue
        stream = STREAM_OF_EVENT.get(event["ev"], "unknown")
        if event["ev"] == "C":
            symbol = event["p"] if isinstance(event.get("p"), str) and event["p"] else event.get("pair", "")
        else:
            symbol = event.get("sym") or event.get("pair") or event.get("T") or ""
        partition = partition_of(symbol, PARTITIONS) if stream in PARTITIONED else 0
        found.setdefault((stream, partition), []).append(text)
    return found


symbols = st.sampled_from(["AAPL", "BTC-USD", "", "Ü", 'quo"te', "a\\b", "EUR/USD", "I:SPX"])
kinds = st.sampled_from([*STREAM_OF_EVENT, "FMV", "NOI", "XL2", "", "t"])
events_ = st.fixed_dictionaries(
    {"ev": kinds},
    optional={
        "sym": symbols, "pair": symbols, "T": symbols, "p": st.one_of(symbols, st.floats(0, 1e6), st.none()),
        "c": st.lists(st.integers(0, 60), max_size=3), "x": st.text(max_size=6), "t": st.integers(0, 2**53),
    },
)  # fmt: skip


@calm
@given(st.lists(st.lists(events_, max_size=12), max_size=5), st.booleans(), st.booleans())
def test_the_router_agrees_with_a_plain_reference(frames: list[list[dict[str, Any]]], as_text: bool, spaced: bool) -> None:
    """Same events, same queues, same order, bytes untouched — also the second time, when routes are remembered."""
    router = Router(PARTITIONS)
    for _ in range(2):
        expected: dict[tuple[str, int], list[bytes]] = {}
        for events in frames:
            texts = [json.dumps(event, ensure_ascii=as_text, separators=(", ", " : ") if spaced else None) for event in events]
            frame = "[" + (" ,\n" if spaced else ",").join(texts) + "]"
            router.route(frame if as_text else frame.encode())
            for key, found in plain(events, [text.encode() for text in texts]).items():
                expected.setdefault(key, []).extend(found)
        assert collected(router) == expected
    assert router.malformed == 0
    assert router.events == 2 * sum(len([e for e in events if e["ev"] != "status"]) for events in frames)


@pytest.mark.parametrize(
    ("event", "key"),
    [
        ('{"ev":"T","sym":"AAPL"}', ("trades", partition_of("AAPL", 8))),
        ('{"ev":"LULD","T":"AAPL"}', ("halts", partition_of("AAPL", 8))),
        ('{"ev":"V","val":1,"T":"I:SPX"}', ("aggregates", partition_of("I:SPX", 8))),
        ('{"ev":"XQ","pair":"BTC-USD"}', ("quotes", partition_of("BTC-USD", 8))),
        ('{"ev":"C","p":"EUR/USD","b":1.1}', ("quotes", partition_of("EUR/USD", 8))),
        ('{"ev":"L2","sym":"BTC-PERP","b":[[1,2]]}', ("books", partition_of("BTC-PERP", 8))),
        ('{"ev":"FMV","sym":"AAPL"}', ("unknown", 0)),
    ],
)
def test_each_family_is_sharded_by_its_own_symbol_field(event: str, key: tuple[str, int]) -> None:
    """The vendor names the symbol differently by event type."""
    router = Router(8)
    router.route(f"[{event}]")
    assert collected(router) == {key: [event.encode()]}


@pytest.mark.parametrize(
    ("frame", "good", "bad"),
    [
        (b'[{"ev":"T","sym":"A"},{"ev":7},{"ev":"T","sym":"B"}]', 2, 1),
        (b'[{"ev":"T","sym":"A"},oops,{"ev":"T","sym":"B","i":"a,]\\"}"}]', 2, 1),
        (b'[{"ev":"T","sym":"A"},{"ev":"T","sym":"B"', 1, 1),
        (b'[{"ev":"T","sym":"A"},17,"text",null,[1,[2]]]', 1, 4),
        (b'[{"ev":"T","sym":"A"},{"sym":"B"},{"ev":"T","sym":["C"]}]', 1, 2),
        (b'{"ev":"T","sym":"A"}', 1, 0),
        (b"[]", 0, 0),
        (b"", 0, 1),
        (b"not JSON", 0, 1),
        (b'"\xff\xfe"', 0, 1),
        (b"[" * 5000, 0, 1),
        (b"[" + b"x" * (2 << 20), 0, 1),
    ],
)
def test_good_elements_of_a_bad_frame_are_kept(frame: bytes, good: int, bad: int) -> None:
    """What cannot be read is counted and shown; nothing is fatal."""
    shown: list[tuple[str, bytes]] = []
    router = Router(8, lambda why, sample: shown.append((why, sample)))
    assert router.route(frame) == good
    assert (router.events, router.malformed, len(shown)) == (good, bad, bad)
    assert sum(len(events) for events in collected(router).values()) == good
    assert all(len(sample) <= 200 for _, sample in shown)


def test_the_vendors_status_messages_are_no_data() -> None:
    """They are handed over apart, with or without their fields."""
    router = Router(8)
    router.route(b'[{"ev":"status","status":"success","message":"subscribed to: T.*"},{"ev":"T","sym":"A"},{"ev":"status"}]')
    assert [told.status for told in router.statuses] == ["success", ""]
    assert router.events == 1
    assert list(collected(router)) == [("trades", partition_of("A", 8))]


@calm
@given(st.one_of(st.binary(max_size=200), st.text(alphabet='[]{}",:\\ evTsymQ0', max_size=120)))
def test_no_bytes_break_the_router(data: bytes | str) -> None:
    """Arbitrary input is routed or counted, and what is routed is JSON again."""
    router = Router(4)
    router.route(data)
    for events in collected(router).values():
        for event in events:
            msgspec.json.decode(event, type=msgspec.Raw)


def test_a_good_frame_is_still_routed_after_a_bad_one() -> None:
    """Bad input leaves nothing behind."""
    router = Router(1)
    router.route(b'[{"ev":"T","sym":"A"},')
    router.take()
    router.route(b'[{"ev":"Q","sym":"A"}]')
    assert collected(router) == {("quotes", 0): [b'{"ev":"Q","sym":"A"}']}

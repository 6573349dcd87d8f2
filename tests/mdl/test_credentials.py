"""Which key and token go to which server, whatever the order of an operator's changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from massive.websocket.models import Feed as VendorFeed

from mdl.control import Change, changed
from mdl.credentials import VENDOR
from mdl.feeds.catalogue import read_key
from mdl.settings import MdlSettings
from service.address import address_of
from service.errors import OperatorError
from tests.mdl.calm import calm

OURS, OTHER, THIRD = "wss://ours.example:1", "wss://other.example", "wss://other.example:444"
GATEWAY, FOREIGN = "https://exchange.example", "https://foreign.example"
START = MdlSettings(api_key="k", massive_url=OURS, engine_url=GATEWAY, engine_token="t")


def after(*changes: dict[str, Any], start: MdlSettings = START) -> MdlSettings:
    now = start
    for change in changes:
        now = changed(now, Change(**change), start)
    return now


def key(settings: MdlSettings) -> str:
    return read_key(settings)


def token(settings: MdlSettings) -> str:
    return settings.engine_token.get_secret_value()


def test_the_vendors_own_servers_are_known() -> None:
    """Those that the feed connects to when no address is given."""
    assert {address_of(f"wss://{feed.value}") for feed in (VendorFeed.RealTime, VendorFeed.Delayed)} == VENDOR


@pytest.mark.parametrize("url", ["", "wss://socket.massive.com", "wss://delayed.massive.com/", OURS, f"{OURS}/path"])
def test_servers_of_the_environment_get_the_stored_key(url: str) -> None:
    """Also when the feed was elsewhere in between."""
    assert key(after({"massive_url": url})) == "k"
    assert key(after({"massive_url": OTHER, "api_key": "o"}, {"massive_url": url})) == "k"


@pytest.mark.parametrize(
    "url", [OTHER, "wss://ours.example:2", "wss://socket.massive.com:444", "wss://massive.com", "ws://127.0.0.1:9"]
)
@pytest.mark.parametrize("blank", [{}, {"api_key": ""}, {"api_key": "  "}])
def test_another_server_brings_its_own_key(url: str, blank: dict[str, str]) -> None:
    """Otherwise it is refused, with what to do; a blank key is none."""
    with pytest.raises(OperatorError, match="send its own api_key"):
        after({"massive_url": url, **blank})
    assert key(after({"massive_url": url, "api_key": "o"})) == "o"


def test_a_brought_key_goes_to_its_server_only() -> None:
    """Not to the vendor and not to a third one; changes of other things keep it."""
    there = {"massive_url": OTHER, "api_key": "o"}
    assert key(after(there, {"rate": 5})) == key(after(there, {"massive_url": f"{OTHER}/"})) == "o"
    assert key(after(there, {"massive_url": ""})) == "k"
    with pytest.raises(OperatorError, match="api_key"):
        after(there, {"massive_url": THIRD})


def test_the_key_file_is_for_servers_of_the_environment_only(tmp_path: Path) -> None:
    """A key taken away at another server does not fall back to the file."""
    (tmp_path / "key").write_text("f")
    start = MdlSettings(api_key_file=tmp_path / "key")
    there = {"massive_url": OTHER, "api_key": "o"}
    assert key(after(start=start)) == "f"
    assert key(after(there, {"api_key": ""}, start=start)) == ""
    assert key(after(there, {"massive_url": ""}, start=start)) == "f"


def test_no_secret_goes_out_in_clear() -> None:
    """Not even one that was brought, unless it stays on this machine."""
    for change in (
        {"massive_url": "ws://other.example", "api_key": "o"},
        {"engine_url": "http://foreign.example", "engine_token": "o"},
    ):
        with pytest.raises(OperatorError, match="in clear"):
            after(change)
    assert key(after({"massive_url": "ws://127.0.0.1:9", "api_key": "o"})) == "o"


def test_the_exchanges_token_follows_the_same_rule() -> None:
    """An exchange that asks for none is told so with an empty one; where none is stored, none is asked for."""
    with pytest.raises(OperatorError, match="send its own engine_token"):
        after({"engine_url": FOREIGN})
    assert token(after({"engine_url": FOREIGN, "engine_token": ""})) == ""
    assert token(after({"engine_url": FOREIGN, "engine_token": "o"}, {"engine_url": GATEWAY})) == "t"
    without = MdlSettings(engine_url=GATEWAY)
    assert token(after({"engine_url": FOREIGN, "engine_token": "o"}, {"engine_url": f"{FOREIGN}:444"}, start=without)) == ""


@calm
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "massive_url": st.sampled_from(["", OURS, OTHER, THIRD, "ws://127.0.0.1:9", "wss://[", "x"]),
                "api_key": st.sampled_from(["", " ", "brought"]),
                "engine_url": st.sampled_from([GATEWAY, FOREIGN, "http://127.0.0.1:9", "http://["]),
                "engine_token": st.sampled_from(["", "brought"]),
                "rate": st.just(5),
            },
        ),
        max_size=6,
    )
)
def test_no_order_of_changes_leads_a_stored_secret_elsewhere(changes: list[dict[str, Any]]) -> None:
    """Refused changes leave everything as it was."""
    now = START
    for change in changes:
        try:
            now = changed(now, Change(**change), START)
        except OperatorError:
            continue
        if now.massive_url and address_of(now.massive_url) not in VENDOR | {address_of(OURS)}:
            assert key(now) != "k"
        if address_of(now.engine_url) != address_of(GATEWAY):
            assert token(now) != "t"

"""A paper account is pushed to its owner's pages: at once, whole after any gap, to nobody else, and no longer than they may trade."""

from __future__ import annotations

import signal
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from scp.fleet.paper_streams import PER_PERSON_MAX
from tests.engine_process import EngineProcess
from tests.scp.conftest import Person, ScpProcess
from tests.scp.fleet.paper_ground import STREAM, Pushed, opened, order
from tests.waiting import until_sync

ENDS_S = 2.0


@pytest.fixture(scope="module")
def traders(plane: ScpProcess) -> list[Person]:
    """Three with an account each."""
    return [opened(plane) for _ in range(3)]


def gauge(plane: ScpProcess, name: str) -> float:
    """Return a metric of the control plane."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{plane.admin_port}/metrics", timeout=5).read().decode()
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"tapeline_scp_{name} "))


def test_what_happens_elsewhere_is_pushed_to_every_page_of_its_owner_and_to_nobody_else(
    plane: ScpProcess, traders: list[Person]
) -> None:
    """An order from another place, a fill by a stranger, a cancel: two pages of hers see each; one connection serves both."""
    ann, bob, _ = traders
    pages, his = [Pushed(ann), Pushed(ann)], Pushed(bob)
    for page in [*pages, his]:
        page.until(lambda desk: desk["money"]["balance"] == 1e6)
    assert gauge(plane, "paper_feeds") == 2
    assert gauge(plane, "paper_pages") == 3
    began_s = time.monotonic()
    name = order(ann, "Buy", 10, 49_900, "p-1").body["id"]
    for page in pages:
        page.until(lambda desk: [one["id"] for one in desk["orders"]] == [name])
    assert time.monotonic() - began_s < 5, "well within what asking once a second would take under load"
    order(bob, "Sell", 4, None, "p-2")
    for page in pages:
        page.until(lambda desk: [one["qty"] for one in desk["positions"]] == [4] and desk["orders"][0]["filled"] == 4)
        page.until(lambda desk: [(one["qty"], one["maker"]) for one in desk["fills"]] == [(4, True)])
    his.until(lambda desk: [one["qty"] for one in desk["positions"]] == [-4])
    assert all(not desk["orders"] for kind, _, desk in his.events if kind == "desk"), "her order is hers"
    for page in [*pages, his]:
        seqs = [seq for kind, seq, _ in page.events if kind == "desk" and seq is not None]
        assert seqs == sorted(seqs)
        page.close()
    until_sync(lambda: gauge(plane, "paper_feeds") == 0, 15, "nobody looks: nobody is followed")
    assert gauge(plane, "paper_pages") == 0


def test_who_may_not_is_refused(plane: ScpProcess, traders: list[Person]) -> None:
    """A viewer, a trader without an account, an API token, nobody; HEAD holds no place."""
    assert plane.person("viewer").get(STREAM).status == 403
    trader = plane.person("trader")
    assert trader.get(STREAM).body["code"] == "no_paper_account"
    owner = traders[0]
    token = owner.change("POST", "/api/v1/me/tokens", {"name": "t", "scopes": ["trade"]})
    assert token.status == 201, token.body
    assert plane.api("GET", STREAM, token=token.body["token"]).body["code"] == "session_needed"
    assert plane.api("GET", STREAM).status == 401
    for _ in range(PER_PERSON_MAX + 2):
        assert plane.api("HEAD", STREAM, cookie=owner.secret).status == 200
    assert gauge(plane, "paper_pages") == 0


@pytest.mark.parametrize("how", ["sign-out", "role", "disabled"])
def test_a_stream_ends_with_the_right_to_it(plane: ScpProcess, how: str) -> None:
    """Signed out, made a viewer, or disabled: within two seconds, with a last word."""
    trader, boss = opened(plane), Person(plane, plane.admin["value"])
    page = Pushed(trader)
    page.until(lambda desk: desk["money"])
    began_s = time.monotonic()
    if how == "sign-out":
        done = trader.change("POST", "/api/v1/sign-out")
    elif how == "role":
        done = boss.change("PATCH", f"/api/v1/users/{trader.id}", {"role": "viewer"})
    else:
        done = boss.change("PATCH", f"/api/v1/users/{trader.id}", {"disabled": True})
    assert done.status in (200, 204), done.body
    assert page.ended.wait(10)
    assert time.monotonic() - began_s < ENDS_S + 1, "and a moment for a busy machine"
    assert page.events[-1][0] == "end"


def test_a_person_has_a_bounded_number_of_pages_and_none_of_them_holds_a_thread(plane: ScpProcess, traders: list[Person]) -> None:
    """One more is told to ask instead; a page that goes makes room. With twice as many pages as the server has threads
    everything else is answered as always."""
    people = traders
    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(Pushed, [one for one in people for _ in range(PER_PERSON_MAX)]))
    for page in pages:
        page.until(lambda desk: desk["money"])
    refused = Pushed(people[0])
    assert (refused.status, refused.problem["code"]) == (429, "too_many_streams")
    assert refused.answer.getheader("Retry-After")
    for _ in range(30):
        began_s = time.monotonic()
        assert people[1].get("/api/v1/me").status == 200
        assert time.monotonic() - began_s < 2
    until_sync(lambda: gauge(plane, "paper_feeds") == 3, 15, "one feed an account")
    pages[0].close()

    def entered() -> bool:
        again = Pushed(people[0])
        entered = again.status == 200
        again.close()
        return entered

    until_sync(entered, 10, "there is room again")
    for page in pages:
        page.close()
    until_sync(lambda: gauge(plane, "paper_pages") == 0, 15, "all places are free")


def test_a_killed_exchange_is_said_and_then_nothing_is_missing(traders: list[Person], exchange: EngineProcess) -> None:
    """The page is told that what it shows may be old; when the exchange is back it has all that happened meanwhile, once."""
    _, bob, ann = traders
    page = Pushed(ann)
    page.until(lambda desk: desk["money"])
    assert order(ann, "Buy", 5, 49_950, "k-1").status == 200
    page.until(lambda desk: len(desk["orders"]) == 1)
    known = [seq for kind, seq, _ in page.events if kind == "desk"][-1]
    exchange.end(signal.SIGKILL)
    until_sync(lambda: page.away, 15, "it is said to be old")
    assert page.desk["orders"], "what is known stays"
    exchange.start()
    exchange.ready()
    for number in range(3):
        assert order(bob, "Sell", 1, None, f"k-b{number}").status == 200
    page.until(lambda desk: [one["qty"] for one in desk["positions"]] == [3] and len(desk["fills"]) == 3, 30)
    assert not page.away
    assert len({one["id"] for one in page.desk["fills"]}) == 3
    assert [seq for kind, seq, _ in page.events if kind == "desk"][-1] > known
    page.close()

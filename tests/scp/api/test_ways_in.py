"""Signing in and out as people do, and as somebody would who may not."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable

import pyotp

from tests.scp.conftest import Person, ScpProcess
from tests.signing import ADMIN, PASSWORD

NEW = "three owls on a fence"


def enter(plane: ScpProcess, name: str, password: str = PASSWORD, cookie: str = "") -> tuple[int, str]:
    """Sign in; return status and the session's secret."""
    reply = plane.api("POST", "/api/v1/sign-in", {"username": name, "password": password}, cookie=cookie)
    return reply.status, str(reply.secret or "")


def guarded(plane: ScpProcess) -> tuple[Person, pyotp.TOTP, list[str]]:
    """Return somebody with a second factor, and their recovery codes."""
    person = plane.person("viewer")
    offered = person.change("POST", "/api/v1/me/second-factor", {"password": PASSWORD})
    assert offered.body["picture"].startswith("<svg")
    totp = pyotp.TOTP(offered.body["secret"])
    codes = person.change("PUT", "/api/v1/me/second-factor", {"code": totp.at(time.time() - 30)})
    assert codes.status == 200, codes.body
    return person, totp, codes.body["recovery_codes"]


def test_the_first_link_is_good_once(plane: ScpProcess, boss: Person) -> None:
    """It is gone from the disk, and cannot be had again while there is an administrator."""
    assert boss.get("/api/v1/me").body["role"] == "admin"
    assert not (plane.run_dir / "welcome.url").exists()


def test_names_are_the_same_in_any_case_and_width(plane: ScpProcess) -> None:
    """So that nobody can be taken for somebody else."""
    assert enter(plane, "  ＡＮＮ ")[0] == 200
    boss = Person(plane, enter(plane, ADMIN)[1])
    assert boss.change("POST", "/api/v1/users", {"username": "Ａnn", "role": "viewer"}).body["code"] == "name_taken"


def test_wrong_name_and_wrong_password_are_answered_alike(plane: ScpProcess) -> None:
    """In words, and in time: medians of twenty tries differ by less than a half."""
    person = plane.person("viewer")
    took: dict[str, list[float]] = {person.name: [], "nobody-there": []}
    said = set()
    for _ in range(4):
        for name, times in took.items():
            began = time.perf_counter()
            reply = plane.api("POST", "/api/v1/sign-in", {"username": name, "password": "wrong and wrong again"})
            times.append(time.perf_counter() - began)
            said.add((reply.status, reply.body["code"], reply.body["detail"]))
    assert len(said) == 1
    known, unknown = (statistics.median(times) for times in took.values())
    assert 0.4 < known / unknown < 2.5, (known, unknown)


def test_who_guesses_is_stopped_and_the_owner_is_told_when(plane: ScpProcess) -> None:
    """After five tries the right password does not help either; the answer says when it does."""
    person = plane.person("viewer")
    for _ in range(5):
        assert enter(plane, person.name, "wrong and wrong again")[0] == 401
    locked = plane.api("POST", "/api/v1/sign-in", {"username": person.name, "password": PASSWORD})
    assert locked.status == 429
    assert 0 < int(locked.raw.getheader("Retry-After") or 0) <= 900
    assert person.get("/api/v1/me").status == 200, "who is in stays in"


def test_a_second_factor_is_asked_on_every_way(plane: ScpProcess, boss: Person) -> None:
    """By password and by reset link alike; a half-open session reads nothing and changes nothing."""
    person, totp, _ = guarded(plane)
    link = boss.change("POST", f"/api/v1/users/{person.id}/link").body["link"].partition("#")[2]
    entered = plane.api("POST", "/api/v1/links/use", {"link": link, "password": NEW})
    assert entered.body == {"next": "second-factor"}
    half = Person(plane, str(entered.secret))
    for path in ("/", "/api/v1/me", "/api/session", "/static/app/index.html", "/api/v1/me/sessions"):
        assert half.get(path).status in (303, 401), path
    state = half.get("/api/v1/sign-in").body
    assert half.change("DELETE", "/api/v1/me/second-factor", {"password": NEW}, csrf=state["csrf"]).status == 401
    wrong = half.change("POST", "/api/v1/sign-in/code", {"code": "000000"}, csrf=state["csrf"])
    assert (wrong.status, wrong.body["code"]) == (401, "wrong")
    done = half.change("POST", "/api/v1/sign-in/code", {"code": totp.now()}, csrf=state["csrf"])
    assert done.body == {"next": "done"}
    assert done.secret != half.secret, "a secret that was seen before is worth nothing now"
    assert half.get("/api/v1/me").status == 401
    assert Person(plane, str(done.secret)).get("/api/v1/me").body["second_factor"] is True


def test_a_code_is_good_once(plane: ScpProcess) -> None:
    """Time-based and recovery codes; of two who send the same at once one gets in."""
    person, totp, codes = guarded(plane)

    def half_open() -> tuple[Person, str]:
        half = Person(plane, enter(plane, person.name)[1])
        return half, half.get("/api/v1/sign-in").body["csrf"]

    def give(code: str) -> int:
        half, word = half_open()
        return half.change("POST", "/api/v1/sign-in/code", {"code": code}, csrf=word).status

    code = totp.now()
    assert [give(code), give(code)] == [200, 401]
    assert [give(codes[0].upper().replace("-", " ")), give(codes[0])] == [200, 401]
    assert give(codes[1]) == 200


def test_codes_cannot_be_guessed(plane: ScpProcess) -> None:
    """Eight tries, over any number of half-open sessions."""
    person, _, _ = guarded(plane)
    statuses = []
    for _ in range(3):
        half = Person(plane, enter(plane, person.name)[1])
        word = half.get("/api/v1/sign-in").body["csrf"]
        statuses += [half.change("POST", "/api/v1/sign-in/code", {"code": "123456"}, csrf=word).status for _ in range(4)]
    assert statuses == [401] * 8 + [429] * 4


def test_a_planted_session_is_not_taken_over(plane: ScpProcess) -> None:
    """Fixation: whatever cookie a browser brings, signing in makes a new secret."""
    person = plane.person("viewer")
    planted = secrets.token_urlsafe(32)
    status, secret = enter(plane, person.name, cookie=planted)
    assert status == 200
    assert secret not in ("", planted)
    assert plane.api("GET", "/api/v1/me", cookie=planted).status == 401


def test_what_was_signed_out_stays_out(plane: ScpProcess) -> None:
    """A copied cookie is worth nothing after signing out; another session of the same person lives on."""
    person = plane.person("viewer")
    other = Person(plane, enter(plane, person.name)[1])
    out = person.change("POST", "/api/v1/sign-out")
    assert (out.status, out.secret) == (204, "")
    assert person.get("/api/v1/me").status == 401
    assert person.get("/").status == 303
    assert other.get("/api/v1/me").status == 200


def test_a_new_password_ends_all_other_sessions(plane: ScpProcess) -> None:
    """And the old one does not open anything any more."""
    person = plane.person("viewer")
    other = Person(plane, enter(plane, person.name)[1])
    assert person.change("PUT", "/api/v1/me/password", {"old": "wrong and wrong", "new": NEW}).status == 401
    assert person.change("PUT", "/api/v1/me/password", {"old": PASSWORD, "new": person.name * 2}).status == 422
    changed = person.change("PUT", "/api/v1/me/password", {"old": PASSWORD, "new": NEW})
    assert changed.status == 204
    assert [one.get("/api/v1/me").status for one in (person, other, Person(plane, str(changed.secret)))] == [401, 401, 200]
    assert [enter(plane, person.name)[0], enter(plane, person.name, NEW)[0]] == [401, 200]


def test_a_reset_link_is_good_once_and_names_only_us(plane: ScpProcess, boss: Person) -> None:
    """A new one ends the one before; a poisoned Host cannot write an address into it."""
    person = plane.person("viewer")
    make: Callable[[], str] = lambda: boss.change("POST", f"/api/v1/users/{person.id}/link").body["link"]  # noqa: E731
    assert make().startswith(f"http://127.0.0.1:{plane.port}/welcome#")
    first, second = make().partition("#")[2], make().partition("#")[2]
    use = lambda link: plane.api("POST", "/api/v1/links/use", {"link": link, "password": NEW}).status  # noqa: E731
    assert plane.api("POST", "/api/v1/links/about", {"link": second}).body == {"purpose": "reset", "username": person.name}
    assert [use(first), use(second), use(second)] == [401, 200, 401]
    for host in ({"Host": "evil.com"}, {"X_Forwarded_Host": "evil.com"}, {"Origin": "http://evil.com"}):
        assert plane.api("POST", "/api/v1/password-reset", {"username": person.name}, **host).status in (400, 403, 421)


def test_forgetting_tells_nothing_of_who_there_is(plane: ScpProcess) -> None:
    """The answer is the same for somebody and nobody, and is not to be had a hundred times."""
    assert plane.api("POST", "/api/v1/password-reset", {"username": ADMIN}).status == 202
    statuses = [plane.api("POST", "/api/v1/password-reset", {"username": "nobody-at-all"}).status for _ in range(4)]
    assert statuses == [202, 202, 202, 429]


def test_sessions_are_listed_and_ended(plane: ScpProcess) -> None:
    """One's own only; somebody else's cannot be named."""
    person, other = plane.person("viewer"), plane.person("viewer")
    second = Person(plane, enter(plane, person.name)[1])
    found = person.get("/api/v1/me/sessions").body
    assert [one["this"] for one in found] == [False, True]
    foreign = other.get("/api/v1/me/sessions").body[0]["id"]
    assert person.change("DELETE", f"/api/v1/me/sessions/{foreign}").status == 404
    assert person.change("DELETE", f"/api/v1/me/sessions/{found[0]['id']}").status == 204
    assert [second.get("/api/v1/me").status, person.get("/api/v1/me").status, other.get("/api/v1/me").status] == [401, 200, 200]

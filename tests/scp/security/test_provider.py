"""Signing in at an OpenID Connect provider, over HTTP as a browser does it: who comes in, and who is not believed."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from scp.security.provider import safe_address
from tests.live.page.browser import chromium
from tests.scp.conftest import Person, ScpProcess
from tests.scp.provider import CLIENT, SECRET, Provider, provider
from tests.signing import PASSWORD
from tests.waiting import until_sync


class Ground(NamedTuple):
    """A control plane and its provider."""

    scp: ScpProcess
    provider: Provider


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Both, for all tests of this file: whoever is new becomes a viewer."""
    with provider() as made:
        variables = {"SCP_OIDC_ISSUER": made.url, "SCP_OIDC_CLIENT_ID": CLIENT, "SCP_OIDC_CLIENT_SECRET": SECRET}
        scp = ScpProcess(
            tmp_path_factory.mktemp("scp"), WDS_PORT="1", SCP_OIDC_ROLE="viewer", SCP_OIDC_NAME="Example", **variables
        )
        assert scp.admin
        yield Ground(scp, made)
        scp.end()


@pytest.fixture
def ground(whole: Ground) -> Ground:
    """The same, the provider honest again, with a person of this test's own."""
    name = f"p{time.monotonic_ns()}"
    whole.provider.lie, whole.provider.denies, whole.provider.delay_s = {}, False, 0.0
    whole.provider.person = {"sub": name, "preferred_username": name, "email": "", "email_verified": True}
    return whole


class Back(NamedTuple):
    """Where a try ended: the session's secret, where the page goes on or why not."""

    secret: str | None
    where: str


def browser(ground: Ground) -> httpx.Client:
    """Return a browser without a cookie."""
    return httpx.Client(base_url=f"http://127.0.0.1:{ground.scp.port}", follow_redirects=False, timeout=20)


def come_back(web: httpx.Client, address: str) -> Back:
    """Go to the provider's address and back again."""
    there = httpx.get(address, timeout=20)
    answer = web.get(there.headers["Location"])
    found = re.search(r"tapeline-\d+=([^;]+)", answer.headers.get("Set-Cookie", ""))
    onward = re.search(r"url=([^\"]*)", answer.text)
    return Back(found and found[1], answer.headers.get("Location") or (onward[1] if onward else answer.text))


def try_once(ground: Ground) -> Back:
    """Sign in with a new browser."""
    with browser(ground) as web:
        start = web.get("/sign-in/oidc")
        assert start.status_code == 303
        return come_back(web, start.headers["Location"])


def test_who_comes_the_first_time_gets_an_account_and_the_same_one_again(ground: Ground) -> None:
    """By the subject: another name there is the same person here."""
    first = try_once(ground)
    assert first.where == "/"
    me = ground.scp.api("GET", "/api/v1/me", cookie=str(first.secret)).body
    assert (me["username"], me["role"]) == (ground.provider.person["sub"], "viewer")
    ground.provider.person["preferred_username"] = "admin"
    again = ground.scp.api("GET", "/api/v1/me", cookie=str(try_once(ground).secret)).body
    assert again["username"] == me["username"]


def test_the_cookie_on_the_way_is_lax_and_opens_nothing(ground: Ground) -> None:
    """It comes back from another site; the session's own stays strict."""
    with browser(ground) as web:
        given = web.get("/sign-in/oidc").headers["Set-Cookie"]
    assert "SameSite=Lax" in given
    assert "HttpOnly" in given
    value = given.partition("=")[2].partition(";")[0]
    assert ground.scp.api("GET", "/api/v1/me", cookie=value).status == 401


def test_a_name_that_is_taken_is_not_taken_over(ground: Ground) -> None:
    """Somebody calls himself like our administrator at the provider."""
    ground.provider.person["preferred_username"] = "ann"
    assert try_once(ground) == Back(None, "/sign-in?why=name_taken")


@pytest.mark.parametrize(
    "lie",
    [
        {"nonce": "another"}, {"aud": "somebody else"}, {"iss": "http://127.0.0.1:1"}, {"exp": 1}, {"aud": [CLIENT, "other"]},
        {"alg": "none"}, {"alg": "HS256", "key": b"x" * 64}, {"key": rsa.generate_private_key(65537, 2048)}, {"kid": "unknown"},
        {"sub": 7}, {"aud": [CLIENT, "other"], "azp": "other"},
    ],
    ids=lambda lie: "-".join(f"{name}" for name in lie),
)  # fmt: skip
def test_an_identity_that_is_not_ours_is_not_believed(ground: Ground, lie: dict[str, Any]) -> None:
    """For another try, another client, by another issuer, ended, unsigned, signed by somebody else."""
    ground.provider.lie = lie
    assert try_once(ground) == Back(None, "/sign-in?why=refused")


def test_a_try_is_good_once_and_in_its_own_browser(ground: Ground) -> None:
    """An attacker's way back, planted in somebody's browser, signs nobody in; nor does a replay."""
    with browser(ground) as attacker, browser(ground) as victim:
        address = attacker.get("/sign-in/oidc").headers["Location"]
        planted = httpx.get(address).headers["Location"]
        victim.get("/sign-in/oidc")
        assert victim.get(planted).headers["Location"] == "/sign-in?why=expired"
        assert attacker.get(planted).headers["Location"] == "/sign-in?why=expired", "it was used up"
        back = httpx.get(attacker.get("/sign-in/oidc").headers["Location"]).headers["Location"]
        assert attacker.get(back).status_code == 200
        assert attacker.get(back).headers["Location"] == "/sign-in?why=expired"
        for odd in ("?state=&code=", "?code=x", "", "?state=%00&code=" + "x" * 3000):
            assert attacker.get(f"/sign-in/oidc/callback{odd}").headers["Location"] == "/sign-in?why=expired"


def test_who_refuses_there_is_told_so_here(ground: Ground) -> None:
    """With what to do."""
    ground.provider.denies = True
    assert try_once(ground) == Back(None, "/sign-in?why=refused")


def test_linking_needs_the_password_and_opens_the_same_account(ground: Ground) -> None:
    """With the second factor asked, as on every way; unlinked, the identity opens it no more."""
    person: Person = ground.scp.person("operator")
    assert person.get("/api/v1/me/identity").body == {"provider": "Example", "linked": False}
    assert person.change("POST", "/api/v1/me/identity", {"password": "wrong"}).status == 401
    assert person.change("POST", "/api/v1/me/identity", {"password": PASSWORD}, csrf="0").status == 403
    with browser(ground) as web:
        asked = person.change("POST", "/api/v1/me/identity", {"password": PASSWORD})
        name, _, value = str(asked.raw.getheader("Set-Cookie")).partition(";")[0].partition("=")
        web.cookies.set(name, value)
        assert come_back(web, asked.body["address"]) == Back(None, "/")
    assert person.get("/api/v1/me/identity").body["linked"]
    signed = ground.scp.api("GET", "/api/v1/me", cookie=str(try_once(ground).secret)).body
    assert (signed["username"], signed["role"]) == (person.name, "operator")
    assert person.change("DELETE", "/api/v1/me/identity", {"password": PASSWORD}).status == 204
    assert ground.scp.api("GET", "/api/v1/me", cookie=str(try_once(ground).secret)).body["username"] != person.name


def test_a_second_factor_is_asked_on_this_way_too(ground: Ground) -> None:
    """Half open until its code; and a disabled person does not come in at all."""
    import pyotp

    secret = str(try_once(ground).secret)
    user = ground.scp.api("GET", "/api/v1/me", cookie=secret).body["username"]
    boss = Person(ground.scp, ground.scp.admin["value"])
    (found,) = [one for one in boss.get("/api/v1/users?limit=100").body["users"] if one["username"] == user]
    link = boss.change("POST", f"/api/v1/users/{found['id']}/link").body["link"].partition("#")[2]
    entered = ground.scp.api("POST", "/api/v1/links/use", {"link": link, "password": PASSWORD})
    me = Person(ground.scp, str(entered.secret))
    offered = me.change("POST", "/api/v1/me/second-factor", {"password": PASSWORD}).body["secret"]
    assert me.change("PUT", "/api/v1/me/second-factor", {"code": pyotp.TOTP(offered).now()}).status == 200
    back = try_once(ground)
    assert back.where == "/sign-in?step=second-factor"
    assert ground.scp.api("GET", "/api/v1/me", cookie=str(back.secret)).status == 401
    assert ground.scp.api("GET", "/api/v1/sign-in", cookie=str(back.secret)).body["next"] == "second-factor"
    assert boss.change("PATCH", f"/api/v1/users/{found['id']}", {"disabled": True}).status == 200
    assert try_once(ground).where == "/sign-in?why=disabled"


def test_a_key_that_changed_there_is_found(ground: Ground) -> None:
    """Providers replace their keys."""
    assert try_once(ground).secret
    ground.provider.key, ground.provider.kid = rsa.generate_private_key(65537, 2048), f"k{time.monotonic_ns()}"
    assert try_once(ground).secret


def test_a_slow_provider_holds_up_nobody_else(ground: Ground) -> None:
    """Those who wait for it take three threads at the most; passwords and pages go on."""
    with browser(ground) as web:
        address = web.get("/sign-in/oidc").headers["Location"]
        assert come_back(web, address).secret
    ground.provider.delay_s = 1.0
    ground.provider.kid = f"k{time.monotonic_ns()}"
    waiting = [threading.Thread(target=lambda: try_once(ground)) for _ in range(6)]
    for one in waiting:
        one.start()
    until_sync(lambda: "/token" in ground.provider.asked[-3:], 20, "somebody waits for the provider")
    assert ground.scp.api("GET", "/api/v1/sign-in/ways").body == {"provider": "Example"}
    for one in waiting:
        one.join(60)


@pytest.mark.live
def test_in_a_browser_it_is_one_click(ground: Ground) -> None:
    """There and back, and the page opens: the strict cookie is sent although the way came from another site."""
    with chromium() as started:
        page = started.new_page()
        page.goto(f"http://127.0.0.1:{ground.scp.port}/")
        page.click("text=Sign in with Example")
        page.wait_for_url(f"http://127.0.0.1:{ground.scp.port}/", timeout=20_000)
        ground.provider.denies = True
        page.context.clear_cookies()
        page.goto(f"http://127.0.0.1:{ground.scp.port}/sign-in")
        page.click("text=Sign in with Example")
        page.wait_for_selector("text=The provider did not let you in")


def test_a_provider_that_is_away_is_said_on_the_page(start_scp: Callable[..., ScpProcess]) -> None:
    """And the password's way goes on; nothing is asked of it at the start."""
    scp = start_scp(SCP_OIDC_ISSUER="http://127.0.0.1:1", SCP_OIDC_CLIENT_ID="x", WDS_PORT="1")
    answer = scp.ask("/sign-in/oidc")
    assert answer.getheader("Location") == "/sign-in?why=unreachable"
    assert scp.cookie


def test_a_provider_that_lies_about_itself_is_not_used(start_scp: Callable[..., ScpProcess]) -> None:
    """Another issuer's document, or endpoints over http elsewhere."""
    with provider() as made:
        scp = start_scp(SCP_OIDC_ISSUER=made.url, SCP_OIDC_CLIENT_ID=CLIENT, WDS_PORT="1")
        for lie in ({"issuer": "https://other.example.com"}, {"token_endpoint": "http://10.0.0.1/token"}, {"jwks_uri": None}):
            made.lie = {"document": lie}
            assert scp.ask("/sign-in/oidc").getheader("Location") == "/sign-in?why=misconfigured"


@pytest.mark.parametrize("url", ["https://a.example/x", "http://127.0.0.1:1/x", "http://[::1]/x", "http://localhost/x"])
def test_addresses_that_may_be_asked(url: str) -> None:
    """Over TLS, or on this machine."""
    assert safe_address(url)
    assert urlsplit(url).scheme


@pytest.mark.parametrize("url", ["http://a.example/x", "ftp://127.0.0.1", "", None, 7, "http://[", "//x", "file:///etc/passwd"])
def test_addresses_that_may_not(url: object) -> None:
    """Anything else."""
    assert not safe_address(url)

"""Who may do what: every route by every role, tokens, and whoever tries to get more than that."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from scp.api.routes import ROUTES, rules
from scp.security.roles import ROLES, scopes_of
from scp.security.rules import HALF_OPEN, PUBLIC
from tests.scp.conftest import ROOT, Person, ScpProcess
from tests.signing import PASSWORD

FILLED = {"user": "999999"}


def filled(path: str) -> str:
    """Return a route's path with names of things that are not there."""
    return re.sub(r"\{(\w+)\}", lambda part: FILLED.get(part[1], "nothing"), path)


def test_every_route_of_every_role(plane: ScpProcess) -> None:
    """Nobody gets through without the scope; who has it is not stopped by the door. All routes, all roles, and nobody."""
    people = {role: plane.person(role) for role in ROLES}
    word = {role: person.csrf for role, person in people.items()}
    for route in ROUTES:
        if route.need in (PUBLIC, HALF_OPEN):
            continue
        path = filled(route.path)
        assert plane.api(route.method, path, "{}").status == 401, path
        for role, person in people.items():
            reply = person.scp.api(route.method, path, "{}", cookie=person.secret, csrf=word[role])
            refused = reply.status == 403 and reply.body["code"] == "forbidden"
            assert refused is (route.need not in scopes_of(role)), (role, route.method, path, reply.body)


def test_every_route_of_the_framework_has_a_rule() -> None:
    """What somebody adds and forgets is not open: the door knows every path that the framework would serve."""
    script = (
        "from py4web import core; import json; core.DEFAULTS['PY4WEB_SERVICE_FOLDER'] = '/tmp'; "
        "core.DEFAULTS['PY4WEB_SERVICE_DB_URI'] = 'sqlite:memory'; from scp.settings import APPS; "
        "core.wsgi(apps_folder=str(APPS), app_names='_default'); "
        "print('ROUTES' + json.dumps([[r['method'], r['rule']] for r in core.Reloader.ROUTES['_default']]))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    found = json.loads(done.stdout.partition("ROUTES")[2].splitlines()[0])
    assert len(found) > 20, done.stderr
    table = rules()
    for method, rule in found:
        path = re.sub(r"<re:[^>]*>|<[^>]+>", "x", rule)
        if "static" in path or method not in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            continue
        assert table.find(method, path) is not None, (method, rule)


@pytest.mark.parametrize(
    "forged", [{"csrf": ""}, {"csrf": "0" * 64}, {"Origin": "http://evil.com"}, {"Sec_Fetch_Site": "cross-site"}]
)
def test_a_change_comes_from_our_own_page(plane: ScpProcess, boss: Person, forged: dict[str, str]) -> None:
    """Another site's page has the browser send the cookie; it has neither the word nor the origin."""
    reply = boss.change("POST", "/api/v1/users", {"username": "mallory", "role": "admin"}, **forged)
    assert reply.status == 403
    assert plane.api("POST", "/api/v1/sign-in", {"username": "mallory", "password": PASSWORD}).status == 401


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"])
def test_a_form_is_no_request(boss: Person, kind: str) -> None:
    """What a page of another site can send without asking first is refused by its type."""
    body = json.dumps({"username": "mallory", "role": "admin"})
    assert boss.change("POST", "/api/v1/users", body, Content_Type=kind).status == 415


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b"[]", 400), (b'{"username": 1, "role": "viewer"}', 400), (b"\xff", 400), (b"[" * 10_000, 400),
        (b'{"username": "eve", "role": "viewer", "admin": true}', 400), (b'{"username": "eve", "role": "root"}', 422),
        (b'{"username": "<script>", "role": "viewer"}', 422), (b'{"username": "a\\u0000b", "role": "viewer"}', 422),
        (b'{"username": "eve\\n{\\"event\\":1}", "role": "viewer"}', 422), (b'{"username": "", "role": "viewer"}', 422),
        (b'{"username": "eve", "role": "viewer", "email": "x@y\\nBcc: z@w"}', 422), (b"x" * 70_000, 413),
    ],
)  # fmt: skip
def test_what_is_not_right_is_refused_with_words(boss: Person, body: bytes, status: int) -> None:
    """A short problem+json that says what is wrong; nothing was done."""
    reply = boss.change("POST", "/api/v1/users", body)
    assert reply.status == status
    assert reply.raw.getheader("Content-Type") == "application/problem+json"
    assert 0 < len(reply.body["detail"]) < 400
    assert reply.body["request_id"]


@pytest.mark.parametrize(
    "path", ["/api/v1/users/abc", "/api/v1/users/1e9", "/api/v1/users/99999999999999999999", "/api/v1/users/%00"]
)
def test_odd_ids_are_nobody(boss: Person, path: str) -> None:
    """404, and no trace of the database."""
    assert boss.get(path).status == 404


def test_unknown_paths_and_methods_are_problems(boss: Person) -> None:
    """With what the path takes instead."""
    assert boss.get("/api/v1/nothing").body["code"] == "not_found"
    missing = boss.get("/static/app/nothing.js")
    assert (missing.status, missing.body["code"]) == (404, "not_found")
    assert missing.raw.getheader("Content-Type") == "application/problem+json"
    wrong = boss.change("PUT", "/api/v1/users", {})
    assert (wrong.status, wrong.raw.getheader("Allow")) == (405, "GET, POST")


def test_nobody_makes_themselves_more(plane: ScpProcess) -> None:
    """A viewer changes nobody's role; an operator neither; a token has at most what its owner has."""
    viewer, operator = plane.person("viewer"), plane.person("operator")
    for person in (viewer, operator):
        assert person.change("PATCH", f"/api/v1/users/{person.id}", {"role": "admin"}).status == 403
        refused = person.change("POST", "/api/v1/me/tokens", {"name": "t", "scopes": ["people"]})
        assert (refused.status, refused.body["code"]) == (422, "bad_scopes")


def test_a_token_does_what_it_was_made_for(plane: ScpProcess, boss: Person) -> None:
    """It reads people, makes no session, changes no account, and ends at once when it is revoked."""
    made = boss.change("POST", "/api/v1/me/tokens", {"name": "nightly", "scopes": ["people"], "days": 1})
    token = made.body["token"]
    assert token.startswith("tapeline_")
    answer = plane.api("GET", "/api/v1/users", token=token)
    assert (answer.status, answer.secret) == (200, None)
    assert plane.api("GET", "/api/v1/audit", token=token).status == 403
    assert plane.api("GET", "/api/session", token=token).status == 403
    assert plane.api("PUT", "/api/v1/me/password", {"old": PASSWORD, "new": "x" * 20}, token=token).status == 403
    invited = plane.api("POST", "/api/v1/users", {"username": "made-by-script", "role": "viewer"}, token=token)
    assert invited.status == 201, "no word is needed: a browser never sends a token by itself"
    listed = boss.get("/api/v1/me/tokens").body
    assert [one["name"] for one in listed] == ["nightly"]
    assert token[-20:] not in json.dumps(listed)
    assert listed[0]["used_ms"] > 0
    assert boss.change("DELETE", f"/api/v1/me/tokens/{made.body['id']}").status == 204
    for wrong in (token, token[:-1] + "x", "tapeline_x_y", "x" * 5000, "Bearer"):
        assert plane.api("GET", "/api/v1/users", token=wrong, cookie=boss.secret).status == 401, (
            "a cookie beside it opens nothing"
        )


def test_less_rights_for_the_owner_are_less_rights_for_the_token(plane: ScpProcess, boss: Person) -> None:
    """A token of somebody who is administrator no more, or disabled, opens nothing."""
    other = plane.person("admin")
    token = other.change("POST", "/api/v1/me/tokens", {"name": "t", "scopes": ["people", "view"]}).body["token"]
    assert boss.change("PATCH", f"/api/v1/users/{other.id}", {"role": "viewer"}).status == 200
    assert other.get("/api/v1/me").status == 401, "whose rights change is signed out"
    assert plane.api("GET", "/api/v1/users", token=token).status == 403
    assert plane.api("GET", "/api/session", token=token).status == 200
    assert boss.change("PATCH", f"/api/v1/users/{other.id}", {"disabled": True}).body["disabled"] is True
    assert plane.api("GET", "/api/session", token=token).status == 401
    assert plane.api("POST", "/api/v1/sign-in", {"username": other.name, "password": PASSWORD}).status == 401


def test_the_last_administrator_stays(plane: ScpProcess, boss: Person) -> None:
    """Neither removed nor disabled nor made less, by whomever; then another one may go."""
    others = [one for one in boss.get("/api/v1/users").body["users"] if one["role"] == "admin" and one["id"] != boss.id]
    for one in others:
        assert boss.change("DELETE", f"/api/v1/users/{one['id']}").status == 204
    for method, body in (("DELETE", None), ("PATCH", {"disabled": True}), ("PATCH", {"role": "viewer"})):
        refused = boss.change(method, f"/api/v1/users/{boss.id}", body)
        assert (refused.status, refused.body["code"]) == (422, "last_admin")
    assert boss.get("/api/v1/me").status == 200


def test_people_come_in_pages(plane: ScpProcess, boss: Person) -> None:
    """Every page goes on where the one before ended."""
    for _ in range(3):
        plane.person("viewer")
    seen, after = [], 0
    while True:
        page = boss.get(f"/api/v1/users?limit=2&after={after}").body
        seen += [one["id"] for one in page["users"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert seen == sorted(set(seen))
    assert len(seen) >= 4
    assert boss.get("/api/v1/users?limit=many").status == 400


def test_the_audit_log_names_who_did_what_and_shows_a_change(plane: ScpProcess, boss: Person) -> None:
    """Each entry holds the one before; an export is whole by the command, and broken when a word of it was changed."""
    person = plane.person("viewer")
    boss.change("PATCH", f"/api/v1/users/{person.id}", {"role": "operator"})
    entry = next(one for one in boss.get("/api/v1/audit").body["entries"] if one["action"] == "user.change")
    assert (entry["who"], entry["target"], entry["address"]) == ("ann", person.name, "127.0.0.1")
    assert entry["detail"] == {"before": {"role": "viewer"}, "after": {"role": "operator"}}
    export = boss.get("/api/v1/audit/export").body
    path = plane.run_dir / "audit.ndjson"

    def verified(text: str) -> tuple[int, str]:
        path.write_text(text)
        argv = [sys.executable, "-m", "scp", "audit", "verify", str(path)]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
        return done.returncode, done.stdout

    assert verified(export)[0] == 0
    lines = export.splitlines(keepends=True)
    assert verified(export.replace("operator", "admin", 1))[0] == 1
    code, said = verified("".join(lines[:3] + lines[4:]))
    assert (code, said) == (1, "broken: line 4: an entry before it is missing or was changed\n")
    for name in (PASSWORD, "argon2", boss.secret):
        assert name not in export


def test_the_api_describes_itself(plane: ScpProcess) -> None:
    """Without signing in; every route is there."""
    document = plane.api("GET", "/openapi.json").body
    assert document["openapi"] == "3.1.0"
    assert {(method.upper(), path) for path, item in document["paths"].items() for method in item} == {
        (route.method, route.path) for route in ROUTES
    }

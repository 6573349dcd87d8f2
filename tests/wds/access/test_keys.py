"""Checks how the local key is made, how the control plane's keys are fetched, and which tokens they verify."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.errors import OperatorError
from tests.wds.talk import Talk
from wds.access.keys import KEY_FILE, KeySource, local_key, mint_local
from wds.access.tokens import KeyRing, TokenRefused, jwks_of, mint


class ControlPlane:
    """Serves a JWKS; counts the requests."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.asked = 0
        plane = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                plane.asked += 1
                body = jwks_of(plane.key.public_key())
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks.json"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def token(self) -> str:
        return mint(self.key, "u", ["*"], 60, time.time(), "j")

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    plane = ControlPlane()
    yield plane
    plane.stop()


def test_the_local_key_is_made_once_and_kept_secret(tmp_path: Path) -> None:
    """The same key at every start, readable by its owner only; a broken file is an operator's error."""
    first = local_key(tmp_path).public_key().public_bytes_raw()
    assert local_key(tmp_path).public_key().public_bytes_raw() == first
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    ring = KeyRing()
    ring.add_local(local_key(tmp_path).public_key())
    assert ring.verify(mint_local(tmp_path, ["quote:*"], 5, "me"), time.time()).globs == ("quote:*",)
    (tmp_path / KEY_FILE).write_text("rubbish")
    with pytest.raises(OperatorError, match="not an Ed25519 private key"):
        local_key(tmp_path)


async def test_unknown_keys_are_fetched_but_not_for_every_token(plane: ControlPlane) -> None:
    """The first token of an unknown key fetches the JWKS; more unknown ones do not hammer the control plane."""
    source = KeySource(KeyRing(), plane.url, 300)
    assert (await source.verify_anew(plane.token())).sub == "u"
    foreign = mint(Ed25519PrivateKey.generate(), "x", ["*"], 60, time.time(), "j")
    for _ in range(5):
        with pytest.raises(TokenRefused) as refused:
            await source.verify_anew(foreign)
        assert refused.value.code == "unknown_key"
    assert plane.asked == 2, "one for each unknown key"


async def test_a_key_rotated_a_moment_ago_is_fetched(plane: ControlPlane) -> None:
    """Keys that were fetched just now do not stand in the way of a newer one; strangers' keys cost one fetch a second at most."""
    source = KeySource(KeyRing(), plane.url, 300)
    assert (await source.verify_anew(plane.token())).sub == "u"
    plane.key = Ed25519PrivateKey.generate()
    assert (await source.verify_anew(plane.token())).sub == "u"
    asked, began = plane.asked, time.monotonic()
    for _ in range(3):
        with pytest.raises(TokenRefused):
            await source.verify_anew(mint(Ed25519PrivateKey.generate(), "x", ["*"], 60, time.time(), "j"))
    assert plane.asked - asked <= 1 + (time.monotonic() - began)


async def test_known_keys_outlive_the_control_plane(plane: ControlPlane) -> None:
    """With the control plane away, known keys stay in force and unknown ones are `unavailable`."""
    source = KeySource(KeyRing(), plane.url, 300)
    await source.refresh()
    plane.stop()
    source._tried_at = float("-inf")
    await source.refresh()
    assert source.verify(plane.token()).sub == "u"
    with pytest.raises(TokenRefused) as refused:
        await source.verify_anew(mint(Ed25519PrivateKey.generate(), "x", ["*"], 60, time.time(), "j"))
    assert refused.value.code == "unavailable"


async def test_a_worker_accepts_the_control_planes_tokens(serve, plane: ControlPlane) -> None:  # type: ignore[no-untyped-def]
    """A token of a key the worker has not seen yet is good after a fetch."""
    wds = await serve(jwks_url=plane.url)
    talk = await Talk.to(wds.port, plane.token())
    await talk.close()

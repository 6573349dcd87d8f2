"""An OpenID Connect provider on loopback: discovery, keys, codes with PKCE. It can be told to lie, to be slow, or to be away."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT, SECRET = "tapeline", "shared secret"


class Provider:
    """Knows one person at a time. `lie` changes the next identities: claims by name, or kid, alg, key."""

    def __init__(self) -> None:
        self.person = {"sub": "u-1", "preferred_username": "carla", "email": "carla@example.com", "email_verified": True}
        self.lie: dict[str, Any] = {}
        self.denies = False
        self.delay_s = 0.0
        self.key = rsa.generate_private_key(65537, 2048)
        self.kid = "k1"
        self.url = ""
        self.asked: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}

    def document(self) -> dict[str, Any]:
        url = self.url
        ends = {"authorization_endpoint": f"{url}/authorize", "token_endpoint": f"{url}/token", "jwks_uri": f"{url}/keys"}
        return {"issuer": url, **ends, **self.lie.get("document", {})}

    def keys(self) -> dict[str, Any]:
        item = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [{**item, "kid": self.kid, "use": "sig", "alg": "RS256"}]}

    def authorize(self, query: dict[str, str]) -> str:
        """Return where the browser goes back to."""
        assert query["code_challenge_method"] == "S256"
        assert query["response_type"] == "code"
        assert "openid" in query["scope"]
        given = {"error": "access_denied"} if self.denies else {"code": secrets.token_urlsafe(16)}
        self._codes[given.get("code", "")] = query
        return f"{query['redirect_uri']}?{urlencode({**given, 'state': query['state']})}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """Return status and document for a code."""
        asked = self._codes.pop(form.get("code", ""), None)
        user, _, password = base64.b64decode(authorization.partition(" ")[2]).decode().partition(":")
        challenge = (
            base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=").decode()
        )
        right = asked is not None and (user, password.replace("+", " ").replace("%20", " ")) == (CLIENT, SECRET)
        if asked is None or not right or challenge != asked["code_challenge"] or form["redirect_uri"] != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims: dict[str, Any] = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        claims |= self.person | {name: value for name, value in self.lie.items() if name in (*claims, "sub", "azp")}
        key, alg = self.lie.get("key", self.key), self.lie.get("alg", "RS256")
        text = jwt.encode(claims, None if alg == "none" else key, algorithm=alg, headers={"kid": self.lie.get("kid", self.kid)})
        return 200, {"access_token": "x", "token_type": "Bearer", "expires_in": 300, "id_token": text}


class _Handler(BaseHTTPRequestHandler):
    provider: Provider

    def do_GET(self) -> None:
        parts, mine = urlsplit(self.path), self.provider
        mine.asked.append(parts.path)
        time.sleep(mine.delay_s)
        if parts.path == "/.well-known/openid-configuration":
            self._send(200, mine.document())
        elif parts.path == "/keys":
            self._send(200, mine.keys())
        else:
            where = mine.authorize({name: values[0] for name, values in parse_qs(parts.query).items()})
            self._send(302, {}, where)

    def do_POST(self) -> None:
        self.provider.asked.append(self.path)
        time.sleep(self.provider.delay_s)
        form = {
            name: values[0] for name, values in parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()).items()
        }
        self._send(*self.provider.token(form, self.headers.get("Authorization", "")))

    def _send(self, status: int, document: dict[str, Any], location: str = "") -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def provider() -> Iterator[Provider]:
    """Run one."""
    made = Provider()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"provider": made}))
    made.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()

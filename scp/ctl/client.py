"""A client of the control plane for Python programs.

    with ControlPlane("https://desk.example.com", token) as plane:
        for user in plane.pages("/api/v1/users", "users"):
            print(user["username"])

Shapes are those of /openapi.json. Every problem is a `Refused` with the server's code and words.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

TIMEOUT_S = 30.0


class Refused(Exception):
    """The control plane did not do it. `status` is HTTP's, `code` for programs, the text says what to do."""

    def __init__(self, status: int, code: str, detail: str, after_s: float = 0.0) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.after_s = after_s


class Unreachable(Exception):
    """No answer, or none of a control plane; whether a change was made is not known: send it again with the same key."""


class ControlPlane:
    """One control plane, by its address and an API token (Account, Tokens on the page). `ca` = file of a private authority."""

    def __init__(self, url: str, token: str, ca: str = "", timeout_s: float = TIMEOUT_S) -> None:
        headers = {"User-Agent": "tapeline-scpctl"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._web = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout_s, verify=_authority(ca))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._web.close()

    def call(
        self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:  # fmt: skip
        """Send one request.  Raises: Refused, Unreachable."""
        try:
            answer = self._web.request(method, path, params=dict(query or {}), headers=dict(headers or {}), json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(f"{self._web.base_url} does not answer: {str(error) or type(error).__name__}") from None
        if answer.is_success:
            return answer
        raise _refused(answer)

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """Return a document.  Raises: Refused, Unreachable."""
        return document(self.call("GET", path, query=query))

    def change(self, method: str, path: str, body: Any = None, key: str = "") -> Any:
        """Change something and return the document, None where there is none.

        A change that is sent again with the same `key` is made once.  Raises: Refused, Unreachable.
        """
        return document(self.call(method, path, body, headers={"Idempotency-Key": key or secrets.token_hex(16)}))

    def pages(self, path: str, name: str, query: Mapping[str, Any] | None = None, cursor: str = "after") -> Iterator[Any]:
        """Yield what all pages of a list hold under `name`; `cursor` is the query's word for where to go on."""
        asked = dict(query or {})
        while True:
            found = self.get(path, asked)
            yield from found[name]
            if found.get("next") is None:
                return
            asked[cursor] = found["next"]


def document(answer: httpx.Response) -> Any:
    """Return what an answer holds: JSON's value, text of other types, None when it is empty."""
    if not answer.content:
        return None
    kind = answer.headers.get("Content-Type", "").partition(";")[0]
    if kind != "application/json":
        return answer.text
    try:
        return answer.json()
    except ValueError:
        raise Unreachable("the answer is no JSON: is this the address of a Tapeline control plane?") from None


def _refused(answer: httpx.Response) -> Exception:
    try:
        said = answer.json()
        after = answer.headers.get("Retry-After", "0")
        return Refused(answer.status_code, said["code"], said["detail"], float(after) if after.isdigit() else 0.0)
    except (ValueError, KeyError, TypeError):
        first = answer.text.strip().partition("\n")[0][:200]
        if answer.status_code < 400 or not first or first.startswith("<"):
            return Unreachable(f"{answer.url} answered {answer.status_code}: is this the address of a Tapeline control plane?")
        return Refused(answer.status_code, "refused", first)


def _authority(ca: str) -> Any:
    if not ca:
        return True
    import ssl  # only who has a private authority needs it

    return ssl.create_default_context(cafile=ca)

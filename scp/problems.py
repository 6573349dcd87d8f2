"""Writes problem+json (RFC 9457): a code for programs, and in words what to do."""

from __future__ import annotations

import json
from collections.abc import Iterable
from wsgiref.types import StartResponse

CONTENT_TYPE = "application/problem+json"
PHRASES = {
    304: "Not Modified",
    200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 409: "Conflict", 411: "Length Required", 413: "Content Too Large",
    412: "Precondition Failed", 428: "Precondition Required",
    415: "Unsupported Media Type", 422: "Unprocessable Content", 429: "Too Many Requests", 500: "Internal Server Error",
    503: "Service Unavailable",
}  # fmt: skip


class Problem(Exception):
    """A request that is not done. `code` is for programs, `detail` says what to do, `more` are further headers."""

    def __init__(self, status: int, code: str, detail: str, more: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.more = tuple(more)

    def body(self, request_id: str) -> bytes:
        """Return the document; `request_id` also stands in the log and in the audit log."""
        return json.dumps(
            {
                "type": "about:blank", "title": PHRASES[self.status], "status": self.status, "code": self.code,
                "detail": self.detail, "request_id": request_id,
            }
        ).encode()  # fmt: skip

    def answer(self, start: StartResponse, request_id: str) -> list[bytes]:
        """Send it as a WSGI answer."""
        body = self.body(request_id)
        kind = [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body)))]
        start(f"{self.status} {PHRASES[self.status]}", [*kind, *self.more])
        return [body]


def too_many(after_s: int) -> Problem:
    """Return the answer to somebody who tries too often."""
    minutes = -(-after_s // 60)
    words = f"Too many tries. Again in {minutes} minute{'s' if minutes > 1 else ''}"
    return Problem(429, "too_many_tries", words, [("Retry-After", str(after_s))])

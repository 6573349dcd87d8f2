"""Stream tokens for scripts: /api/v1/stream-tokens."""

from __future__ import annotations

import msgspec

from scp.api.calls import Answer, Body, Call, Route
from scp.problems import Problem
from scp.tokens import allowed, covered

CHANNELS_MAX = 50


class StreamTokenBody(Body):
    """Which channels (globs like `quote:*`; left out = all that your role has), and for how many seconds at most."""

    channels: list[str] | None = None
    seconds: int = 0


class StreamTokenMade(msgspec.Struct):
    """A token for the stream at `wds_url`, good for `expires_s` unless you are signed out, and the channels that it opens."""

    token: str
    expires_s: int
    wds_url: str
    channels: list[str]


def make_stream_token(call: Call) -> Answer:
    """Make a token for the data service; ask again before it ends."""
    body, operator = call.body(StreamTokenBody), "operate" in call.me.scopes
    channels = body.channels or list(allowed(operator))
    wrong = [one for one in channels if len(one) > 128 or not one.isprintable() or not covered(one, operator)]
    if wrong or len(channels) > CHANNELS_MAX:
        words = f"{wrong[0][:80]!r} is none of your role's channels: {', '.join(allowed(operator))}" if wrong else "too many"
        raise Problem(422, "bad_channels", words if wrong else f"At most {CHANNELS_MAX} globs")
    if not 0 <= body.seconds <= 86_400:
        raise Problem(422, "bad_seconds", "seconds is from 1 to 86400, 0 = as long as it may be; SCP_TOKEN_S is the most")
    session = call.me.session.public_id if call.me.session is not None else call.me.token_id
    made = call.control.minter.token(call.me.username, session, operator, int(call.asked.now_s), channels, body.seconds)
    return Answer(StreamTokenMade(made.text, made.expires_s, call.control.wds_url, channels), 201)


ROUTES = (Route("POST", "/api/v1/stream-tokens", "view", make_stream_token, StreamTokenBody, StreamTokenMade, 201, (422,)),)

"""Companies and older candles, as the vendor's REST service has them: /api/v1/company, /api/v1/candles. The key stays with us."""

from __future__ import annotations

from scp.api.calls import Answer, Call, Route
from scp.problems import Problem
from scp.reference.desk import Candles, Company
from scp.reference.picture import PICTURE_KINDS
from scp.reference.windows import SPANS

LIMIT, LIMIT_MAX = 500, 1_000
MS_MAX = 1 << 53


def read_company(call: Call) -> Answer:
    """Show what is known of a company: overview, short interest and volume, splits, ticker events, filings."""
    return Answer(call.control.reference.company(call.path["symbol"], call.me.user_id))


def read_logo(call: Call) -> Answer:
    """Return a company's logo, a PNG or JPEG that we have looked at; other kinds are not passed on."""
    found = call.control.reference.logo(call.path["symbol"], call.me.user_id)
    return Answer(found.data, content_type=found.kind)


def read_candles(call: Call) -> Answer:
    """Return bars of before a time, in today's shares: what the stream's own history does not reach."""
    span, before_ms = call.word("span", "1m"), call.number("before", 0, MS_MAX)
    if span not in SPANS:
        raise Problem(400, "bad_request", f"span is one of {', '.join(SPANS)}")
    limit = max(1, call.number("limit", LIMIT, LIMIT_MAX))
    found = call.control.reference.candles(call.path["symbol"], span, before_ms or call.asked.now_ms, limit, call.me.user_id)
    return Answer(found)


ASKED = (404, 429)
ROUTES = (
    Route("GET", "/api/v1/company/{symbol}", "view", read_company, gives=Company, may_answer=ASKED),
    Route("GET", "/api/v1/company/{symbol}/logo", "view", read_logo, may_answer=ASKED, content_types=PICTURE_KINDS),
    Route(
        "GET", "/api/v1/candles/{symbol}", "view", read_candles, gives=Candles, may_answer=ASKED,
        query=(
            ("span", "1m, 5m, 1h or 1d", "string"),
            ("before", "bars that begin before this time, ms: `next` of the page before; 0 = now"),
            ("limit", "how many at most, up to 1000"),
        ),
    ),
)  # fmt: skip

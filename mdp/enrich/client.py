"""Asks the vendor's REST service one question through the official client. It blocks: only the process of its own calls it."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mdp.enrich.questions import FLOATS_A_PAGE, SPLITS_A_PAGE, Order, Question, split_bounds

CONNECT_S_MAX, READ_S_MAX, ANSWER_S_MAX = 5.0, 20.0, 60.0
STATUS = re.compile(r"too many (\d{3}) error")


class Unanswered(Exception):
    """The service cannot be reached, or does not answer: it is asked again."""


class Limited(Unanswered):
    """The service says that we ask too often."""


class Refused(Exception):
    """The service answers, and does not give this; `key` = the key itself is not accepted."""

    def __init__(self, why: str, key: bool) -> None:
        super().__init__(why)
        self.key = key


Ask = Callable[[Order, Question], bytes]  # blocks; raises Unanswered, Refused


def official(key: str, url: str) -> Ask:
    """Return what asks the service at `url` with `key`."""
    from massive import RESTClient
    from massive.exceptions import BadResponse
    from urllib3 import Retry
    from urllib3.exceptions import HTTPError, MaxRetryError

    # The client tells an answer's status to nobody; urllib3 does of those that it would try again. The pauses are ours.
    once = Retry(total=0, redirect=0, status_forcelist=range(300, 600), respect_retry_after_header=False)
    client = RESTClient(
        key, connect_timeout=CONNECT_S_MAX, read_timeout=READ_S_MAX, base=url.rstrip("/"), connection_pool_kw={"retries": once}
    )

    def ask(order: Order, question: Question) -> bytes:
        try:
            with _at_most(ANSWER_S_MAX):
                return bytes(_call(client, order, question).data)
        except MaxRetryError as error:
            raise _refusal(error.reason) from None
        except BadResponse as error:
            raise Unanswered(f"answered {str(error)[:200]!r}") from None
        except HTTPError as error:
            raise Unanswered(f"cannot be read: {error}") from None
        except MemoryError:
            raise Unanswered("answers more than fits into memory") from None

    return ask


def _call(client: Any, order: Order, question: Question) -> Any:
    page: dict[str, Any] = dict(question.cursor)
    if question.kind == "day":
        return client.get_grouped_daily_aggs(order.dates[question.number], adjusted=False, raw=True)
    if question.kind == "snapshot":
        return client.get_snapshot_all("stocks", raw=True)
    if question.kind == "floats":
        return client.list_stocks_floats(params=page or {"limit": FLOATS_A_PAGE}, raw=True)
    if page:
        return client.list_splits(params=page, raw=True)
    since, until = split_bounds(order)
    return client.list_splits(execution_date_gte=str(since), execution_date_lte=str(until), limit=SPLITS_A_PAGE, raw=True)


def _refusal(reason: BaseException | None) -> Exception:
    found = STATUS.search(str(reason))
    if found is None:
        return Unanswered(f"cannot be reached: {reason}")
    code = int(found[1])
    if code == 401:
        return Refused("refused the API key (401)", key=True)
    if code in (402, 403, 404, 410):
        return Refused(f"does not give this with the plan of this API key ({code})", key=False)
    if code == 429:
        return Limited("says that it is asked too often (429)")
    return Unanswered(f"answered {code}")


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """End a call that drips: each byte in time, the whole never. Signals reach the main thread alone, where this runs."""

    def late(*_: object) -> None:
        raise Unanswered(f"did not answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

"""Speaks the original service's protocol with one client: reads its actions, answers with statuses and cached documents.

Invariant: order, limits, queue, deadlines and the end of a token are the ones of protocol v1 (`wds/session/session.py`); only the
language differs. Every frame of a client is answered, whatever is in it, and none of them ends anything but a client that does
not stop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from mdc.channels import kind_of
from service.errors import UNREADABLE
from wds.access.tokens import AUDIENCE, COMPAT_AUDIENCE, Claims, TokenRefused
from wds.compat.feeds import FAMILIES, NAME_CHARS_MAX, Feed, Wild, find, is_pattern, match
from wds.compat.payloads import FAULTS, RANGES, Ranges, read
from wds.fanout.channel import Names
from wds.protocol import BAD_TOKEN, HZ_DEFAULT, OVERLOAD, Auth, Command, Error, Get, GetOutcome, Id, Sub, Unsub, encode, error
from wds.session.session import (
    QUEUE_MAX,
    Action,
    Close,
    Fetch,
    Follow,
    ListKinds,
    Probe,
    Send,
    Session,
    Unfollow,
    Widen,
)
from wds.session.subscriptions import Ask, Pattern

REPLY_BYTES_MAX = 491_520  # of the documents in one answer, about
WILDCARDS_MAX = 24  # each is held against every new channel; `*` counts as one for each kind of feed
EXPANDED_MAX = 1_000  # feeds that a wildcard follows, or reads, in one turn: 13 ms; of more that it matches, so many a second
LIMIT_MAX = 100_000  # more is as good as all: the app offers up to 10,000 articles
EXAMPLE = 'send one object a frame, such as {"action":"get","cache":"quote:AAPL"}'
ASK = Ask(HZ_DEFAULT, None)
_items = msgspec.json.Decoder(list[Raw])


class Frame(Struct):
    """What is read of a client's frame; what is wrong with a field is answered, so each may be anything."""

    action: Any = None
    api_key: Any = None
    feed: Any = None
    cache: Any = None
    limit: Any = 0


_frame = msgspec.json.Decoder(Frame)


NOTHING = Wild(FAMILIES[-1], "")


class BadFrame(Exception):
    """A frame that is no command; `status` is the answer's."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Wildcard(Pattern):
    """What a wildcard follows of one family; `joined` are feeds."""

    text: str = ""
    wild: Wild = NOTHING


class CompatSession(Session):
    """One client of the original service's browser app."""

    audiences = (AUDIENCE, COMPAT_AUDIENCE)
    transport = "compat"
    __slots__ = ()

    # Frames

    def open(self, header_token: str | None = None) -> list[Action]:
        """Say nothing: the original does not greet. A token of the handshake is checked as if it had come first."""
        if header_token is None:
            return []
        self._queue.append(Auth(header_token))
        return self._pump()

    def receive(self, data: bytes, now_ns: int, binary: bool = False) -> list[Action]:
        """Take one frame of the client."""
        if self.closed:
            return []
        self._pinged = False
        if len(data) > self._limits.frame_bytes_max:
            return self._fault(UNSET, error("too_large", f"at most {self._limits.frame_bytes_max} bytes a frame"), now_ns)
        try:
            command = _command(b"" if binary else data)
        except BadFrame as bad:
            return [*_status(bad.status, message=str(bad)), *self._violate(now_ns)]
        return self._take(command, now_ns)

    def _fault(self, id: Id | UnsetType, fault: Error, now_ns: int) -> list[Action]:
        more = {} if isinstance(fault.after_ms, UnsetType) else {"after_ms": fault.after_ms}
        return [*_status(fault.code.replace("_", " "), message=fault.message, **more), *self._violate(now_ns)]

    def _close(self, code: int, after_ms: int | UnsetType | None = None, reason: str | UnsetType = UNSET) -> list[Action]:
        # No goodbye before it: the app would take it for data. The close frame says why.
        self.closed = True
        self._queue.clear()
        return [Close(code)]

    def _question(self, wall_ms: int) -> Action:
        return Probe()

    # Commands

    def _start(self, command: Command | Widen) -> list[Action]:
        if isinstance(command, Auth):
            return super()._start(command)
        if self.claims is None:
            return [] if isinstance(command, Widen) else [*_status("unauthorized"), *self._close(BAD_TOKEN)]
        if isinstance(command, Widen):
            return self._widen(command)
        if isinstance(command, Sub):
            return self._subscribe(command.ch[0])
        if isinstance(command, Unsub):
            return self._unsubscribe(command.ch[0])
        assert isinstance(command, Get)
        return self._look_up(command.ch[0], 0 if isinstance(command.limit, UnsetType) else command.limit)

    def _authenticated(self, command: Auth, outcome: Claims | TokenRefused, left_s: float, now_ns: int) -> list[Action]:
        before = self.claims
        actions = super()._authenticated(command, outcome, left_s, now_ns)
        if self.claims is before:
            return actions
        self._notice_ns = 0  # the app renews nothing
        return [*_status("authorized"), *actions]

    def _leave_forbidden(self, claims: Claims) -> list[Action]:
        return self._release([name for name in self.subscriptions.channels if not _covered(name, claims)])

    def _refused(self, command: Auth, outcome: TokenRefused) -> list[Action]:
        code = OVERLOAD if outcome.code == "unavailable" else BAD_TOKEN
        refusal = _status("invalid key", message=str(outcome))
        return refusal if self.claims is not None else [*refusal, *self._close(code)]

    # subscribe, unsubscribe

    def _subscribe(self, name: str) -> list[Action]:
        if is_pattern(name):
            return self._listed(name, lambda known: self._subscribe_all(name, known), "feed")
        feed, channels = find(name), self.subscriptions.channels
        assert self.claims is not None
        if feed is None:
            return _status("unknown feed", feed=name)
        if not _covered(name, self.claims):
            return _status("forbidden", feed=name)
        if name not in channels and len(channels) >= self._limits.subs_max:
            return _status("limit", feed=name, message=f"at most {self._limits.subs_max} feeds a connection")
        fresh = [] if name in channels else [name]
        self.subscriptions.named[name] = channels[name] = ASK
        return [*_status("subscribed", feed=name), *_follow(fresh)]

    def _listed(self, name: str, then: Callable[[Names | None], list[Action]], what: str) -> list[Action]:
        single, wild = match(name)
        if not single and not wild:
            return _status("unknown feed", **{what: name})
        kinds = sorted({one.family.kind.name for one in wild})
        if not kinds:
            return then({})
        self._busy = then
        return [ListKinds(kinds)]

    def _subscribe_all(self, text: str, known: Names | None) -> list[Action]:
        single, wild = match(text)
        patterns = self.subscriptions.patterns
        new = {f"{text} {one.family.head}": one for one in wild}
        if len(patterns.keys() | new.keys()) > WILDCARDS_MAX:
            return _status("limit", feed=text, message=f"at most {WILDCARDS_MAX} kinds of feeds by wildcards a connection")
        fresh = self._room_for(single)
        for name in fresh:
            self.subscriptions.named[name] = ASK
        matched = len(single)
        for key, one in new.items():
            pattern = patterns.setdefault(key, Wildcard(one.family.kind, ASK, text=text, wild=one))
            assert isinstance(pattern, Wildcard)
            channels = (known or {}).get(one.family.kind.name, ())
            matched += len(names := one.feeds(channels))
            fresh += self._expand(pattern, channels, names, EXPANDED_MAX - len(fresh))
        following = sum(name in self.subscriptions.channels for name in single)
        following += sum(len(one.joined) for one in self._wildcards(text))
        return [*_status("subscribed", feed=text, matched=matched, following=following), *_follow(fresh)]

    def _wildcards(self, text: str = "") -> list[Wildcard]:
        return [one for one in self.subscriptions.patterns.values() if isinstance(one, Wildcard) and text in ("", one.text)]

    def _room_for(self, names: Sequence[str], most: int = EXPANDED_MAX) -> list[str]:
        """Register what is not followed yet and may be, as far as there is room; return it."""
        assert self.claims is not None
        claims, channels = self.claims, self.subscriptions.channels
        fresh: list[str] = []
        for name in names:
            if len(channels) >= self._limits.subs_max or len(fresh) >= most:
                break
            if name not in channels and _covered(name, claims):
                channels[name] = ASK
                fresh.append(name)
        return fresh

    def _expand(self, pattern: Wildcard, channels: Sequence[str], names: Sequence[str], most: int) -> list[str]:
        fresh = self._room_for(names, most)
        if len(fresh) < most:
            pattern.seen = channels  # else the rest follows, a second later: nobody shall wait for all of it
        pattern.joined.update(name for name in names if name in self.subscriptions.channels)
        return fresh

    def on_known(self, kind: str, names: Sequence[str]) -> list[Action]:
        """The channels of `kind` changed; wildcards follow the new ones."""
        unseen = any(one.kind.name == kind and one.seen is not names for one in self._wildcards())
        if self.closed or not unseen or len(self._queue) >= QUEUE_MAX:
            return []
        self._queue.append(Widen(kind, names))
        return self._pump()

    def _widen(self, command: Widen) -> list[Action]:
        fresh: list[str] = []
        for one in self._wildcards():
            if one.kind.name == command.kind and one.seen is not command.names:
                if len(self.subscriptions.channels) >= self._limits.subs_max:
                    one.seen = command.names
                else:
                    fresh += self._expand(one, command.names, one.wild.feeds(command.names), EXPANDED_MAX - len(fresh))
        return _follow(fresh)

    def _unsubscribe(self, name: str) -> list[Action]:
        known = name in self.subscriptions.named
        gone = [name] if self.subscriptions.named.pop(name, None) is not None else []
        if is_pattern(name):
            gone = [one for one in match(name)[0] if self.subscriptions.named.pop(one, None) is not None]
            for key, pattern in list(self.subscriptions.patterns.items()):
                if isinstance(pattern, Wildcard) and pattern.text == name:
                    known = True
                    del self.subscriptions.patterns[key]
                    gone += pattern.joined
            known = known or bool(gone)
        if not known:
            return _status("not subscribed", feed=name)
        held = {feed for one in self._wildcards() for feed in one.joined} | set(self.subscriptions.named)
        return [*_status("unsubscribed", feed=name), *self._release([feed for feed in gone if feed not in held])]

    def _release(self, names: Sequence[str]) -> list[Action]:
        gone = [name for name in names if self.subscriptions.channels.pop(name, None) is not None]
        for name in gone:
            self.subscriptions.named.pop(name, None)
            for one in self._wildcards():
                one.joined.discard(name)
        return [Unfollow(gone)] if gone else []

    # get

    def _look_up(self, name: str, limit: int) -> list[Action]:
        if is_pattern(name):
            return self._listed(name, lambda known: self._fetch_all(name, limit, known), "cache")
        feed = find(name)
        assert self.claims is not None
        if feed is None:
            return _document(name, b"null", "unknown feed")
        if not _covered(name, self.claims):
            return _document(name, b"null", "forbidden")
        self._busy = lambda outcomes: self._looked_up(feed, limit, outcomes)
        return [_fetch(feed, limit)]

    def _looked_up(self, feed: Feed, limit: int, outcomes: Mapping[str, GetOutcome]) -> list[Action]:
        first = outcomes.get(feed.channels[0])
        if first is None or (first.error is not UNSET and first.error.message != "no data yet"):
            return _document(feed.name, b"null", "unavailable")
        return _document(feed.name, _answer(feed, limit, outcomes))

    def _fetch_all(self, text: str, limit: int, known: Names | None) -> list[Action]:
        """A wildcard asks for the documents of all that it matches: an array, as far as an answer goes."""
        assert self.claims is not None
        single, wild = match(text)
        names = chain(single, *(one.feeds((known or {}).get(one.family.kind.name, ())) for one in wild))
        claims = self.claims
        covered = (feed for name in names if _covered(name, claims) and (feed := find(name)) is not None)
        feeds = list(islice(covered, min(EXPANDED_MAX, self._limits.subs_max)))
        channels = list(dict.fromkeys(channel for feed in feeds for channel in feed.channels))
        if not channels:
            return _document(text, b"[]")
        self._busy = lambda outcomes: self._fetched_all(text, feeds, limit, outcomes)
        return [Fetch(channels, None)]

    def _fetched_all(
        self, text: str, feeds: Sequence[Feed], limit: int, outcomes: Mapping[str, GetOutcome]
    ) -> list[Action]:  # fmt: skip
        found, room = [], REPLY_BYTES_MAX
        for feed in feeds:
            made = _answer(feed, limit, outcomes)
            room -= len(made) + 1
            if room < 0:
                break
            found += [made] if made not in (b"null", b"[]") else []
        return _document(text, b"[" + b",".join(found) + b"]")


def _command(data: bytes) -> Command:
    """Return what a frame asks for, as a command of ours.  Raises: BadFrame."""
    try:
        frame = _frame.decode(data)
    except UNREADABLE:
        raise BadFrame("invalid message", f"not a JSON object in a text frame; {EXAMPLE}") from None
    if frame.action == "auth":
        if not isinstance(frame.api_key, str) or not 0 < len(frame.api_key) <= 8192:
            raise BadFrame("invalid message", '`api_key` is what /api/get_config gives: {"action":"auth","api_key":"…"}')
        return Auth(frame.api_key)
    if frame.action == "subscribe":
        return Sub([_name(frame.feed, "feed")])
    if frame.action == "unsubscribe":
        return Unsub([_name(frame.feed, "feed")])
    if frame.action == "get":
        return Get([_name(frame.cache, "cache")], _limit(frame.limit))
    raise BadFrame("invalid action", "`action` is auth, subscribe, unsubscribe or get")


def _name(given: Any, field: str) -> str:
    if not isinstance(given, str) or not 0 < len(given) <= NAME_CHARS_MAX:
        raise BadFrame("invalid message", f"`{field}` is a name of 1 to {NAME_CHARS_MAX} characters, such as quote:AAPL")
    return given


def _limit(given: Any) -> int:
    # The original takes whatever Python makes a whole number of; below 1 it means all.
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) < 10:
        given = int(given)
    if given is None or (isinstance(given, int | float) and -1e9 < given < 1e9):
        return min(max(int(given or 0), 0), LIMIT_MAX)
    raise BadFrame("invalid message", "`limit` is a whole number; 0 = all")


def _status(status: str, **more: Any) -> list[Action]:
    return [Send(encode({"status": status, **more}))]


def _document(name: str, data: bytes, status: str = "") -> list[Action]:
    return [Send(encode({"cache": name, "data": Raw(data)} | ({"status": status} if status else {})))]


def _follow(names: list[str]) -> list[Action]:
    return [Follow(names)] if names else []


def _covered(name: str, claims: Claims) -> bool:
    feed = find(name)
    return feed is not None and all(claims.allows(channel, feed.family.kind.operators_only) for channel in feed.channels)


def _fetch(feed: Feed, limit: int) -> Fetch:
    # Alerts to highs and lows are one list here: all are read, and the other half is left out after.
    if not feed.family.events or feed.family.kind.name == "alerts":
        return Fetch(list(feed.channels), None)
    keep = feed.family.kind.keep if feed.family.lists else 1
    return Fetch(list(feed.channels), min(limit or keep, keep))


def _answer(feed: Feed, limit: int, outcomes: Mapping[str, GetOutcome]) -> bytes:
    """Return the document of a feed as JSON: a payload, or the newest first of one that is a list; null when there is none."""
    try:
        if feed.family.events:
            return _events(feed, limit, outcomes[feed.channels[0]].data)
        inputs = [_state(channel, outcomes.get(channel)) for channel in feed.channels]
        return b"null" if inputs[0] is None else encode(feed.family.shape(feed.symbol, inputs))
    except FAULTS:
        return b"null"  # a poisoned document is as good as none


def _state(channel: str, outcome: GetOutcome | None) -> Any:
    if outcome is None or isinstance(outcome.data, UnsetType):
        return None
    kind = kind_of(channel).name
    found = read(kind, bytes(outcome.data))
    if kind != RANGES:
        return found
    ranges = Ranges()
    ranges.see(found)
    return ranges


def _events(feed: Feed, limit: int, data: Raw | UnsetType) -> bytes:
    family, found, room = feed.family, [], REPLY_BYTES_MAX
    for item in reversed(_items.decode(data) if not isinstance(data, UnsetType) else []):
        payload = family.shape(feed.symbol, [read(family.kind.name, bytes(item))])
        if payload is None:
            continue
        found.append(encode(payload))
        room -= len(found[-1]) + 1
        if room < 0 or len(found) == (limit if family.lists else 1):
            break
    if not family.lists:
        return found[0] if found else b"null"
    return b"[" + b",".join(found) + b"]"

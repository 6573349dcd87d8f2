"""Decides which actions follow one client's frames and timers: who it is, what it asked for, whether it is still alive.

Invariant: commands are answered one after the other in the order they came (`auth` and `sub` may be sent in one go); while
one waits for the outside (a key, the list of channels, a snapshot) the next ones wait in a bounded queue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from zlib import crc32

from msgspec import UNSET, UnsetType

from wds.access.limits import TokenBucket
from wds.access.tokens import AUDIENCE, Claims, TokenRefused
from wds.fanout.channel import Names
from wds.fanout.compact import told_kinds
from wds.fanout.freshness import Verdict
from wds.fanout.member import Want
from wds.fanout.pieces import PIECE_BYTES
from wds.protocol import (
    ABUSE,
    BAD_TOKEN,
    CHANNELS_PER_COMMAND_MAX,
    CLOSE_CODES,
    HZ_DEFAULT,
    NO_AUTH,
    NO_PONG,
    OVERLOAD,
    RETRY,
    TOKEN_EXPIRED,
    VERSION,
    Auth,
    AuthExpiring,
    BadCommand,
    Bye,
    Command,
    Error,
    Get,
    GetOutcome,
    Hello,
    HelloLimits,
    Hz,
    Id,
    Ping,
    Pong,
    Reply,
    Set,
    Status,
    Sub,
    SubOutcome,
    Unsub,
    decode,
    encode,
    error,
    split,
    tier,
)
from wds.session.subscriptions import GetPlan, Selection, Subscriptions, expand_for_get, is_pattern, kinds_to_list

SECOND_NS = 1_000_000_000
QUEUE_MAX = 256
EXPIRY_NOTICE_S = 60
PROBE_S = 2.0
VIOLATIONS_FORGIVEN_S = 0.5  # a violation every two seconds is forgiven
REPLY_BYTES_MAX = 524_288
CHANNELS_PER_TOKEN = 50  # a command over many channels costs as much as several


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """The bounds of one session; seconds, bytes, counts."""

    frame_bytes_max: int = 16_384
    subs_max: int = 200
    commands_s: float = 20.0
    commands_burst: int = 100
    violations_max: int = 50
    auth_s: float = 5.0
    ping_s: float = 20.0


class Send(NamedTuple):
    """Write one frame."""

    payload: bytes


class Close(NamedTuple):
    """End the connection with this code."""

    code: int


class Verify(NamedTuple):
    """Check a token, then call `on_verified` or `on_refused`."""

    token: str


class ListKinds(NamedTuple):
    """List the known channels of these kinds, then call `on_listed`."""

    kinds: list[str]


class Join(NamedTuple):
    """Subscribe in the hub; `on_joined` gets the outcomes."""

    wants: list[Want]


class Leave(NamedTuple):
    """Unsubscribe in the hub."""

    channels: list[str]


class Fetch(NamedTuple):
    """Read snapshots, then call `on_fetched`."""

    channels: list[str]
    limit: int | None


class Tune(NamedTuple):
    """Call `on_tuned`, then change the rate of everything, or pause it."""

    hz: Hz | None
    paused: bool | None
    id: Id | UnsetType = UNSET


class Follow(NamedTuple):
    """Push these feeds of the original service (`wds/compat/`) from now on."""

    feeds: list[str]


class Unfollow(NamedTuple):
    """Push these feeds no more."""

    feeds: list[str]


class Probe(NamedTuple):
    """Send a ping of WebSocket's own, which every browser answers by itself."""


class Widen(NamedTuple):
    """New channels of a kind, for the patterns that match them."""

    kind: str
    names: Sequence[str]


class Again(NamedTuple):
    """Call `again` when what came before is written: the client may not take the replies to all that it sent."""


class Shape(NamedTuple):
    """Write to this client in the compact form from now on."""


Action = Shape | Again | Send | Close | Verify | ListKinds | Join | Leave | Fetch | Tune | Follow | Unfollow | Probe


class Session:
    """One client. Every method returns the actions to carry out, in order."""

    audiences: tuple[str, ...] = (AUDIENCE,)  # of the tokens that open it
    transport = "websocket"  # what operators see
    __slots__ = (
        "_base_ms", "_bucket", "_busy", "_compact", "_deaf", "_expires_ns", "_hz", "_limits", "_notice_ns", "_opened_ns",
        "_ping_ns", "_pinged", "_probe_ns", "_queue", "_violations", "claims", "closed", "conn", "held", "subscriptions",
    )  # fmt: skip

    def __init__(self, conn: str, limits: SessionLimits, now_ns: int, base_ms: int = 0, deaf: bool = False) -> None:
        self.conn = conn
        self._deaf = deaf  # the client can say nothing: it is told that we are there, and not asked whether it is
        self._base_ms = base_ms
        self._compact = False
        self.claims: Claims | None = None
        self.subscriptions = Subscriptions(limits.subs_max)
        self.closed = False
        self.held = False  # the client does not read: no command is begun until it does
        self._limits = limits
        self._bucket = TokenBucket(limits.commands_s, limits.commands_burst, now_ns)
        self._violations = TokenBucket(VIOLATIONS_FORGIVEN_S, limits.violations_max, now_ns)
        self._queue: list[Command | Widen] = []  # an empty deque costs 600 bytes a connection
        self._busy: Callable[..., list[Action]] | None = None  # what takes the answer that is waited for
        self._hz: Hz = HZ_DEFAULT
        self._opened_ns = now_ns
        self._ping_ns = now_ns + int(limits.ping_s * SECOND_NS)
        self._pinged = False
        self._probe_ns = 0
        self._expires_ns = 0
        self._notice_ns = 0

    # Frames

    def open(self, header_token: str | None = None) -> list[Action]:
        """Greet; a token from the handshake is checked as if it had come first."""
        most = self._limits
        limits = HelloLimits(
            most.subs_max,
            most.frame_bytes_max,
            most.commands_s,
            most.commands_burst,
            CHANNELS_PER_COMMAND_MAX,
            CHANNELS_PER_TOKEN,
        )
        actions: list[Action] = [Send(encode(Hello(VERSION, self.conn, self._limits.ping_s, limits)))]
        if header_token is not None:
            self._queue.append(Auth(header_token))
            actions += self._pump()
        return actions

    def receive(self, data: bytes, now_ns: int, binary: bool = False) -> list[Action]:
        """Take one frame of the client."""
        if self.closed:
            return []
        self._pinged = False
        if len(data) > self._limits.frame_bytes_max:
            return self._fault(UNSET, error("too_large", f"at most {self._limits.frame_bytes_max} bytes a frame"), now_ns)
        if binary:
            return self._fault(UNSET, error("bad_request", "send text frames"), now_ns)
        try:
            items = split(data)
        except BadCommand as bad:
            return self._fault(bad.id, error("bad_request", str(bad)), now_ns)
        actions: list[Action] = []
        for item in items:
            if not self.closed:
                actions += self._receive_one(item, now_ns)
        return actions

    def _receive_one(self, item: Any, now_ns: int) -> list[Action]:
        try:
            command = decode(item)
        except BadCommand as bad:
            return self._fault(bad.id, error("bad_request", str(bad)), now_ns)
        return self._take(command, now_ns)

    def _take(self, command: Command, now_ns: int) -> list[Action]:
        wait_ms = self._bucket.take(now_ns, _cost(command))
        if wait_ms or len(self._queue) >= QUEUE_MAX:
            return self._fault(command.id, error("rate_limited", "too many commands", max(wait_ms, 100)), now_ns)
        if isinstance(command, Pong):
            return []
        self._queue.append(command)
        return self._pump()

    def on_control_frame(self, now_ns: int) -> list[Action]:
        """Take a WebSocket ping: it costs like a command."""
        self._pinged = False
        return self._violate(now_ns) if self._bucket.take(now_ns) else []

    def _fault(self, id: Id | UnsetType, fault: Error, now_ns: int) -> list[Action]:
        return [Send(encode(Reply(id, False, error=fault))), *self._violate(now_ns)]

    def _violate(self, now_ns: int) -> list[Action]:
        return self._close(ABUSE) if self._violations.take(now_ns) else []

    def _close(self, code: int, after_ms: int | UnsetType | None = None, reason: str | UnsetType = UNSET) -> list[Action]:
        """End; `after_ms` None = spread over the code's range, UNSET = the client shall not come back."""
        self.closed = True
        self._queue.clear()
        return [Send(encode(Bye(code, self.spread_ms(code) if after_ms is None else after_ms, reason))), Close(code)]

    def bye(self, code: int, after_ms: int | UnsetType | None = None) -> list[Action]:
        """End the session for a reason of the server's; UNSET = the client shall not come back."""
        return [] if self.closed else self._close(code, after_ms)

    # Commands, one at a time

    def _pump(self) -> list[Action]:
        actions: list[Action] = []
        size = 0
        while self._queue and self._busy is None and not self.closed and not self.held:
            if size >= PIECE_BYTES:
                return [*actions, Again()]
            started = self._start(self._queue.pop(0))
            size += sum(len(action.payload) for action in started if isinstance(action, Send))
            actions += started
        return actions

    def again(self) -> list[Action]:
        """Begin more of what waits, unless the client has stopped reading."""
        return self._pump()

    def go_on(self, now_ns: int) -> list[Action]:
        """The client reads again: begin what had to wait. Its pong may still be among what it sent meanwhile."""
        self.held = self._pinged = False
        self._ping_ns = max(self._ping_ns, now_ns + SECOND_NS)
        return self._pump()

    def _start(self, command: Command | Widen) -> list[Action]:
        if isinstance(command, Auth):
            self._busy = lambda outcome, left_s, now_ns: self._authenticated(command, outcome, left_s, now_ns)
            return [Verify(command.token)]
        if self.claims is None:
            return [] if isinstance(command, Widen) else self._refuse(command.id, error("unauthorized", "auth first"))
        if isinstance(command, Sub):
            return self._start_sub(command)
        if isinstance(command, Get):
            return self._listed_first(command.ch, lambda known: self._get(command, known))
        if isinstance(command, Unsub):
            return self._unsub(command)
        if isinstance(command, Set):
            return self._set(command)
        return self._widen(command) if isinstance(command, Widen) else []

    def _answer(self, *given: Any) -> list[Action]:
        # The outside answers exactly once what was asked; answers to a closed session are nobody's.
        taker, self._busy = self._busy, None
        if taker is None or self.closed:
            return []
        return [*taker(*given), *self._pump()]

    def _refuse(self, id: Id | UnsetType, fault: Error) -> list[Action]:
        return [Send(encode(Reply(id, False, error=fault)))]

    # auth

    def on_verified(self, claims: Claims, left_s: float, now_ns: int) -> list[Action]:
        """The token is good for `left_s` more seconds."""
        return self._answer(claims, left_s, now_ns)

    def on_refused(self, refused: TokenRefused, now_ns: int) -> list[Action]:
        """The token is not good."""
        return self._answer(refused, 0.0, now_ns)

    def _authenticated(self, command: Auth, outcome: Claims | TokenRefused, left_s: float, now_ns: int) -> list[Action]:
        if isinstance(outcome, Claims) and self.claims is not None and outcome.sub != self.claims.sub:
            outcome = TokenRefused("unauthorized", "a refresh must be for the same subject")
        if isinstance(outcome, TokenRefused):
            return self._refused(command, outcome)
        self.claims = outcome
        self._expires_ns = now_ns + int(left_s * SECOND_NS)
        self._notice_ns = self._expires_ns - EXPIRY_NOTICE_S * SECOND_NS
        shape = self._shape(command)
        reply = [] if isinstance(command.id, UnsetType) else [Send(encode(self._signed_in(command, int(left_s))))]
        return [*shape, *reply, *self._leave_forbidden(outcome)]

    def _shape(self, command: Auth) -> list[Action]:
        # Chains that have begun go on as they began: a client that asks late, or for a form nobody knows, hears what is in force.
        if command.form != "compact" or self._compact or self.subscriptions.channels or self.subscriptions.patterns:
            return []
        self._compact = True
        return [Shape()]

    def _signed_in(self, command: Auth, expires_s: int) -> Reply:
        reply = Reply(command.id, True, expires_s=expires_s)
        if command.form is not UNSET:
            reply.form = "compact" if self._compact else "json"
            if self._compact:
                reply.base_ms, reply.kinds = self._base_ms, told_kinds()
        return reply

    def _refused(self, command: Auth, outcome: TokenRefused) -> list[Action]:
        code = OVERLOAD if outcome.code == "unavailable" else BAD_TOKEN
        after_ms = self.spread_ms(code) if outcome.code in RETRY else UNSET
        refusal = self._refuse(command.id, error(outcome.code, str(outcome), after_ms))
        if self.claims is not None:
            return refusal  # the token in force stays in force
        return refusal + self._close(code, after_ms, outcome.code)

    def _leave_forbidden(self, claims: Claims) -> list[Action]:
        gone = self.subscriptions.forbid(claims)
        notice = [Status(name, "closed", "forbidden by the new token") for name in gone]
        return [Leave(gone), Send(encode(notice))] if gone else []

    # sub, unsub, get, set

    def _listed_first(self, names: Sequence[str], then: Callable[[Names | None], list[Action]]) -> list[Action]:
        kinds = kinds_to_list(names)
        if not kinds:
            return then({})
        self._busy = then
        return [ListKinds(kinds)]

    def on_listed(self, known: Names | None) -> list[Action]:
        """The known channels of the kinds asked for; None when the cache cannot tell."""
        return self._answer(known)

    def _start_sub(self, command: Sub) -> list[Action]:
        hz = self._hz if isinstance(command.hz, UnsetType) else tier(command.hz)
        if hz is None:
            return self._refuse(command.id, error("bad_request", "hz is one of raw, 10, 4, 1, 0.2"))
        return self._listed_first(command.ch, lambda known: self._sub(command, hz, known))

    def _sub(self, command: Sub, hz: Hz, known: Names | None) -> list[Action]:
        assert self.claims is not None
        picked = self.subscriptions.select(command, hz, self.claims, known)
        if not picked.wants:
            return self._joined(command.id, picked, [])
        self._busy = lambda outcomes: self._joined(command.id, picked, outcomes)
        return _carry_out(picked)

    def on_joined(self, outcomes: list[SubOutcome]) -> tuple[list[Action], Callable[[], list[Action]]]:
        """The hub's outcomes; the reply comes before the first frames, the second part (the next commands) after them."""
        taker, self._busy = self._busy, None
        if taker is None or self.closed:
            return [], list
        return taker(outcomes), self._pump

    def _joined(self, id: Id | UnsetType, picked: Selection, outcomes: list[SubOutcome]) -> list[Action]:
        told = {outcome.ch: outcome for outcome in outcomes}
        for outcome in outcomes:
            if outcome.error is not UNSET:
                self.subscriptions.forget(outcome.ch)
        subs = [told[name] if known is None else known for name, known in picked.outcomes.items()]
        reply = encode(Reply(id, True, subs))
        if len(reply) > REPLY_BYTES_MAX:  # thousands of long names that a pattern joined: `matched` counts them
            subs = [one for one in subs if one.error is not UNSET or one.matched is not UNSET]
            reply = encode(Reply(id, True, subs))
        return [Send(reply)]

    def _unsub(self, command: Unsub) -> list[Action]:
        subs = []
        everything = Selection()
        for name in dict.fromkeys(command.ch):
            released = self.subscriptions.release(name, everything)
            if released is None:
                subs.append(SubOutcome(name, error=error("unknown_channel", "not subscribed")))
            else:
                subs.append(SubOutcome(name, matched=released if is_pattern(name) else UNSET))
        reply: list[Action] = [Send(encode(Reply(command.id, True, subs)))]
        if not everything.wants:
            return [*_carry_out(everything), *reply]
        self._busy = lambda outcomes: self._widened(outcomes) + reply
        return _carry_out(everything)

    def _get(self, command: Get, known: Names | None) -> list[Action]:
        assert self.claims is not None
        plan = expand_for_get(command.ch, self.claims, known, self._limits.subs_max)
        channels = plan.wanted[: self._limits.subs_max]
        limit = None if isinstance(command.limit, UnsetType) else command.limit
        if not channels:
            return self._got(command.id, plan, {})
        self._busy = lambda outcomes: self._got(command.id, plan, outcomes)
        return [Fetch(channels, limit)]

    def on_fetched(self, outcomes: dict[str, GetOutcome]) -> list[Action]:
        """The snapshots asked for, by channel."""
        return self._answer(outcomes)

    def _got(self, id: Id | UnsetType, plan: GetPlan, outcomes: dict[str, GetOutcome]) -> list[Action]:
        return [Send(encode(Reply(id, True, snaps=plan.outcomes(outcomes))))]

    def _set(self, command: Set) -> list[Action]:
        hz = None
        if not isinstance(command.hz, UnsetType):
            hz = tier(command.hz)
            if hz is None:
                return self._refuse(command.id, error("bad_request", "hz is one of raw, 10, 4, 1, 0.2"))
            self._hz = hz
            self.subscriptions.retune(hz)
        paused = None if isinstance(command.paused, UnsetType) else command.paused
        return [Tune(hz, paused, command.id)]

    def on_tuned(self, id: Id | UnsetType, verdict: Verdict) -> list[Action]:
        """Say in the reply to `set` whether the pipeline is live: one who comes back from a pause need not wait to hear."""
        return [Send(encode(Reply(id, True, state=verdict.state, reason=verdict.reason or UNSET)))]

    # New channels under a pattern

    def on_known(self, kind: str, names: Sequence[str]) -> list[Action]:
        """The channels of `kind` changed; a pattern joins the new ones. Their snaps come unannounced."""
        pattern = self.subscriptions.patterns.get(f"{kind}:*")
        if self.closed or pattern is None or pattern.seen is names or len(self._queue) >= QUEUE_MAX:
            return []
        self._queue.append(Widen(kind, names))
        return self._pump()

    def _widen(self, command: Widen) -> list[Action]:
        assert self.claims is not None
        picked = self.subscriptions.widen(command.kind, command.names, self.claims)
        if picked.wants:
            self._busy = self._widened
        return _carry_out(picked)

    def _widened(self, outcomes: list[SubOutcome]) -> list[Action]:
        for outcome in outcomes:
            if outcome.error is not UNSET:
                self.subscriptions.forget(outcome.ch)
        return []

    # Time

    def on_time(self, now_ns: int, wall_ms: int) -> list[Action]:
        """Once a second: deadlines of auth, token and pong."""
        if self.closed:
            return []
        if self.claims is None:
            late = now_ns - self._opened_ns >= self._limits.auth_s * SECOND_NS
            return self._close(NO_AUTH) if late else []
        if now_ns >= self._expires_ns:
            return self._close(TOKEN_EXPIRED)
        actions: list[Action] = []
        if self._probe_ns and now_ns >= self._probe_ns:
            self._probe_ns = 0
            if self._pinged:
                return self._close(NO_PONG)
        if self._notice_ns and now_ns >= self._notice_ns:
            self._notice_ns = 0
            actions.append(Send(encode(AuthExpiring(max(1, (self._expires_ns - now_ns) // SECOND_NS)))))
        return actions + self._ping(now_ns, wall_ms)

    def _ping(self, now_ns: int, wall_ms: int) -> list[Action]:
        if now_ns < self._ping_ns or self.held:
            return []
        if self._pinged:
            return self._close(NO_PONG)
        self._pinged = not self._deaf
        self._ping_ns = now_ns + int(self._limits.ping_s * SECOND_NS)
        return [self._question(wall_ms)]

    def _question(self, wall_ms: int) -> Action:
        """Ask whether anybody is there."""
        return Send(encode(Ping(wall_ms)))

    def probe(self, now_ns: int) -> list[Action]:
        """Somebody waits for this connection's place: is anybody there? Who is has PROBE_S to say so."""
        if self.closed or self._probe_ns or self._deaf:
            return []
        self._pinged = True
        self._probe_ns = now_ns + int(PROBE_S * SECOND_NS)
        return [self._question(0)]

    def spread_ms(self, code: int) -> int | UnsetType:
        """Return when to come back after this code: the connection's own random name spreads those who end together."""
        spread = CLOSE_CODES[code].spread_ms
        if spread is None:
            return UNSET
        return spread[0] + crc32(self.conn.encode()) % (spread[1] - spread[0])


def _carry_out(picked: Selection) -> list[Action]:
    leave: list[Action] = [Leave(picked.leave)] if picked.leave else []
    return [*leave, Join(picked.wants)] if picked.wants else leave


def _cost(command: Command) -> float:
    channels = len(command.ch) if isinstance(command, Sub | Unsub | Get) else 0
    return 1.0 + channels / CHANNELS_PER_TOKEN

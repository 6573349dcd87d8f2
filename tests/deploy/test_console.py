"""Checks which lines about its children a run shows to people, and which it leaves in the logs."""

from __future__ import annotations

import json

from deploy.console import LINE_BYTES_MAX, Lines, Readiness, Story, progress, restart_pause_s

WAITING = json.dumps(
    {"event": "waiting_for_dependency", "level": "warning", "component": "mdp", "dependency": "RabbitMQ",
     "error": "connection refused", "fix": "Start RabbitMQ, or set MDQ_URL", "attempt": 3}
)  # fmt: skip


def test_chunks_become_lines() -> None:
    """A line may arrive in pieces, pieces may hold several lines, bytes may be no text."""
    lines = Lines()
    assert lines.feed(b"on") == []
    assert lines.feed(b"e\ntwo\nth") == ["one", "two"]
    assert lines.feed(b"ree\xff\n") == ["three�"]


def test_a_line_without_end_is_cut() -> None:
    """A child that prints no newline does not fill our memory."""
    lines = Lines()
    assert [len(line) for line in lines.feed(b"x" * (LINE_BYTES_MAX + 1))] == [LINE_BYTES_MAX + 1]
    assert lines.feed(b"\nnext\n") == ["", "next"]


def test_waiting_is_told_in_words() -> None:
    """Who waits, for what, why, and what helps."""
    told = Story("pipeline").read(WAITING, 0.0)
    assert told == "mdp: waiting for RabbitMQ: connection refused. Start RabbitMQ, or set MDQ_URL"


def test_the_same_news_is_told_every_five_seconds() -> None:
    """A child that retries ten times a second does not flood the terminal."""
    story = Story("mdp")
    told = [story.read(WAITING, second / 10) for second in range(101)]
    assert sum(line is not None for line in told) == 3


def test_warnings_and_errors_are_told_and_chatter_is_not() -> None:
    """What is wrong reaches people with its facts; information stays in the log file."""
    story = Story("mdl")
    assert story.read('{"event":"frame_split","level":"info"}', 0) is None
    assert story.read('{"event":"tape_bad_line","level":"warning","line":7}', 0) == "mdl: tape bad line line=7"
    assert story.read('{"event":"tape_bad_line","level":"warning","line":8}', 1) is None
    told = story.read('{"event":"key_refused","level":"error","status":"auth_failed","timestamp":"2026"}', 0)
    assert told == "mdl: key refused status=auth_failed"


def test_a_refusal_is_remembered() -> None:
    """The one line of an OperatorError is what the run ends with."""
    story = Story("mdl")
    story.read("tapeline mdl: error: the tape is torn. Mend it.", 0)
    assert story.refusal == "tapeline mdl: error: the tape is torn. Mend it."


def test_the_last_lines_of_a_traceback_are_kept() -> None:
    """Twenty lines are enough to see what died, whatever was printed before."""
    story = Story("mdl")
    for number in range(50):
        assert story.read(f"line {number}", 0) is None
    assert story.read("{no json", 0) is None
    assert story.read("[1]", 0) is None
    assert story.last[-3:] == ["line 49", "{no json", "[1]"]
    assert len(story.last) == 20


def test_starting_is_no_news() -> None:
    """A component that was never ready is not reported as lost."""
    readiness = Readiness()
    assert [readiness.hear("wds", ["cache unavailable"]) for _ in range(5)] == [None] * 5


def test_losing_readiness_is_told_once_and_its_return_too() -> None:
    """One miss is a hiccup, two are news; the same reason is not repeated, a new one is."""
    readiness = Readiness()
    readiness.hear("wds", [])
    assert readiness.hear("wds", ["cache unavailable"]) is None
    assert readiness.hear("wds", ["cache unavailable"]) == "wds: not ready: cache unavailable"
    assert readiness.hear("wds", ["cache unavailable"]) is None
    assert readiness.hear("wds", ["does not answer"]) == "wds: not ready: does not answer"
    assert readiness.hear("wds", []) == "wds: ready again"
    assert readiness.hear("wds", []) is None


def test_a_hiccup_is_never_told() -> None:
    """One unready answer between ready ones stays silent, both ways."""
    readiness = Readiness()
    assert [readiness.hear("wds", reasons) for reasons in ([], ["x"], [], ["x"], [])] == [None] * 5


def test_restarts_slow_down_to_a_bound() -> None:
    """0.2 s after the first death, never more than 10 s."""
    assert [restart_pause_s(deaths) for deaths in (1, 2, 3, 4, 7, 1000)] == [0.2, 0.4, 0.8, 1.6, 10.0, 10.0]


def test_progress_reads_like_a_sentence() -> None:
    """Events so far, how much of the tape when known, and the rate."""
    assert progress(28412, 1999.6, 41.7) == "replay: 28,412 events (42 %), 2,000 events/s"
    assert progress(12, 0, None) == "replay: 12 events, 0 events/s"

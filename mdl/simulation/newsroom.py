"""Writes the news of a simulated market: article number n of a seed is always the same, and comes at its own time.

Nothing is remembered: a listener that starts again, and a vendor's server beside it, have the same articles under the same ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from mdl.simulation.universe import Universe

SECOND_MS, MINUTE_MS = 1_000, 60_000
ACTIVE = 200  # the most active stocks make most of the news
ONE = (
    "{a} raises its outlook after a strong quarter",
    "{a} shares slip as margins disappoint",
    "{a} names a new chief financial officer",
    "{a} wins a contract worth ${m} million",
    "{a} to buy back up to ${m} million of its shares",
    "{a} is upgraded to buy at a large broker",
    "{a} is cut to hold on valuation",
    "{a} recalls a product; costs are put at ${m} million",
    "{a} delays its annual report",
    "{a} reports quarterly revenue of ${m} million, above estimates",
)
TWO = (
    "{a} and {b} announce a partnership",
    "{a} is said to weigh a bid for {b}",
    "{a} sues {b} over patents",
    "{a} overtakes {b} by market value",
)
NONE = (
    "Stocks drift as traders wait for the central bank",
    "Treasury yields rise to a high of {m} days",
    "Oil settles little changed after an inventory report",
    "Futures point to a mixed open",
)
NAMELESS = (  # the symbol stands in the text alone, as on many wires
    "A drug maker's trial meets its goal (NASDAQ: {a})",
    "Unusual options activity: ${a} calls in demand",
)
SUMMARIES = (
    "The news came {w}; the company did not give details.",
    "Analysts had expected less, according to a survey taken {w}.",
    "Trading volume was {m} % above its average.",
)
WHEN = ("before the opening bell", "in a filing", "at an investor day", "late in the session")
PUBLISHERS = ("Tapeline Newswire", "Market Ledger", "The Daily Print", "Order Flow Journal")


@dataclass(frozen=True, slots=True)
class NewsRoom:
    """`per_minute` articles of the universe, evenly spread but for some seconds."""

    listed: Universe
    seed: int
    per_minute: float

    def between(self, since_ms: int, until_ms: int) -> list[dict[str, object]]:
        """Return the articles published in [since, until), oldest first, as the vendor's REST service writes them."""
        if self.per_minute <= 0:
            return []
        # An article comes up to a spacing late, and its time is cut to the second.
        first, last = (int(ms * self.per_minute / MINUTE_MS) for ms in (since_ms, until_ms + SECOND_MS))
        timed = [(self.published_ms(n), n) for n in range(max(0, first - 1), last + 1)]
        return [self.article(n) for ms, n in sorted(timed) if since_ms <= ms < until_ms]

    def published_ms(self, number: int) -> int:
        """Return when an article is published: on a whole second, as the vendor's times are."""
        spacing_ms = MINUTE_MS / self.per_minute
        late = Random(f"when {self.seed} {number}").random()
        return int((number + late) * spacing_ms) // SECOND_MS * SECOND_MS

    def article(self, number: int) -> dict[str, object]:
        """Return one article."""
        dice = Random(f"news {self.seed} {number}")
        symbols = self.listed.symbols
        a = symbols[dice.randrange(min(ACTIVE, len(symbols))) if dice.random() < 0.8 else dice.randrange(len(symbols))]
        b = dice.choice(symbols)
        kind = dice.random()
        templates, tickers = (
            (ONE, [a]) if kind < 0.7 else (TWO, [a, b]) if kind < 0.85 else (NONE if kind < 0.93 else NAMELESS, [])
        )
        words = {"a": a, "b": b, "m": dice.randrange(12, 900), "w": dice.choice(WHEN)}
        name = f"{self.seed & 0xFFFFFFFF:08x}{number:016x}"
        return {
            "id": name,
            "publisher": {"name": dice.choice(PUBLISHERS)},
            "title": dice.choice(templates).format(**words),
            "description": dice.choice(SUMMARIES).format(**words),
            "published_utc": f"{datetime.fromtimestamp(self.published_ms(number) / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}",
            "article_url": f"https://news.example.com/{name}",
            "tickers": list(dict.fromkeys(tickers)),
        }

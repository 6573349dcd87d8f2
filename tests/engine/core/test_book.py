"""The book: its edges one by one, then long random lives against the plain book."""

from __future__ import annotations

import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.core.book import ACCEPTED, CANCEL_REJECTED, CANCELED, MODIFIED, MODIFY_REJECTED, TRADE, Book, Report
from engine.core.commands import BUY, SELL
from tests.engine.core.plain_book import PlainBook

AnyBook = Book | PlainBook


@pytest.fixture(params=[Book, PlainBook], ids=["fast", "plain"])
def book(request: pytest.FixtureRequest) -> AnyBook:
    """Both books pass the same battery."""
    made: AnyBook = request.param()
    return made


def queue(book: AnyBook, side: int) -> list[tuple[int, int, int]]:
    """Return a side's (price, order id, open quantity) in the order in which they would trade."""
    if isinstance(book, PlainBook):
        return book.queue(side)
    return [(level.price, order_id, size) for level in book.levels(side) for order_id, size in level.items()]


def trades(book: AnyBook) -> list[tuple[int, int, int, int]]:
    """Return (price, quantity, maker, taker) of every trade so far."""
    return [(r[2], r[3], r[4], r[5]) for r in book.reports if r[0] == TRADE]


def last(book: AnyBook, sequence: int) -> list[Report]:
    """Return the reports of one message."""
    return [report for report in book.reports if report[1] == sequence]


def test_a_cancel_in_the_middle_of_a_queue_spares_its_neighbours(book: AnyBook) -> None:
    """What was behind the cancelled order still trades, in its turn."""
    for order_id in (1, 2, 3, 4):
        book.place(order_id, BUY, order_id, 100, 10)
    book.cancel(5, 2)
    book.place(6, SELL, 9, 100, 40, 1)
    assert trades(book) == [(100, 10, 1, 9), (100, 10, 3, 9), (100, 10, 4, 9)]
    assert last(book, 6)[-1] == (CANCELED, 6, SELL, 9, 100)
    assert queue(book, BUY) == []


def test_a_crossing_modify_trades_at_the_makers_price(book: AnyBook) -> None:
    """The modified order is the taker: it pays what rested."""
    book.place(1, SELL, 1, 100, 10)
    book.place(2, BUY, 2, 99, 10)
    book.modify(3, 2, 105, 15)
    assert last(book, 3) == [(MODIFIED, 3, BUY, 2, 105, 15), (TRADE, 3, 100, 10, 1, 2)]
    assert queue(book, BUY) == [(105, 2, 5)]


def test_an_id_is_free_again_after_its_fill_and_after_its_cancel(book: AnyBook) -> None:
    """The new order has nothing of the old one: neither its side nor its place."""
    book.place(1, BUY, 1, 100, 10)
    book.place(2, SELL, 2, 100, 10)
    book.place(3, SELL, 1, 101, 7)
    book.cancel(4, 1)
    book.place(5, BUY, 1, 90, 3)
    assert queue(book, BUY) == [(90, 1, 3)]
    assert queue(book, SELL) == []
    book.cancel(6, 2)
    assert last(book, 6) == [(CANCEL_REJECTED, 6, 2)]


@pytest.mark.parametrize("price", [99, 100])
def test_the_rest_of_an_ioc_never_rests(book: AnyBook, price: int) -> None:
    """Whether it traded in part or not at all."""
    book.place(1, SELL, 1, 100, 4)
    book.place(2, BUY, 2, price, 10, 1)
    assert queue(book, BUY) == []
    assert last(book, 2)[-1] == (CANCELED, 2, BUY, 2, price)
    book.place(3, SELL, 3, 1, 1)
    assert len(trades(book)) == (1 if price == 100 else 0)


def test_an_ioc_filled_to_the_lot_is_not_cancelled(book: AnyBook) -> None:
    """There is no rest to report."""
    book.place(1, SELL, 1, 100, 4)
    book.place(2, BUY, 2, 100, 4, 1)
    assert last(book, 2) == [(ACCEPTED, 2, BUY, 2, 100, 4), (TRADE, 2, 100, 4, 1, 2)]


@pytest.mark.parametrize("side", [BUY, SELL])
def test_a_level_emptied_by_cancel_leaves_no_phantom_best(book: AnyBook, side: int) -> None:
    """The next best price is the one that holds orders."""
    better, worse = (101, 100) if side == BUY else (100, 101)
    book.place(1, side, 1, worse, 5)
    book.place(2, side, 2, better, 5)
    book.cancel(3, 2)
    assert [price for price, _, _ in queue(book, side)] == [worse]
    book.place(4, 1 - side, 4, better, 5)
    assert trades(book) == []


def test_a_marketable_limit_stops_at_its_own_price(book: AnyBook) -> None:
    """It takes what is at its price or better and rests with what is left."""
    for order_id, price in ((1, 102), (2, 101), (3, 100)):
        book.place(order_id, SELL, order_id, price, 10)
    book.place(4, BUY, 4, 101, 50)
    assert trades(book) == [(100, 10, 3, 4), (101, 10, 2, 4)]
    assert queue(book, BUY) == [(101, 4, 30)]
    assert queue(book, SELL) == [(102, 1, 10)]


def test_first_in_first_out_across_aggressors(book: AnyBook) -> None:
    """A partial fill keeps its place; separate takers go on where the last one stopped."""
    for order_id in (1, 2, 3):
        book.place(order_id, BUY, order_id, 100, 10)
    for order_id in (4, 5, 6):
        book.place(order_id, SELL, order_id, 100, 7)
    assert trades(book) == [(100, 7, 1, 4), (100, 3, 1, 5), (100, 4, 2, 5), (100, 6, 2, 6), (100, 1, 3, 6)]


def test_a_modify_goes_to_the_end_of_its_queue(book: AnyBook) -> None:
    """Also to the same price, also to less: in this format a modify is a cancel and a new order."""
    for order_id in (1, 2):
        book.place(order_id, BUY, order_id, 100, 10)
    book.modify(3, 1, 100, 5)
    assert queue(book, BUY) == [(100, 2, 10), (100, 1, 5)]
    book.modify(4, 9, 100, 5)
    assert last(book, 4) == [(MODIFY_REJECTED, 4, 9)]


def test_five_thousand_fills_in_one_sweep(book: AnyBook) -> None:
    """One taker, fifty levels of a hundred orders, in price–time order."""
    count = 5_000 if isinstance(book, Book) else 500
    for order_id in range(count):
        book.place(order_id, SELL, order_id, 100 + order_id % 50, 2)
    book.place(count, BUY, count, 1_000, 2 * count + 1)
    assert [maker for _, _, maker, _ in trades(book)] == sorted(range(count), key=lambda order_id: order_id % 50)
    assert queue(book, SELL) == []
    assert queue(book, BUY) == [(1_000, count, 1)]


def test_a_long_queue_eaten_one_by_one_stays_quick() -> None:
    """A dict finds its first key slowly after many deletions at its front; `compact` bounds that.

    30,000 single fills of one queue take 0.1 s; walking over all that has gone took 0.5 s and grew with the square.
    """
    book, count = Book(), 30_000
    for order_id in range(count):
        book.place(order_id, SELL, order_id, 100, 1)
    (level,) = book.levels(SELL)
    gone_most = 0
    began_s = time.perf_counter()
    for order_id in range(count - 1):
        book.place(count, BUY, count + order_id, 100, 1)
        gone_most = max(gone_most, level.gone)
    assert time.perf_counter() - began_s < 5
    assert gone_most * gone_most <= 64 * count
    assert [maker for _, _, maker, _ in trades(book)] == list(range(count - 1))


def test_a_second_order_under_a_resting_id_breaks_the_contract() -> None:
    """Ids of resting orders are unique; who calls the book sees to it."""
    book = Book()
    book.place(1, BUY, 1, 100, 1)
    with pytest.raises(AssertionError, match="order 1 rests already"):
        book.place(2, BUY, 1, 100, 1)


class TwoBooks(RuleBasedStateMachine):
    """The fast and the plain book live the same life."""

    def __init__(self) -> None:
        super().__init__()
        self.fast, self.plain, self.sequence = Book(), PlainBook(), 0

    ids = st.integers(1, 12)
    prices = st.integers(-3, 4)
    sizes = st.integers(1, 9)

    @rule(side=st.sampled_from((BUY, SELL)), order_id=ids, price=prices, size=sizes, ioc=st.booleans())
    def place(self, side: int, order_id: int, price: int, size: int, ioc: bool) -> None:
        if order_id not in self.fast.orders:
            self.sequence += 1
            for book in (self.fast, self.plain):
                book.place(self.sequence, side, order_id, price, size, ioc)

    @rule(order_id=ids)
    def cancel(self, order_id: int) -> None:
        self.sequence += 1
        for book in (self.fast, self.plain):
            book.cancel(self.sequence, order_id)

    @rule(order_id=ids, price=prices, size=sizes)
    def modify(self, order_id: int, price: int, size: int) -> None:
        self.sequence += 1
        for book in (self.fast, self.plain):
            book.modify(self.sequence, order_id, price, size)

    @rule()
    def compact(self) -> None:
        """Closing gaps is invisible from outside."""
        for side in (BUY, SELL):
            for level in self.fast.levels(side):
                level.gone = 10_000
                level.compact()
                assert level.gone == 0

    @invariant()
    def both_say_and_hold_the_same(self) -> None:
        assert self.fast.reports == self.plain.reports
        for side in (BUY, SELL):
            assert queue(self.fast, side) == queue(self.plain, side)
        held = [order_id for side in (BUY, SELL) for _, order_id, _ in queue(self.fast, side)]
        assert sorted(held) == sorted(self.fast.orders)

    @invariant()
    def the_book_is_not_crossed(self) -> None:
        bid, ask = self.fast.best(BUY), self.fast.best(SELL)
        assert bid is None or ask is None or bid < ask


TestTwoBooks = TwoBooks.TestCase
TestTwoBooks.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)

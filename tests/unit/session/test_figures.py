"""Figures of links: the least round trip, the best of the last rates, and only of real traffic."""

from collect.native.communicator import LinkInfo
from collect.session.figures import MOVED_BYTES_MIN, RATES_KEPT, FigureBook
from collect.types import LinkFigures, Member, View

VIEW = View(1, tuple(Member(i, f"p{i}", "", ()) for i in (1, 2, 3)), 9)


def link(peer: int, sent_bytes: int, rtt_ns: int = 50, rate: int = 700) -> LinkInfo:
    return LinkInfo(peer, True, 1, sent_bytes, 0, 0.0, rtt_ns, rate, 0, 0)


def test_a_rate_counts_only_when_enough_was_sent_for_it() -> None:
    book = FigureBook()

    book.add([link(2, MOVED_BYTES_MIN - 1)])
    assert book.known(VIEW) == (LinkFigures(2, 50, 0),)
    book.add([link(2, MOVED_BYTES_MIN)])
    assert book.known(VIEW) == (LinkFigures(2, 50, 700),)
    book.add([link(2, 2 * MOVED_BYTES_MIN - 1, rate=9000)])
    assert book.known(VIEW) == (LinkFigures(2, 50, 700),)


def test_the_least_round_trip_and_the_best_of_the_last_rates_are_kept() -> None:
    book = FigureBook()
    for index in range(1, RATES_KEPT + 2):
        book.add([link(2, index * MOVED_BYTES_MIN, rtt_ns=40 + index, rate=1000 - index)])

    assert book.known(VIEW) == (LinkFigures(2, 41, 998),)


def test_a_link_that_was_opened_anew_goes_on_being_measured() -> None:
    book = FigureBook()
    book.add([link(2, 50 * MOVED_BYTES_MIN)])
    book.add([link(2, MOVED_BYTES_MIN, rate=900)])

    assert book.known(VIEW) == (LinkFigures(2, 50, 900),)


def test_strangers_unknowns_and_links_that_are_gone_are_left_out() -> None:
    book = FigureBook()
    book.add([link(2, 9, rtt_ns=0), link(3, 9), link(7, 9)])

    assert book.known(VIEW) == (LinkFigures(3, 50, 0),)
    book.add([])
    assert book.known(VIEW) == ()


def test_what_goes_through_shared_memory_is_no_rate() -> None:
    book = FigureBook()
    book.add([link(2, 9)])
    for index in range(1, 4):
        book.add([link(2, index * MOVED_BYTES_MIN, rtt_ns=0, rate=0)])

    assert book.known(VIEW) == (LinkFigures(2, 50, 0),)

"""Events are read in order and bounded; history remembers who was in which epoch."""

import threading

from collect.session.events import (
    EVENTS_KEPT_MAX,
    EventLog,
    MembershipEvent,
    MembershipEventKind,
)
from collect.session.history import VIEWS_KEPT_MAX, History
from collect.types import Member, View


def event(number: int) -> MembershipEvent:
    return MembershipEvent(MembershipEventKind.JOINED, float(number), number, "a", "why")


def test_events_are_taken_once_and_in_order() -> None:
    log = EventLog()
    log.append(event(1))
    log.append(event(2))

    assert log.take(0.0) == [event(1), event(2)]
    assert log.take(0.0) == []


def test_a_wait_for_events_ends_with_the_first() -> None:
    log = EventLog()
    writer = threading.Timer(0.01, log.append, (event(1),))
    writer.start()

    assert log.take(20.0) == [event(1)]
    writer.join()


def test_events_that_nobody_reads_are_dropped_oldest_first() -> None:
    log = EventLog()
    for number in range(EVENTS_KEPT_MAX + 3):
        log.append(event(number))

    assert log.take(0.0)[0] == event(3)


def view(epoch: int, *incarnations: int) -> View:
    members = tuple(Member(each, f"p{each}", "host", ()) for each in incarnations)
    return View(epoch, members, 1)


def test_history_names_the_participants_of_an_attempt() -> None:
    history = History()
    history.add(view(1, 10, 11))
    history.add(view(2, 11, 12))

    assert history.of(1).names == ("p10", "p11")
    assert history.of(2).incarnations == (11, 12)
    assert history.latest == history.of(2)
    assert history.of(3).incarnations == ()
    assert history.name(255) == "ff"


def test_history_is_bounded() -> None:
    history = History()
    for epoch in range(1, VIEWS_KEPT_MAX + 3):
        history.add(view(epoch, epoch))

    assert history.of(2).incarnations == ()
    assert history.of(3).incarnations == (3,)
    assert history.name(1) == "p1"

"""Boundaries, tickets, waiting and leaving, with fakes at both planes."""

from typing import Any

import numpy as np
import pytest

from collect import config
from collect.config import Address
from collect.errors import (
    Aborted,
    Closed,
    CoordinatorUnreachable,
    Fenced,
    InvalidArgument,
    JoinFailed,
    Mismatch,
    OperationFailed,
    PeerLost,
    Timeout,
)
from collect.membership.events import LeaveAsked, PassBoundary
from collect.native import status
from collect.native.buffer import prepare
from collect.session import operations
from collect.session.operations import Session
from collect.types import FailKind, FailReason, op_base
from tests.unit.session.fakes import EPOCH, OTHER, SELF, FakeCommunicator, FakeControl


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> FakeControl:
    made = FakeControl()
    monkeypatch.setattr(operations, "ControlPlane", lambda *_: made)
    monkeypatch.setattr(operations.native, "require", lambda: None)
    monkeypatch.setattr(operations, "POLL_S", 0.001)
    return made


def new_session(**arguments: Any) -> Session:
    return Session(config.load({"name": "me", **arguments}, {}), Address("127.0.0.1", 5000))


def submit(session: Session, *, is_internal: bool = False, timeout_s: float | None = None) -> Any:
    operand = prepare(np.ones(3))
    return session.submit(operand, 0, timeout_s, is_internal=is_internal)


def communicator(control: FakeControl) -> FakeCommunicator:
    found: FakeCommunicator = control.communicator
    return found


def test_each_operation_passes_one_boundary_in_auto_mode(control: FakeControl) -> None:
    session = new_session()

    for _ in range(3):
        submit(session)

    assert control.peer.boundaries == 3
    assert control.posted == []


def test_operations_pass_none_in_manual_mode_and_wait_for_the_first_admit(
    control: FakeControl,
) -> None:
    session = new_session(admit="manual")
    with pytest.raises(InvalidArgument, match="first call of a member is admit"):
        submit(session)

    with session.admitting():
        submit(session, is_internal=True)
    submit(session)

    assert control.peer.boundaries == 1
    assert len(communicator(control).operations) == 2


def test_an_interrupted_submission_does_not_pass_its_boundary_twice(control: FakeControl) -> None:
    session = new_session()
    communicator(control).interrupt = KeyboardInterrupt()

    with pytest.raises(KeyboardInterrupt):
        submit(session)
    submit(session)
    submit(session)

    assert control.peer.boundaries == 2
    assert len(communicator(control).operations) == 2


def test_a_boundary_that_is_due_is_asked_for_when_all_is_consumed(control: FakeControl) -> None:
    session = new_session()
    first = submit(session)
    control.peer.is_boundary_due = True
    control.answer = PassBoundary(2, (OTHER,), False)
    asked_while: list[int] = []
    ask = control.ask_boundary

    def spy(boundary: int) -> None:
        asked_while.append(first.poll())
        ask(boundary)

    control.ask_boundary = spy  # type: ignore[method-assign]
    first.wait = lambda _: setattr(first, "status", status.OK) or status.OK

    submit(session)

    assert asked_while == [status.OK]
    assert control.asked == [2]
    assert session.admitted == {OTHER: None}
    assert session.is_newcomer


def test_the_same_boundary_is_asked_for_however_often_the_wait_is_given_up(
    control: FakeControl,
) -> None:
    session = new_session()
    control.peer.is_boundary_due = True

    for _ in range(2):
        with pytest.raises(Timeout, match="planned change"):
            submit(session, timeout_s=0.002)
    control.passage = PassBoundary(1, (SELF, OTHER), True)
    submit(session)

    assert set(control.asked) == {1}
    assert control.peer.boundaries == 0  # the machine's to count
    assert session.is_founding


def test_who_enters_a_group_of_others_is_no_founder(control: FakeControl) -> None:
    session = new_session(admit="manual")
    control.peer.is_boundary_due = True
    control.answer = PassBoundary(9, (SELF,), True)

    with session.admitting():
        assert session.is_newcomer
        assert not session.is_founding
        assert list(session.admitted) == [SELF]

    assert not session.is_newcomer
    assert session.admitted == {}


def test_an_admit_that_fails_leaves_the_newcomers_to_the_next(control: FakeControl) -> None:
    session = new_session(admit="manual")
    control.peer.is_boundary_due = True
    control.answer = PassBoundary(1, (SELF,), True)

    def fail() -> None:
        with session.admitting():
            submit(session, is_internal=True)
            raise Timeout("the state did not arrive")

    with pytest.raises(Timeout):
        fail()

    assert session.is_newcomer
    assert list(session.admitted) == [SELF]


def test_an_outcome_names_who_took_part(control: FakeControl) -> None:
    session = new_session()
    communicator(control).status_of_next = status.OK
    operation = submit(session)

    outcome = session.wait(operation)

    assert outcome.participants == (SELF, OTHER)
    assert outcome.info.attempt == EPOCH
    assert session.name_of(OTHER) == "b"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (FailKind.MISMATCH, Mismatch),
        (FailKind.TIMEOUT, Timeout),
        (FailKind.ABORTED, Aborted),
    ],
)
def test_a_verdict_becomes_its_exception(
    control: FakeControl, kind: FailKind, error: type[Exception]
) -> None:
    session = new_session()
    communicator(control).status_of_next = status.E_FAILED
    number = op_base(EPOCH) + 1
    control.peer.failures[number] = FailReason(kind, ("b",), "b did it")
    control.failed_in[number] = 6

    with pytest.raises(error) as caught:
        session.wait(submit(session))

    assert isinstance(caught.value, OperationFailed)
    assert (caught.value.peer, caught.value.op, caught.value.epoch) == ("b", "5.1", 6)


def test_what_this_peer_gave_up_alone_says_so(control: FakeControl) -> None:
    session = new_session()
    communicator(control).status_of_next = status.E_ABORTED
    control.local_failures[op_base(EPOCH) + 1] = PeerLost("b is gone, and the coordinator too")

    with pytest.raises(PeerLost, match="the coordinator too"):
        session.wait(submit(session))


def test_an_abort_here_is_told_as_such(control: FakeControl) -> None:
    session = new_session()
    communicator(control).status_of_next = status.PENDING
    operation = submit(session)

    session.abort()

    with pytest.raises(Aborted, match="me aborted"):
        session.wait(operation)


def test_a_fenced_peer_is_told_so_by_every_call(control: FakeControl) -> None:
    session = new_session()
    communicator(control).status_of_next = status.E_ABORTED
    operation = submit(session)
    control.final = Fenced("me is no member any more: silent for 5 s", epoch=6)

    for call in (lambda: session.wait(operation), lambda: submit(session), session.abort):
        with pytest.raises(Fenced, match="silent for 5 s"):
            call()


def test_an_operation_that_starts_behind_the_end_is_not_left_pending(control: FakeControl) -> None:
    session = new_session()
    fake = communicator(control)
    fake.status_of_next = status.PENDING
    begin = fake.start

    def start_too_late(*arguments: Any) -> None:
        control.final = Fenced("me is no member any more", epoch=6)
        fake.abort()
        begin(*arguments)

    fake.start = start_too_late  # type: ignore[method-assign]
    operation = submit(session)

    with pytest.raises(Fenced):
        session.wait(operation)


def test_a_wait_that_is_too_short_leaves_the_operation_alone(control: FakeControl) -> None:
    session = new_session()
    communicator(control).status_of_next = status.PENDING
    operation = submit(session)

    with pytest.raises(Timeout, match="it goes on"):
        session.wait(operation, 0.002)

    operation.status = status.OK
    assert session.wait(operation, 0.0).info.status == status.OK


def test_the_time_of_an_operation_runs_from_its_call(control: FakeControl) -> None:
    session = new_session()
    before_ns = operations.now_ns()

    operation = submit(session, timeout_s=2.0)

    assert 1.9e9 < operation.deadline_ns - before_ns < 3e9


def test_leaving_completes_what_is_under_way_and_ends_everything(control: FakeControl) -> None:
    session = new_session()
    communicator(control).status_of_next = status.PENDING
    operation = submit(session)
    operation.wait = lambda _: setattr(operation, "status", status.OK) or status.OK
    control.farewell = Closed("me has left the group")

    session.leave()

    assert operation.poll() == status.OK
    assert control.posted == [LeaveAsked()]
    assert control.is_stopped
    with pytest.raises(Closed):
        submit(session)


def test_leaving_without_order_or_without_a_coordinator_ends_all_the_same(
    control: FakeControl,
) -> None:
    session = new_session()
    communicator(control).status_of_next = status.PENDING
    submit(session)

    session.leave(is_orderly=False)

    assert control.is_stopped


def test_joining_ends_with_the_reason_why_it_failed(control: FakeControl) -> None:
    control.view = None
    session = new_session(join_timeout=0.05)
    with pytest.raises(JoinFailed, match=r"'default' at 127\.0\.0\.1:5000 within 0\.05 s"):
        session.open()

    control.peer = None  # type: ignore[assignment]
    with pytest.raises(CoordinatorUnreachable, match="no coordinator answers"):
        session.open()

    control.final = Fenced("no")
    with pytest.raises(Fenced):
        session.open()
    assert control.is_stopped

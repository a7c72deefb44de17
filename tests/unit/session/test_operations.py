"""Boundaries, tickets, waiting and leaving, with fakes at both planes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from collect import config
from collect.config import Address, AdmitMode, Config
from collect.errors import (
    Aborted,
    Closed,
    CoordinatorUnreachable,
    Fenced,
    InvalidArgument,
    JoinFailed,
    MembersChanged,
    Mismatch,
    OperationFailed,
    PeerLost,
    Timeout,
)
from collect.membership.events import LeaveAsked, PassBoundary
from collect.native import status
from collect.native.call import Call, LaidOut
from collect.native.codes import Collective, Signature
from collect.session import operations
from collect.session.lease import Lease
from collect.session.operations import Session
from collect.types import FailKind, FailReason, Member, View, op_base
from tests.unit.session.fakes import (
    EPOCH,
    OTHER,
    SELF,
    FakeCommunicator,
    FakeControl,
    FakeOperation,
)


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> FakeControl:
    made = FakeControl()

    def given(session_config: Config, _: Address) -> FakeControl:
        is_auto = session_config.admit is AdmitMode.AUTO
        made.lease = Lease(made, is_auto=is_auto)  # type: ignore[arg-type]
        return made

    monkeypatch.setattr(operations, "ControlPlane", given)
    monkeypatch.setattr(operations.native, "require", lambda: None)
    monkeypatch.setattr(operations, "POLL_S", 0.001)
    monkeypatch.setattr(operations, "Operation", FakeOperation)
    return made


def new_session(**arguments: Any) -> Session:
    return Session(config.load({"name": "me", **arguments}, {}), Address("127.0.0.1", 5000))


def plain_call() -> Call:
    array = np.ones(3)
    return Call(Signature(Collective.ALL_REDUCE, 11, 0, -1), array, array, 3, array)


def submit(session: Session, *, is_internal: bool = False, timeout_s: float | None = None) -> Any:
    return session.submit(plain_call(), timeout_s, is_internal=is_internal)


def communicator(control: FakeControl) -> FakeCommunicator:
    found: FakeCommunicator = control.communicator
    return found


def passed(control: FakeControl) -> int:
    """Boundaries, as the machine counts them before its next event."""
    with control.lock:
        control.lease.recall()
    assert control.lease.passed == control.peer.boundaries
    return control.lease.passed


def change_is_due(control: FakeControl) -> None:
    """The machine hears of it: the next boundary is that of a change."""
    with control.lock:
        control.lease.recall()
        control.peer.is_boundary_due = True


def test_each_operation_passes_one_boundary_in_auto_mode(control: FakeControl) -> None:
    session = new_session()

    for _ in range(3):
        submit(session)

    assert passed(control) == 3
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

    assert passed(control) == 1
    assert len(communicator(control).operations) == 2


def test_an_interrupted_submission_does_not_pass_its_boundary_twice(control: FakeControl) -> None:
    session = new_session()
    communicator(control).interrupt = KeyboardInterrupt()

    with pytest.raises(KeyboardInterrupt):
        submit(session)
    submit(session)
    submit(session)

    assert passed(control) == 2
    assert len(communicator(control).operations) == 2


def test_a_boundary_that_is_due_is_asked_for_when_all_is_consumed(control: FakeControl) -> None:
    session = new_session()
    first = submit(session)
    change_is_due(control)
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
    assert control.scopes.recalls == 1
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
    control.peer.boundaries = 1  # the machine's to count
    submit(session)

    assert set(control.asked) == {1}
    assert passed(control) == 1
    assert session.is_founding


def test_who_enters_a_group_of_others_is_no_founder(control: FakeControl) -> None:
    session = new_session(admit="manual")
    control.peer.is_boundary_due = True
    control.answer = PassBoundary(1, (SELF,), True)

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

    session.wait(operation)
    outcome = session.outcome(operation)

    assert outcome.participants.incarnations == (SELF, OTHER)
    assert outcome.participants.names == ("me", "b")
    assert outcome.info.attempt == EPOCH
    assert session.name_of(OTHER) == "b"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (FailKind.MISMATCH, Mismatch),
        (FailKind.TIMEOUT, Timeout),
        (FailKind.ABORTED, Aborted),
        (FailKind.MEMBERS, MembersChanged),
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
    end(control)
    control.final = Fenced("me is no member any more: silent for 5 s", epoch=6)

    for call in (lambda: session.wait(operation), lambda: submit(session), session.abort):
        with pytest.raises(Fenced, match="silent for 5 s"):
            call()


def end(control: FakeControl) -> None:
    """As the control thread does."""
    with control.lock:
        control.lease.recall()
        control.final = Fenced("me is no member any more", epoch=6)
    communicator(control).abort()


@pytest.mark.parametrize("is_internal", [False, True])
def test_an_operation_that_starts_behind_the_end_is_not_left_pending(
    control: FakeControl, is_internal: bool
) -> None:
    session = new_session()
    fake = communicator(control)
    fake.status_of_next = status.PENDING
    submit(session)
    begin = fake.start

    def start_too_late(*arguments: Any, **keywords: Any) -> int:
        if control.final is None:
            end(control)
        return begin(*arguments, **keywords)

    fake.start = start_too_late  # type: ignore[method-assign]
    with pytest.raises(Fenced):
        session.wait(submit(session, is_internal=is_internal))

    assert fake.outstanding() == []


def test_a_wait_that_is_too_short_leaves_the_operation_alone(control: FakeControl) -> None:
    session = new_session()
    communicator(control).status_of_next = status.PENDING
    operation = submit(session)

    with pytest.raises(Timeout, match="it goes on"):
        session.wait(operation, 0.002)

    operation.status = status.OK
    session.wait(operation, 0.0)


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

    assert control.scopes.recalls == 1
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


# ---- calls with blocks, roots, full queues -------------------------------------------------------


def laid_out(world: int, rank: int = -1) -> LaidOut:
    call = LaidOut(Signature(Collective.REDUCE_SCATTER, 11, 0, -1), np.ones(4), np.ones(2), 2)
    call.world, call.rank = world, rank
    return call


def test_blocks_that_were_meant_for_others_are_refused_before_the_core(
    control: FakeControl,
) -> None:
    session = new_session()
    session.submit(laid_out(2, 0))

    with pytest.raises(MembersChanged, match="laid out for 3 members, and now there are 2"):
        session.submit(laid_out(3))
    with pytest.raises(MembersChanged, match="other members"):
        session.submit(laid_out(2, 1))

    assert len(communicator(control).operations) == 1


def test_the_boundary_before_a_refused_call_is_that_of_the_next(control: FakeControl) -> None:
    session = new_session()
    with pytest.raises(MembersChanged):
        session.submit(laid_out(3))
    submit(session)

    assert passed(control) == 1


def test_newcomers_at_the_boundary_change_what_a_call_must_fit(control: FakeControl) -> None:
    session = new_session()
    control.peer.is_boundary_due = True
    passage = PassBoundary(1, (9,), False)
    third = Member(9, "c", "host", ("127.0.0.1:1",))

    def enter(boundary: int) -> None:
        assert boundary == 1
        assert control.view is not None
        control.view = View(EPOCH + 1, (*control.view.members, third), 1)
        control.passage = passage
        control.peer.boundaries = boundary

    control.ask_boundary = enter  # type: ignore[method-assign]

    with pytest.raises(MembersChanged, match="now there are 3"):
        session.submit(laid_out(2))
    assert session.place() == (3, 0)


def test_a_root_is_a_rank_or_a_name(control: FakeControl) -> None:
    del control
    session = new_session()

    assert session.root_of(1) == session.root_of("b") == OTHER
    for root in (2, -1, True, 1.0, None):
        with pytest.raises(InvalidArgument, match="a rank of 0 to 1"):
            session.root_of(root)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="no member; members: me, b"):
        session.root_of("c")


def test_a_root_that_has_just_left_is_still_meant_by_its_name(control: FakeControl) -> None:
    session = new_session()
    assert control.view is not None
    control.view = replace(control.view, members=control.view.members[:1])
    control.history.add(control.view)

    assert session.root_of("b") == OTHER
    with pytest.raises(InvalidArgument, match="rank of 0 to 0"):
        session.root_of(1)


def test_a_start_waits_for_room(control: FakeControl) -> None:
    session = new_session()
    fake = communicator(control)
    fake.status_of_next = status.PENDING
    first = submit(session)
    waited: list[float] = []

    def wait(timeout_s: float) -> int:
        waited.append(timeout_s)
        first.status = status.OK
        return status.OK

    first.wait = wait
    fake.refusals = [status.E_FULL, status.E_FULL]
    second = submit(session)

    assert waited
    assert fake.operations == [first, second]
    fake.refusals = [status.E_FULL] * 10**6
    with pytest.raises(OperationFailed, match="cannot start"):
        submit(session, timeout_s=0.001)

"""The registry of sub-groups: names, waiting for the members to settle, and what is freed when."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from collect.errors import Closed, InvalidArgument, OperationFailed, Timeout
from collect.membership.events import PeerEvent, ScopeClosed
from collect.membership.peer import State
from collect.membership.peer_state import BOUNDARY_MAX
from collect.native import status
from collect.net.waiting import Changes
from collect.session import scopes as module
from collect.session.messages import scope_tag
from collect.session.scopes import ScopePlane, Scopes
from collect.session.subgroups import ScopeSession, open_scope
from collect.types import (
    SCOPE_SEATS_MAX,
    SCOPES_MAX,
    FailKind,
    FailReason,
    Member,
    Outcome,
    OutcomeKind,
    ScopeReport,
    ScopeVerdict,
    Verdict,
    VerdictKind,
    View,
    make_ballot,
)

B1, B2 = make_ballot(1, 1), make_ballot(2, 1)
A, B, C = (Member(number, name, "", ()) for number, name in ((1, "a"), (2, "b"), (3, "c")))
WHY = FailReason(FailKind.ABORTED, ("b",), "b gave up")


def view(epoch: int, *members: Member) -> View:
    return View(epoch, members, 9)


class Child:
    """A sub-group's communicator."""

    def __init__(self) -> None:
        self.is_born = False
        self.is_closed = self.is_aborted = False
        self.in_flight = 0
        self.key = 0
        self.limit = 0

    def lend(self, passed: int, limit: int) -> int:
        assert self.is_born
        self.limit = limit
        return passed

    def pending(self) -> int:
        return self.in_flight

    def outstanding(self) -> list[Any]:
        return []

    def oldest(self) -> None:
        return None

    def abort(self) -> None:
        self.is_aborted = True

    def close(self) -> None:
        self.is_closed = True

    def freeze(self) -> ScopeReport:
        return ScopeReport(0, (), Outcome(4, B1, OutcomeKind.DONE))


class Parent(Child):
    """The group's."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[int] = []
        self.made: list[tuple[int, tuple[int, ...]]] = []
        self.submitted = self.delivered = 0

    def split(self, child: Child, scope: int, members: tuple[int, ...]) -> int:
        answer = self.answers.pop(0) if self.answers else status.OK
        if answer == status.OK:
            child.is_born = True
            child.key = scope
            self.made.append((scope, tuple(members)))
        return answer

    def progress(self) -> tuple[int, int]:
        return self.submitted, self.delivered


class Peer:
    state = State.ACTIVE

    def failure_of(self, op: int, scope: int) -> FailReason:
        assert (op, scope) != (0, 0)
        return WHY


class Control:
    """What the registry uses of the control plane."""

    timeout_s = 0.001

    def __init__(self) -> None:
        self.config = SimpleNamespace(name="a")
        self.lock = threading.Lock()
        self.changes = Changes()
        self.view = view(B1, A, B, C)
        self.self_id = 1
        self.final: Any = None
        self.peer = Peer()
        self.communicator = Parent()
        self.subscribed: dict[int, int] = {}
        self.posted: list[PeerEvent] = []
        self.scopes = Scopes(self)  # type: ignore[arg-type]

    def raise_if_final(self) -> None:
        if self.final is not None:
            raise self.final

    def subscribe_scope(self, key: int, scope: int) -> None:
        self.subscribed[key] = scope

    def unsubscribe_scope(self, key: int) -> None:
        del self.subscribed[key]

    def post(self, event: PeerEvent) -> None:
        self.posted.append(event)


@pytest.fixture(autouse=True)
def children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Communicator, "unborn", Child)


def made(control: Control, *members: int) -> ScopePlane:
    return control.scopes.create(members, 10**9)


def test_members_name_a_sub_group_alike_and_each_one_differently() -> None:
    here, there = Control(), Control()
    lists = [(1, 2), (2, 1), (1, 2), (1, 2, 3), (1, 2)]

    names = [[made(each, *members).scope for members in lists] for each in (here, there)]

    assert names[0] == names[1]
    assert len(set(names[0])) == len(lists)
    assert all(0 < name < 2**31 for name in names[0])
    assert here.subscribed == {name: name for name in names[0]}


def test_who_is_gone_meanwhile_is_left_out_and_the_name_stays() -> None:
    before, after = Control(), Control()
    after.view = view(B2, A, C)

    planes = made(before, 3, 2, 1), made(after, 3, 2, 1)

    assert planes[0].scope == planes[1].scope
    assert after.communicator.made[0][1] == (3, 1)
    assert [member.name for member in planes[1].view.members] == ["c", "a"]


def test_it_is_tried_again_when_the_members_have_changed() -> None:
    control = Control()
    control.communicator.answers = [status.E_BUSY, status.E_MEMBERS]

    plane = made(control, 1, 2)

    assert control.communicator.made == [(plane.scope, (1, 2))]


def test_a_change_that_does_not_end_is_told() -> None:
    control = Control()
    control.communicator.answers = [status.E_BUSY] * 1000

    with pytest.raises(Timeout, match="change of the members"):
        control.scopes.create((1, 2), 0)

    assert control.communicator.made == []
    assert control.scopes.freeze() == ()


@pytest.mark.parametrize(("answer", "told"), [(status.E_FULL, "too many"), (-1, "another one's")])
def test_a_refusal_says_what_to_do(answer: int, told: str) -> None:
    control = Control()
    control.communicator.answers = [answer]

    with pytest.raises(OperationFailed, match=told):
        made(control, 1, 2)


def test_there_are_limits() -> None:
    control = Control()
    for _ in range(SCOPES_MAX):
        made(control, 1)
    with pytest.raises(OperationFailed, match="too many sub-groups"):
        made(control, 1)

    control = Control()
    control.view = view(B1, *(Member(n, f"m{n}", "", ()) for n in range(1, 1025)))
    for _ in range(SCOPE_SEATS_MAX // 1024):
        made(control, *range(1, 1025))
    with pytest.raises(OperationFailed, match=str(SCOPE_SEATS_MAX)):
        made(control, 1)


def test_a_closed_one_answers_until_a_later_operation_of_the_group_is_delivered() -> None:
    control = Control()
    plane, core = made(control, 2, 1), control.communicator
    child: Any = plane.communicator
    core.submitted, core.delivered, child.in_flight = 7, 6, 1

    control.scopes.retire(plane)
    core.delivered = 7
    control.scopes.free_settled()
    last = Outcome(4, B1, OutcomeKind.DONE)
    assert control.scopes.freeze() == (ScopeReport(plane.scope, (2, 1), last),)
    core.delivered = 8
    control.scopes.free_settled()  # an operation that was aborted here is in flight still
    assert not child.is_closed

    child.in_flight = 0
    control.scopes.free_settled()

    assert child.is_closed
    assert control.posted == [ScopeClosed(plane.scope)]
    assert control.subscribed == {}
    with pytest.raises(Closed, match="this sub-group is closed"):
        plane.raise_if_final()


def test_a_plane_follows_the_view_and_its_own_verdicts() -> None:
    control = Control()
    plane, other = made(control, 3, 2, 1), made(control, 1, 2)

    control.scopes.adopt(view(B2, A, C))
    failed = ScopeVerdict(plane.scope, Verdict(VerdictKind.FAIL, 5, reason=WHY))
    control.scopes.note((failed, ScopeVerdict(99, Verdict())))

    assert plane.view.incarnations == (3, 1)
    assert plane.history.of(B2).names == ("c", "a")
    assert plane.history.of(B1).names == ("c", "b", "a")
    assert (plane.failed_in, other.failed_in) == ({5: 2}, {})
    assert plane.failure_of(5) == WHY


def test_tags_of_sub_groups_are_apart() -> None:
    tags = {scope_tag(scope, tag) for scope in (1, 2, 2**31 - 1) for tag in (0, 1, 2**32 - 1)}

    assert len(tags) == 9
    assert all(2**63 <= tag < 2**64 for tag in tags)


class Root:
    """The group's session."""

    def __init__(self) -> None:
        self.control = Control()
        self.config, self.maker = self.control.config, None
        self.submitting = threading.RLock()
        self.refusal: Exception | None = None

    def check_open(self) -> None:
        if self.refusal:
            raise self.refusal

    def limit_ns(self) -> int:
        return 10**9


def opened(root: Any, *members: int) -> ScopeSession:
    return open_scope(root, members)


def test_a_session_ends_with_the_group() -> None:
    root: Any = Root()
    session = opened(root, 1, 2)
    session.check_open()

    root.refusal = Closed("a is leaving the group")

    with pytest.raises(Closed, match="leaving"):
        session.open_boundary(0)


def test_starts_are_free_until_the_members_are_about_to_change() -> None:
    root: Any = Root()
    session = opened(root, 1, 2)
    child: Any = session.plane.communicator
    assert child.limit == 0

    session.open_boundary(0)
    assert child.limit == BOUNDARY_MAX
    root.control.scopes.recall()
    assert child.limit == 0

    session.open_boundary(0)
    session.close(is_orderly=True)
    assert child.limit == 0
    with pytest.raises(Closed):
        session.open_boundary(0)


@pytest.mark.parametrize("is_orderly", [True, False])
def test_a_session_that_is_closed_gives_up_only_out_of_order(is_orderly: bool) -> None:
    session = opened(Root(), 2, 1)
    child: Any = session.plane.communicator

    for _ in range(2):
        session.close(is_orderly=is_orderly)

    assert child.is_aborted is not is_orderly
    with pytest.raises(Closed, match="this sub-group is closed"):
        session.check_open()


def test_only_members_make_it() -> None:
    with pytest.raises(InvalidArgument, match="not among the members"):
        opened(Root(), 2, 3)

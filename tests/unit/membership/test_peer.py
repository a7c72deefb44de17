"""The peer's rules, one message or event at a time."""

from collect.membership.events import (
    AnnouncementKind,
    BoundaryAsked,
    CommFrozen,
    CommReport,
    DialPeers,
    FreezeComm,
    InstallComm,
    LeaveAsked,
    LinkLost,
    LinksMeasured,
    LinksUp,
    Log,
    MessageReceived,
    OpCancelled,
    PassBoundary,
    PeerAction,
    RebaseComm,
    RepairsDone,
    Send,
    Started,
    Tick,
)
from collect.membership.peer import Peer, State
from collect.membership.peer_state import BOUNDARY_MAX, TRANSITIONS
from collect.types import (
    CancelKind,
    FailKind,
    FailReason,
    LinkFigures,
    LinkLoss,
    Member,
    OpInFlight,
    Outcome,
    OutcomeKind,
    Redial,
    Repair,
    SwitchMark,
    Verdict,
    VerdictKind,
    View,
    make_ballot,
    op_base,
)
from collect.wire import messages
from collect.wire.messages import CoordinatorMessage
from tests.unit.membership.stage import joins

B1, B2, B3, B4 = (make_ballot(counter, 1) for counter in (1, 2, 3, 4))
A, B, C = (joins(name, index).member for index, name in enumerate("abc", 1))
FIRST = SwitchMark(B1, 1, (1, 2))
NOW_S = 10.0
WHY = FailReason(FailKind.ABORTED, ("b",), "b gave up")


def view(epoch: int, *members: Member) -> View:
    return View(epoch, members, 9)


def hear(peer: Peer, message: CoordinatorMessage) -> list[PeerAction]:
    return peer.on(MessageReceived(message), NOW_S)


def sent(actions: list[PeerAction]) -> list[object]:
    return [action.message for action in actions if isinstance(action, Send)]


def only(actions: list[PeerAction], kind: type) -> list:
    return [action for action in actions if isinstance(action, kind)]


def joining() -> Peer:
    peer = Peer(joins("a", 1), 4.0)
    peer.on(Started(), NOW_S)
    return peer


def active() -> Peer:
    """A member of epoch 1 with b, past the first boundary."""
    peer = joining()
    hear(peer, messages.Prepare(view(B1, A, B), FIRST))
    peer.on(LinksUp(B1), NOW_S)
    hear(peer, messages.Commit(B1))
    peer.on(BoundaryAsked(), NOW_S)
    assert (peer.state, peer.boundaries, peer.switch) == (State.ACTIVE, 1, None)
    return peer


def frozen(report: CommReport | None = None) -> Peer:
    peer = active()
    hear(peer, messages.Freeze(B2, "why"))
    peer.on(CommFrozen(B2, report or CommReport(Outcome(), None, ())), NOW_S)
    return peer


def install(
    epoch: int = B2,
    verdict: Verdict | None = None,
    mark: SwitchMark = FIRST,
    members: tuple[Member, ...] = (A, B),
    repairs: tuple[Repair, ...] = (),
) -> messages.Install:
    return messages.Install(
        view(epoch, *members), B1, verdict or Verdict(), repairs, (), (), mark, "b lost c"
    )


def prepared(boundary: int = 5) -> Peer:
    peer = active()
    hear(peer, messages.Prepare(view(B2, A, B, C), SwitchMark(B2, boundary, (3,))))
    return peer


def test_every_state_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(State)


def test_a_newcomer_prepares_by_dialling_and_runs_at_commit() -> None:
    peer = joining()

    assert only(hear(peer, messages.Prepare(view(B1, A, B), FIRST)), DialPeers)
    assert sent(peer.on(LinksUp(B1), NOW_S)) == [messages.Prepared(1, B1)]
    installed = only(hear(peer, messages.Commit(B1)), InstallComm)

    assert [(each.self_rank, each.op_base) for each in installed] == [(0, op_base(B1))]
    assert peer.state is State.ACTIVE


def test_a_newcomer_confirms_when_it_passes_the_boundary_that_let_it_in() -> None:
    peer = joining()
    peer.on(BoundaryAsked(), NOW_S)
    hear(peer, messages.Prepare(view(B1, A, B), FIRST))
    peer.on(LinksUp(B1), NOW_S)

    actions = hear(peer, messages.Commit(B1))

    assert sent(actions) == [messages.Installed(1, B1, 1)]
    assert only(actions, PassBoundary) == [PassBoundary(1, (1, 2), is_newcomer=True)]


def test_a_failure_before_a_newcomers_time_is_nothing_to_its_communicator() -> None:
    peer = frozen()
    verdict = Verdict(VerdictKind.FAIL, op_base(B1) - 3, reason=WHY)

    installed = only(hear(peer, install(verdict=verdict)), InstallComm)[0]

    assert installed.verdict == Verdict()
    assert peer.failure_of(verdict.op) != WHY


def test_a_boundary_passes_at_once_while_nothing_is_pending() -> None:
    peer = active()

    assert peer.on(BoundaryAsked(), NOW_S) == [PassBoundary(2, (), False)]


def test_a_member_waits_at_the_boundary_of_a_switch_until_commit() -> None:
    peer = prepared(boundary=2)
    assert peer.is_boundary_due
    assert peer.on(BoundaryAsked(), NOW_S) == []

    actions = hear(peer, messages.Commit(B2))

    installed = only(actions, InstallComm)[0]
    assert (installed.view.epoch, installed.op_base) == (B2, op_base(B2))
    assert only(actions, PassBoundary) == [PassBoundary(2, (3,), False)]
    assert messages.Installed(1, B2, 2) in sent(actions)


def test_an_abandoned_switch_lets_the_waiting_member_go_on() -> None:
    peer = prepared(boundary=2)
    peer.on(BoundaryAsked(), NOW_S)

    assert PassBoundary(2, (), False) in hear(peer, messages.Abandon(B2, "c is gone"))


def test_a_boundary_before_that_of_the_switch_is_free() -> None:
    peer = prepared(boundary=5)

    assert not peer.is_boundary_due
    assert peer.on(BoundaryAsked(), NOW_S) == [PassBoundary(2, (), False)]


def test_boundaries_are_free_up_to_the_next_switch() -> None:
    assert joining().boundaries_free == 0
    assert active().boundaries_free == BOUNDARY_MAX
    assert frozen().boundaries_free == BOUNDARY_MAX
    assert prepared(boundary=5).boundaries_free == 4
    assert prepared(boundary=2).boundaries_free == 1


def test_a_member_past_the_boundary_says_so_and_promises_nothing() -> None:
    peer = active()
    peer.boundaries = 7

    actions = hear(peer, messages.Prepare(view(B2, A, B, C), SwitchMark(B2, 7, (3,))))

    assert sent(actions) == [messages.Late(1, B2, 7)]
    assert peer.switch is None


def test_a_higher_prepare_replaces_a_switch_that_is_not_committed() -> None:
    peer = prepared(boundary=2)
    hear(peer, messages.Prepare(view(B3, A, B, C), SwitchMark(B3, 9, (3,))))

    assert peer.switch is not None
    assert peer.switch.mark.boundary == 9


def test_freeze_stops_the_communicator_before_the_report() -> None:
    peer = active()

    actions = hear(peer, messages.Freeze(B2, "b lost c"))
    assert only(actions, FreezeComm) == [FreezeComm(B2)]
    assert sent(actions) == []

    report = sent(peer.on(CommFrozen(B2, CommReport(Outcome(), None, ())), NOW_S))[0]
    assert isinstance(report, messages.Report)
    assert (report.ballot, report.epoch, report.is_passed) == (B2, B1, True)


def test_a_higher_freeze_is_answered_with_the_same_report() -> None:
    peer = frozen()

    report = sent(hear(peer, messages.Freeze(B3, "again")))[0]

    assert isinstance(report, messages.Report)
    assert report.ballot == B3


def test_a_higher_freeze_while_the_communicator_freezes_moves_the_report() -> None:
    peer = active()
    hear(peer, messages.Freeze(B2, "why"))
    assert hear(peer, messages.Freeze(B3, "again")) == []

    report = sent(peer.on(CommFrozen(B2, CommReport(Outcome(), None, ())), NOW_S))[0]

    assert isinstance(report, messages.Report)
    assert report.ballot == B3


def test_a_lower_ballot_is_answered_stale() -> None:
    peer = frozen()
    hear(peer, messages.Freeze(B4, "why"))

    assert sent(hear(peer, messages.Freeze(B3, "late"))) == [messages.Stale(1, B3, B4)]
    stale = hear(peer, messages.Prepare(view(B3, A, B, C), SwitchMark(B3, 9, (3,))))
    assert sent(stale) == [messages.Stale(1, B3, B4)]


def test_install_is_accepted_only_for_the_promised_ballot() -> None:
    peer = frozen()
    hear(peer, messages.Freeze(B3, "why"))

    assert only(hear(peer, install(B2)), InstallComm) == []
    assert peer.state is State.FROZEN
    assert only(hear(peer, install(B3)), InstallComm) != []
    assert peer.state is State.ACTIVE


def test_commit_after_a_higher_promise_is_dropped() -> None:
    peer = prepared(boundary=2)
    hear(peer, messages.Freeze(B3, "why"))

    assert only(hear(peer, messages.Commit(B2)), Log) != []
    assert peer.switch is not None
    assert not peer.switch.is_committed


def test_a_member_that_was_committed_waits_while_frozen() -> None:
    peer = prepared(boundary=2)
    hear(peer, messages.Commit(B2))
    hear(peer, messages.Freeze(B3, "why"))

    assert peer.on(BoundaryAsked(), NOW_S) == []


def test_a_flush_that_carries_a_switch_renumbers_at_its_boundary() -> None:
    mark = SwitchMark(B2, 3, (3,))
    peer = prepared(boundary=3)
    hear(peer, messages.Freeze(B3, "why"))
    peer.on(CommFrozen(B3, CommReport(Outcome(), None, ())), NOW_S)
    installed = only(hear(peer, install(B3, mark=mark, members=(A, B, C))), InstallComm)[0]
    assert installed.op_base == 0

    assert peer.on(BoundaryAsked(), NOW_S) == [PassBoundary(2, (), False)]
    actions = peer.on(BoundaryAsked(), NOW_S)

    assert only(actions, RebaseComm) == [RebaseComm(op_base(B2))]
    assert only(actions, InstallComm) == []
    assert only(actions, PassBoundary) == [PassBoundary(3, (3,), False)]
    assert sent(actions) == [messages.Installed(1, B2, 3)]


def test_a_flush_without_the_switch_voids_it() -> None:
    peer = prepared(boundary=2)
    peer.on(BoundaryAsked(), NOW_S)
    hear(peer, messages.Freeze(B3, "why"))
    peer.on(CommFrozen(B3, CommReport(Outcome(), None, ())), NOW_S)

    actions = hear(peer, install(B3))

    assert peer.switch is None
    assert PassBoundary(2, (), False) in actions


def test_a_newcomer_may_be_let_in_by_a_flush() -> None:
    peer = joining()
    mark = SwitchMark(B2, 9, (1,))
    hear(peer, messages.Prepare(view(B2, B, A), mark))
    report = sent(hear(peer, messages.Freeze(B3, "why")))[0]
    assert isinstance(report, messages.Report)
    assert report.epoch == 0

    installed = only(hear(peer, install(B3, mark=mark, members=(B, A))), InstallComm)[0]

    assert (installed.op_base, installed.self_rank) == (op_base(B2), 1)
    assert only(peer.on(BoundaryAsked(), NOW_S), PassBoundary) == [PassBoundary(9, (1,), True)]


def test_installed_waits_for_this_peers_repair() -> None:
    peer = frozen()
    actions = hear(peer, install(repairs=(Repair(2, 1),)))
    assert only(actions, InstallComm)[0].has_repair
    assert sent(actions) == []

    assert sent(peer.on(RepairsDone(B2), NOW_S)) == [messages.Installed(1, B2, 1)]
    assert only(peer.on(RepairsDone(B2), NOW_S), Log) != []


def test_a_repeated_install_is_confirmed_again() -> None:
    peer = frozen()
    hear(peer, install())

    assert sent(hear(peer, install())) == [messages.Installed(1, B2, 1)]


def test_a_failure_of_an_operation_not_yet_submitted_counts_as_consumed() -> None:
    op = op_base(B1) + 3
    peer = frozen(CommReport(Outcome(op - 1, B1, OutcomeKind.DONE, True), None, ()))
    hear(peer, install(verdict=Verdict(VerdictKind.FAIL, op, reason=WHY)))
    hear(peer, messages.Freeze(B3, "why"))
    comm = CommReport(Outcome(op - 1, B1, OutcomeKind.DONE, True), None, ())

    report = sent(peer.on(CommFrozen(B3, comm), NOW_S))[0]

    assert isinstance(report, messages.Report)
    assert report.consumed == Outcome(op, 0, OutcomeKind.FAILED, False, WHY)
    assert peer.failure_of(op) == WHY


def test_a_cancellation_is_reported_with_the_operation_it_concerns() -> None:
    peer = active()
    flight = OpInFlight(op_base(B1) + 3, B1, "all_reduce", 5)
    asked = sent(peer.on(OpCancelled(flight.op, CancelKind.ABORT, "ctrl-c"), NOW_S))
    assert asked == [messages.CancelOp(1, B1, flight.op, CancelKind.ABORT, "ctrl-c")]
    hear(peer, messages.Freeze(B2, "why"))

    report = sent(peer.on(CommFrozen(B2, CommReport(Outcome(), flight, ())), NOW_S))[0]

    assert isinstance(report, messages.Report)
    assert report.in_flight is not None
    assert report.in_flight.cancel is not None


def test_a_cancellation_that_a_flush_did_not_settle_is_asked_again() -> None:
    peer = active()
    flight = OpInFlight(op_base(B1) + 3, B1, "all_reduce", 5)
    peer.on(OpCancelled(flight.op, CancelKind.ABORT, "ctrl-c"), NOW_S)
    hear(peer, messages.Freeze(B2, "why"))
    peer.on(CommFrozen(B2, CommReport(Outcome(), flight, ())), NOW_S)

    kinds = [type(message) for message in sent(hear(peer, install()))]

    assert messages.CancelOp in kinds


def test_a_cancellation_of_a_consumed_operation_is_forgotten() -> None:
    peer = active()
    peer.on(OpCancelled(op_base(B1) + 3, CancelKind.ABORT, "ctrl-c"), NOW_S)
    hear(peer, messages.Freeze(B2, "why"))
    peer.on(CommFrozen(B2, CommReport(Outcome(), None, ())), NOW_S)

    assert [type(m) for m in sent(hear(peer, install()))] == [messages.Installed]


def test_a_lost_link_is_a_suspicion_until_a_view_settles_it() -> None:
    peer = active()
    lost = LinkLost(2, LinkLoss.SILENT, "nothing for 4 s")
    suspicion = messages.Suspect(1, B1, 2, LinkLoss.SILENT, "nothing for 4 s")

    assert sent(peer.on(lost, NOW_S)) == [suspicion]
    assert suspicion in sent(peer.on(Tick(), NOW_S + 1.0))


def test_a_link_lost_after_the_report_is_suspected_again_after_install() -> None:
    peer = frozen()
    peer.on(LinkLost(2, LinkLoss.RESET, "end of file"), NOW_S)

    assert messages.Suspect(1, B2, 2, LinkLoss.RESET, "end of file") in sent(hear(peer, install()))


def test_a_link_that_is_dialled_again_is_not_suspected() -> None:
    peer = frozen()
    peer.on(LinkLost(2, LinkLoss.RESET, "end of file"), NOW_S)
    redial = messages.Install(view(B2, A, B), B1, Verdict(), (), (Redial(1, 2),), (), FIRST, "why")

    actions = hear(peer, redial)

    assert only(actions, InstallComm)[0].redials == (2,)
    assert [type(m) for m in sent(actions)] == [messages.Installed]


def test_a_strangers_link_is_nobodys_loss() -> None:
    assert sent(active().on(LinkLost(99, LinkLoss.RESET, "x"), NOW_S)) == []


def test_the_silence_of_the_coordinator_is_announced_once_and_so_is_its_return() -> None:
    peer = active()
    kinds = [
        action.kind
        for step in range(1, 12)
        for action in peer.on(Tick(), NOW_S + step)
        if not isinstance(action, Send)
    ]
    assert kinds == [AnnouncementKind.COORDINATOR_UNREACHABLE]

    back = hear(peer, messages.Pong(1, B1))
    assert [action.kind for action in back] == [AnnouncementKind.COORDINATOR_BACK]


def test_a_restarted_coordinator_is_told_everything() -> None:
    peer = prepared(boundary=5)

    hello = sent(hear(peer, messages.Who(2)))[0]

    assert isinstance(hello, messages.Hello)
    assert (hello.epoch, hello.promised, hello.is_frozen) == (B1, B2, False)
    assert hello.prepared == view(B2, A, B, C)
    assert hello.switch == FIRST


def test_a_fenced_peer_ignores_everything() -> None:
    peer = active()
    assert [a.kind for a in hear(peer, messages.Fenced(B3, "x"))] == [AnnouncementKind.FENCED]

    for event in (Tick(), BoundaryAsked(), LeaveAsked(), MessageReceived(messages.Who(1))):
        assert only(peer.on(event, NOW_S), Log) != []
    assert peer.state is State.FENCED


def test_a_leaver_that_is_fenced_has_left() -> None:
    peer = active()
    peer.on(LeaveAsked(), NOW_S)
    hear(peer, messages.Fenced(B3, "let go by a coordinator that died"))

    assert peer.state is State.LEFT


def test_a_peer_that_leaves_before_it_is_let_in_is_gone_at_once() -> None:
    peer = joining()

    assert sent(peer.on(LeaveAsked(), NOW_S)) == [messages.Leave(1, 0)]
    assert peer.state is State.LEFT


def test_a_member_past_a_boundary_it_never_promised_fences_itself() -> None:
    peer = frozen()
    peer.boundaries = 50

    hear(peer, install(mark=SwitchMark(B2, 9, (3,))))

    assert peer.state is State.FENCED


def test_join_is_repeated_until_it_is_answered() -> None:
    peer = joining()
    assert peer.join in sent(peer.on(Tick(), NOW_S + 1.0))

    hear(peer, messages.Welcome(3, messages.Scope.ANY, 9, 8.0))

    assert peer.timeout_s == 8.0
    assert peer.join not in sent(peer.on(Tick(), NOW_S + 3.0))


def figures(rate: int, rtt_ns: int = 1000) -> LinksMeasured:
    return LinksMeasured((LinkFigures(2, rtt_ns, rate),))


def test_figures_are_told_when_they_are_news_and_not_too_often() -> None:
    peer = active()

    def told(event: LinksMeasured, at_s: float) -> list[messages.PeerMessage]:
        return sent(peer.on(event, NOW_S + at_s))

    assert told(figures(100), 0.0) == [messages.Figures(1, figures(100).links)]
    assert told(figures(200), peer.timeout_s / 2) == []
    assert told(figures(109), peer.timeout_s * 2) == []
    assert told(figures(112), peer.timeout_s * 2) == [messages.Figures(1, figures(112).links)]
    assert told(figures(112, rtt_ns=800), peer.timeout_s * 4) != []


def test_who_asks_anew_gets_the_figures_anew() -> None:
    peer = active()
    peer.on(figures(100), NOW_S)
    hear(peer, messages.Who(2))

    later_s = NOW_S + 2 * peer.timeout_s
    assert sent(peer.on(figures(100), later_s)) == [messages.Figures(1, figures(100).links)]


def test_a_joiner_has_no_figures_to_tell() -> None:
    assert joining().on(figures(100), NOW_S) == []

"""Sub-groups in the machines: each has its own verdict, by the rules of the group's."""

from dataclasses import replace

import pytest

from collect.membership.events import (
    CommFrozen,
    CommReport,
    InstallComm,
    OpCancelled,
    RepairsDone,
    ScopeClosed,
)
from collect.membership.verdict import decide
from collect.types import (
    CancelKind,
    FailKind,
    FailReason,
    Incarnation,
    OpInFlight,
    Outcome,
    OutcomeKind,
    Repair,
    ScopeReport,
    ScopeVerdict,
    Verdict,
    VerdictKind,
)
from collect.wire import messages
from tests.unit.membership import test_peer as peers
from tests.unit.membership.test_verdict import B1, B2, B3, VIEWS, report

ROW, COLUMN = 11, 12
IDLE = Outcome()
WHY = FailReason(FailKind.ABORTED, ("a",), "a gave up")


def did(op: int, is_retained: bool = True) -> Outcome:
    return Outcome(op, B1, OutcomeKind.DONE, is_retained)


def runs(op: int, **more: object) -> OpInFlight:
    return replace(OpInFlight(op, B1, "all_reduce", 5), **more)  # type: ignore[arg-type]


def told(peer: Incarnation, *scopes: ScopeReport) -> messages.Report:
    return replace(report(peer, IDLE), scopes=scopes)


def row(
    consumed: Outcome, flight: OpInFlight | None = None, members: tuple[int, ...] = (2, 1)
) -> ScopeReport:
    return ScopeReport(ROW, members, consumed, flight)


def test_each_sub_group_has_a_verdict_of_its_own() -> None:
    reports = {
        1: told(1, row(did(4)), ScopeReport(COLUMN, (1, 3), did(1), runs(2))),
        2: told(2, row(did(3), runs(4))),
        3: told(3, ScopeReport(COLUMN, (1, 3), did(1), runs(2, digest=6))),
    }

    decision = decide(reports, VIEWS)

    repair = ScopeVerdict(ROW, Verdict(VerdictKind.REPAIR, 4, B1), (Repair(1, 2),))
    assert decision.verdict == Verdict()
    assert decision.scopes[2] == (repair,)
    assert decision.scopes[1][0] == repair
    (mismatch,) = decision.scopes[3]
    assert (mismatch.scope, mismatch.verdict.kind, mismatch.verdict.op) == (
        COLUMN,
        VerdictKind.FAIL,
        2,
    )
    assert mismatch.verdict.reason is not None
    assert mismatch.verdict.reason.culprits == ("a", "c")


def test_nothing_is_said_of_sub_groups_where_all_runs_again() -> None:
    reports = {1: told(1, row(did(3), runs(4))), 2: told(2, row(did(3), runs(4))), 3: told(3)}

    assert decide(reports, VIEWS).scopes == {1: (), 2: (), 3: ()}


def test_who_has_yet_to_create_it_has_nothing_in_flight() -> None:
    """So a rooted operation that it may call with other ranks in mind does not run again."""
    three = (1, 2, 3)
    flight = runs(1, is_rooted=True)
    reports = {1: told(1, row(IDLE, flight, three)), 2: told(2)}

    (verdict,) = decide(reports, VIEWS, silent={3: "dead"}).scopes[2]

    assert (verdict.verdict.kind, verdict.verdict.op) == (VerdictKind.FAIL, 1)
    assert verdict.verdict.reason is not None
    assert "c was lost before b called it" in verdict.verdict.reason.text


def test_blocks_run_again_if_only_others_were_lost() -> None:
    flight = runs(4, is_shaped=True)
    reports = {1: told(1, row(did(3), flight)), 2: told(2, row(did(3), flight))}

    assert decide(reports, VIEWS, silent={3: "dead"}).scopes[1] == ()


def test_blocks_for_a_lost_member_fail() -> None:
    flight = runs(4, is_shaped=True)
    reports = {m: told(m, row(did(3), flight, (3, 1, 2))) for m in (1, 2)}

    (verdict,) = decide(reports, VIEWS, silent={3: "dead"}).scopes[1]

    assert verdict.verdict.kind is VerdictKind.FAIL
    assert verdict.verdict.reason is not None
    assert verdict.verdict.reason.culprits == ("c",)


def test_the_members_are_those_of_the_last_view() -> None:
    """One of them is a view behind, and still tells of a member that is gone."""
    reports = {
        1: replace(told(1, row(did(3), runs(4), (1, 2))), epoch=B2),
        2: told(2, row(did(3), runs(4), (1, 3, 2))),
        3: replace(told(3), epoch=B2),
        4: replace(told(4), epoch=B2),
    }

    assert decide(reports, VIEWS).scopes[1] == ()
    shaped = {p: replace(r) for p, r in reports.items()}
    shaped[2] = told(2, row(did(3), runs(4, is_shaped=True), (1, 3, 2)))
    (verdict,) = decide(shaped, VIEWS).scopes[1]
    assert verdict.verdict.reason is not None
    assert "for 3 members" in verdict.verdict.reason.text


def test_a_leaver_stays_while_it_alone_has_a_sub_groups_result() -> None:
    reports = {1: told(1, row(did(4))), 2: told(2, row(did(3), runs(4))), 3: told(3)}

    decision = decide(reports, VIEWS, leaving=[1])

    assert decision.keeps_leavers
    assert decision.members == (1, 2, 3)
    assert decision.scopes[2][0].repairs == (Repair(1, 2),)


def test_a_lost_result_that_others_delivered_fails() -> None:
    reports = {
        1: told(1, row(did(4, is_retained=False))),
        2: told(2, row(did(3), runs(4))),
        3: told(3),
    }

    (verdict,) = decide(reports, VIEWS).scopes[2]

    assert (verdict.verdict.kind, verdict.repairs) == (VerdictKind.FAIL, ())


def test_members_that_call_a_sub_group_unlike_one_another_are_told_and_stay() -> None:
    reports = {1: told(1, row(did(9))), 2: told(2, row(did(3), runs(4))), 3: told(3)}

    decision = decide(reports, VIEWS)

    assert decision.members == (1, 2, 3)
    (verdict,) = decision.scopes[2]
    assert (verdict.verdict.kind, verdict.verdict.op) == (VerdictKind.FAIL, 4)


def test_progress_is_that_of_every_stream() -> None:
    reports = {1: told(1, row(did(4))), 2: told(2, row(did(3), runs(4))), 3: told(3)}

    assert decide(reports, VIEWS).progress == {0: 0, ROW: 4}


# ---- the peer ----------------------------------------------------------------------------------


def comm(*scopes: ScopeReport) -> CommReport:
    return CommReport(IDLE, None, (), scopes)


def test_only_sub_groups_that_had_operations_are_reported() -> None:
    peer = peers.active()
    peers.hear(peer, messages.Freeze(B2, "why"))
    scopes = (row(did(3)), ScopeReport(COLUMN, (1, 3)))

    (sent,) = peers.sent(peer.on(CommFrozen(B2, comm(*scopes)), 0.0))

    assert isinstance(sent, messages.Report)
    assert sent.scopes == (row(did(3)),)


def test_a_cancellation_says_of_which_sub_group_and_is_reported_there() -> None:
    peer = peers.active()
    asked = peers.sent(peer.on(OpCancelled(4, CancelKind.ABORT, "ctrl-c", ROW), 0.0))
    assert asked == [messages.CancelOp(1, B1, 4, CancelKind.ABORT, "ctrl-c", ROW)]
    peers.hear(peer, messages.Freeze(B2, "why"))

    other = ScopeReport(COLUMN, (1, 3), IDLE, runs(4))
    (sent,) = peers.sent(peer.on(CommFrozen(B2, comm(row(did(3), runs(4)), other)), 0.0))

    assert isinstance(sent, messages.Report)
    mine, others = sent.scopes
    assert mine.in_flight is not None
    assert others.in_flight is not None
    assert mine.in_flight.cancel is not None
    assert others.in_flight.cancel is None


def test_a_repair_of_a_sub_group_is_awaited() -> None:
    peer = peers.frozen(comm(row(did(3), runs(4))))
    repaired = ScopeVerdict(ROW, Verdict(VerdictKind.REPAIR, 4, B1), (Repair(2, 1),))
    install = replace(peers.install(repairs=(Repair(2, 1),)), scopes=(repaired,))

    actions = peers.hear(peer, install)

    assert peers.sent(actions) == []
    assert peers.only(actions, InstallComm)[0].scopes == (repaired,)
    assert peers.sent(peer.on(RepairsDone(B2), 0.0)) == []
    assert peers.sent(peer.on(RepairsDone(B2, ROW), 0.0)) == [messages.Installed(1, B2, 1)]


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_failure_is_remembered_until_the_sub_group_is_closed(is_closed: bool) -> None:
    """It may be yet to be created here."""
    peer = peers.frozen()
    failed = ScopeVerdict(ROW, Verdict(VerdictKind.FAIL, 1, reason=WHY))
    peers.hear(peer, replace(peers.install(), scopes=(failed,)))
    assert peer.failure_of(1, ROW) == WHY
    assert peer.failure_of(1, COLUMN) != WHY
    if is_closed:
        peer.on(ScopeClosed(ROW), 0.0)
    peers.hear(peer, messages.Freeze(B3, "why"))

    (sent,) = peers.sent(peer.on(CommFrozen(B3, comm(row(IDLE))), 0.0))

    assert isinstance(sent, messages.Report)
    foretold = row(Outcome(1, 0, OutcomeKind.FAILED, False, WHY))
    assert sent.scopes == (() if is_closed else (foretold,))
